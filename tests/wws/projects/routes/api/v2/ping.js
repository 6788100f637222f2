// A folder in a folder.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`api/v2/ping`));
});
