// languages/javascript.md, "Your first JavaScript worker": a page about the request.
const reply = (request) => {
  const body = `<!DOCTYPE html>
<body>
<h1>A worker in JavaScript</h1>
<p>Replying to ${request.url}</p>
<p>Method: ${request.method}</p>
<p>User Agent: ${request.headers.get("user-agent")}</p>
<p>Payload: ${request.body || "-"}</p>
</body>`;
  const response = new Response(body);
  response.headers.set("x-generated-by", "a worker");
  return response;
};

addEventListener("fetch", (event) => {
  return event.respondWith(reply(event.request));
});
