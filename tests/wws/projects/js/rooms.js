// examples/js-tictactoe: state by room, as text; a PUT stores the request's body.
const room = (request) => request.url.split("?room=")[1];

const route = (request) => {
  if (request.method == "PUT") {
    Cache.set(room(request), request.body);
    return new Response(request.body, { headers: { "Content-Type": "application/json" } });
  }
  const moves = JSON.parse(Cache.get(room(request)) || "[]");
  return new Response(JSON.stringify({ moves }), {
    headers: { "content-type": "application/json;charset=UTF-8" },
  });
};

addEventListener("fetch", (event) => {
  return event.respondWith(route(event.request));
});
