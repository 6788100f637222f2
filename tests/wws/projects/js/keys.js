// features/key-value.md: the workers of one namespace see the same store.
addEventListener("fetch", (event) => {
  const counter = Cache.get("counter");
  const room = Cache.get("blue");
  event.respondWith(new Response(`counter ${counter ?? "none"}, room ${room ?? "none"}`));
});
