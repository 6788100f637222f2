// examples/containers: workers in several languages count in one namespace.
addEventListener("fetch", (event) => {
  const visits = parseInt(Cache.get("visits") || "0", 10) + 1;
  Cache.set("visits", visits.toString());
  event.respondWith(new Response(`JavaScript ${visits}`));
});
