// features/dynamic-routes.md, "Routing priority": as deep as [x]/b.js, but a catch-all.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`a/[...rest] ${JSON.stringify(event.request.params)}`));
});
