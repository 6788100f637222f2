// features/dynamic-routes.md, "Catch-all routes".
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`other ${event.request.params.slug}`));
});
