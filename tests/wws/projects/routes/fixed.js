// examples/js-params: a path without parameters.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`fixed`));
});
