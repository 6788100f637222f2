// features/http-requests.md: GET and POST are allowed.
const reply = async (request) => {
  const response = await fetch(`${UPSTREAM}/posts`, {
    method: "POST",
    headers: { "content-type": "text/plain" },
    body: await request.text(),
  });
  return new Response(`${response.status} ${await response.text()}`);
};

addEventListener("fetch", (event) => {
  event.respondWith(reply(event.request));
});
