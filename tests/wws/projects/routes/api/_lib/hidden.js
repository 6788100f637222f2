// The same, deeper.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`hidden`));
});
