// /visits: how many there were.

import { type Env, notAllowed } from "./_guestbook";

export default {
  async fetch(request: Request, { KV }: Env): Promise<Response> {
    switch (request.method) {
      case "GET":
      case "HEAD":
        return new Response((await KV.get("visits")) ?? "0");
      case "POST":
        return new Response(String(await KV.increment("visits")));
      default:
        return notAllowed("GET, HEAD, POST");
    }
  },
};
