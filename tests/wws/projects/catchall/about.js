// features/dynamic-routes.md, "Catch-all routes".
addEventListener("fetch", (event) => {
  event.respondWith(new Response(`about`));
});
