// features/dynamic-routes.md, "Multiple parameters".
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`[resource]/[id]/show ${JSON.stringify(event.request.params)}`));
});
