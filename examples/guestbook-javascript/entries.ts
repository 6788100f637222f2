// /entries: the guestbook as a page, and where its form goes.

import { type Entry, type Env, Invalid, entries, notAllowed, sign } from "./_guestbook";

export default {
  async fetch(request: Request, { KV }: Env): Promise<Response> {
    switch (request.method) {
      case "GET":
      case "HEAD":
        return new Response(page(await entries(KV)), { headers: { "content-type": "text/html; charset=utf-8" } });
      case "POST":
        try {
          const form = new URLSearchParams(await request.text());
          await sign(KV, Object.fromEntries(form));
        } catch (error) {
          if (error instanceof Invalid) return new Response(error.message, { status: 400 });
          throw error;
        }
        return new Response(null, { status: 303, headers: { location: "/entries" } });
      default:
        return notAllowed("GET, HEAD, POST");
    }
  },
};

const page = (entries: Entry[]) => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Guestbook</title>
<h1>Guestbook</h1>
<ul>
${entries.map(({ name, text }) => `<li><b>${escape(name)}</b> ${escape(text)}</li>`).join("\n")}
</ul>
<p><a href="/">Sign it</a></p>
</html>
`;

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
