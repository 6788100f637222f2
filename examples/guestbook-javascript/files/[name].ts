// /files/NAME: a file, as it was put. wharf.toml says how large it may be.

import { type Context, type Env, notAllowed } from "../_guestbook";

const NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$/;

export default {
  async fetch(request: Request, { KV }: Env, { params: { name } }: Context): Promise<Response> {
    switch (request.method) {
      case "GET":
      case "HEAD": {
        const content = NAME.test(name) ? await KV.get(`file/${name}`, "arrayBuffer") : null;
        if (content === null) return new Response("no such file\n", { status: 404 });
        // Whatever it says it is: no browser shows it as a page of this site.
        const headers = { "content-type": "application/octet-stream", "x-content-type-options": "nosniff" };
        return new Response(content, { headers });
      }
      case "PUT":
        if (!NAME.test(name)) {
          const expected = "name: expected at most 100 of A-Z a-z 0-9 . _ -, no dot in front";
          return new Response(expected, { status: 400 });
        }
        await KV.put(`file/${name}`, await request.arrayBuffer());
        return new Response(null, { status: 204 });
      default:
        return notAllowed("GET, HEAD, PUT");
    }
  },
};
