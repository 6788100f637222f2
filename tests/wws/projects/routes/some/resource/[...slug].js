// features/dynamic-routes.md, "Catch-all routes": the end of a path.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`some/resource/[...slug] ${JSON.stringify(event.request.params)}`));
});
