// features/dynamic-routes.md, "Routing priority": no catch-all, so before a/[...rest].js.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`[x]/b ${JSON.stringify(event.request.params)}`));
});
