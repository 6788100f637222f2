// examples/js-async: the handler is an async function.
async function handle(request) {
  const body = await request.text();
  return new Response(`${request.method} ${body.toUpperCase()}`);
}

addEventListener("fetch", (event) => {
  event.respondWith(handle(event.request));
});
