// examples/js-modules: a default export with the method `fetch`.
export default {
  async fetch(request) {
    const response = new Response(`<p>A module, asked by ${request.method}, payload ${request.body || "-"}</p>`);
    response.headers.set("x-generated-by", "a module");
    return response;
  },
};
