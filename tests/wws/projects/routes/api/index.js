// An index file is its folder's path.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`api`));
});
