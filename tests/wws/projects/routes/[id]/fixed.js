// features/dynamic-routes.md, "Dynamic routes and folders".
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`[id]/fixed ${JSON.stringify(event.request.params)}`));
});
