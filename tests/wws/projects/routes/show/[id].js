// features/dynamic-routes.md: /show/1, /show/2.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`show/[id] ${JSON.stringify(event.request.params)}`));
});
