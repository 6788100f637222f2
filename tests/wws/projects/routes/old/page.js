// For --ignore.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`old`));
});
