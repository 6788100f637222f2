// features/mount-folders.md: no worker, as its folder begins with "_".
addEventListener("fetch", (event) => {
  event.respondWith(new Response("private"));
});
