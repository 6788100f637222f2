// /api/entries: all entries, and a new one.

import { type Env, Invalid, entries, notAllowed, sign } from "../../_guestbook";

export default {
  async fetch(request: Request, { KV }: Env): Promise<Response> {
    switch (request.method) {
      case "GET":
      case "HEAD":
        return Response.json(await entries(KV));
      case "POST":
        try {
          const entry = await sign(KV, await fields(request));
          return Response.json(entry, { status: 201, headers: { location: `/api/entries/${entry.id}` } });
        } catch (error) {
          if (error instanceof Invalid) return Response.json({ error: error.message }, { status: 400 });
          throw error;
        }
      default:
        return notAllowed("GET, HEAD, POST");
    }
  },
};

async function fields(request: Request): Promise<Record<string, unknown>> {
  const value = await request.json().catch(() => undefined);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Invalid("expected a JSON object with the texts name and text");
  }
  return value;
}
