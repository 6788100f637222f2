// languages/javascript.md, "Add a Key / Value store": what is set as a number is a
// number at the next request, or the sum would be a text.
const KEY = "counter";

const reply = () => {
  let counter = Cache.get(KEY) || 0;
  counter += 1;
  Cache.set(KEY, counter);
  return new Response(`Counter: ${counter}`);
};

addEventListener("fetch", (event) => {
  event.respondWith(reply());
});
