// /api/entries/ID: one entry.

import { type Context, type Env, entry, notAllowed } from "../../_guestbook";

export default {
  async fetch(request: Request, { KV }: Env, { params }: Context): Promise<Response> {
    if (request.method !== "GET" && request.method !== "HEAD") return notAllowed("GET, HEAD");
    const found = await entry(KV, params.id);
    return found ? Response.json(found) : Response.json({ error: "no such entry" }, { status: 404 });
  },
};
