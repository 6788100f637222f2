// features/mount-folders.md: no worker.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`hidden`));
});
