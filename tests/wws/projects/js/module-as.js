// examples/js-hono: how bundlers write a default export.
const app = {
  fetch: (request) => new Response(`bundled, ${request.method}`),
};
export { app as default };
