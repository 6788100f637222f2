// Not in the documentation: ${NAME}, as shells write it.
addEventListener("fetch", (event) => {
  event.respondWith(new Response(TOKEN));
});
