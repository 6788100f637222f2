// languages/javascript.md, "Read environment variables": each is a global constant.
const reply = () => {
  const body = JSON.stringify({ success: true, message: MESSAGE, token: TOKEN, price: PRICE, quoted: QUOTED }, null, 2);
  return new Response(body, {
    headers: { "content-type": "application/json;charset=UTF-8" },
  });
};

addEventListener("fetch", (event) => {
  return event.respondWith(reply());
});
