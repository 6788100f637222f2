// features/http-requests.md: what is not allowed is an error that the worker can catch.
const reply = async () => {
  try {
    const response = await fetch(`${UPSTREAM}/posts`, { method: "POST", body: "x" });
    return new Response(`answered ${response.status}`);
  } catch (e) {
    return new Response("There was an error with the request");
  }
};

addEventListener("fetch", (event) => {
  event.respondWith(reply());
});
