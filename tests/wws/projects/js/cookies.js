// Ours: a header may have several values (wws keeps the last).
addEventListener("fetch", (event) => {
  const response = new Response("two cookies");
  response.headers.append("set-cookie", "a=1");
  response.headers.append("set-cookie", "b=2; Path=/");
  event.respondWith(response);
});
