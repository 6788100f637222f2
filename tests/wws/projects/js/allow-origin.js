// --cors is for workers that do not say it themselves.
addEventListener("fetch", (event) => {
  event.respondWith(new Response("mine", { headers: { "access-control-allow-origin": "https://own.example" } }));
});
