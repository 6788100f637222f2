// The site's root; public/index.html gives way to it.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`index`));
});
