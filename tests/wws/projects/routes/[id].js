// examples/js-params: one parameter, at the root.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`[id] ${JSON.stringify(event.request.params)}`));
});
