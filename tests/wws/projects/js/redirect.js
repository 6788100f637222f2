// examples/js-redirect: another status, and the redirect of the Fetch API.
const reply = (request) => {
  if (request.method != "GET") {
    return new Response("Method not allowed", { status: 405 });
  }
  return Response.redirect("https://example.com", 301);
};

addEventListener("fetch", (event) => {
  return event.respondWith(reply(event.request));
});
