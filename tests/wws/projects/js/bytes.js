// Ours: bodies are bytes, both ways (wws: UTF-8 alone in, text alone out).
const reply = async (request) => {
  const bytes = new Uint8Array(await request.arrayBuffer());
  return new Response(bytes.reverse(), { headers: { "content-type": "application/octet-stream" } });
};

addEventListener("fetch", (event) => {
  event.respondWith(reply(event.request));
});
