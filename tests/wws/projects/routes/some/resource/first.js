// features/dynamic-routes.md, "Routing priority": exact before a catch-all.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`some/resource/first`));
});
