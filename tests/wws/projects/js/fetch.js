// languages/javascript.md, "Send an HTTP request (fetch)".
const reply = async () => {
  let body;
  try {
    const response = await fetch(`${UPSTREAM}/posts/1`);
    const json = await response.json();
    body = `<!DOCTYPE html>
<p>The post title is: ${json.title}</p>`;
  } catch (e) {
    body = `There was an error with the request: ${e}`;
  }
  return new Response(body);
};

addEventListener("fetch", (event) => {
  event.respondWith(reply());
});
