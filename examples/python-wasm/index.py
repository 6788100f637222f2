"""The page at /: says hello, and links to the notebooks that the site serves."""

import json
import sys
from html import escape
from string import Template

from wharf import Response

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Python, twice, as WebAssembly</title>
<link rel="icon" href="data:,">
<style>
:root { --ink: #14213d; --paper: #f7f9fc; --accent: #0b5fa5; --on-accent: #fff; --soft: #e4ebf5 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eef8; --paper: #0e1626; --accent: #7cc0f5; --on-accent: #0e1626; --soft: #1b2942 }
}
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--paper); color: var(--ink);
  font: 1.1rem/1.6 system-ui, sans-serif }
main { max-width: 34rem; padding: 2rem }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 1rem }
a.button { display: inline-block; padding: .7rem 1.3rem; border-radius: .5rem; background: var(--accent);
  color: var(--on-accent); font-weight: 600; text-decoration: none }
a.button:hover { text-decoration: underline }
a.button:focus-visible { outline: 3px solid var(--ink); outline-offset: 3px }
dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem; margin: 2rem 0 0; padding: 1rem 1.3rem;
  border-radius: .5rem; background: var(--soft); font-size: .95rem }
dt { font-weight: 600 }
dd { margin: 0; overflow-wrap: anywhere }
</style>
</head>
<body>
<main>
<h1>Python, twice, as WebAssembly</h1>
<p>This page was answered by a Python worker on the server.
The notebooks behind the link run Python in your browser. One image holds both.</p>
<p><a class="button" href="/dist/">Open the notebooks</a></p>
<dl>
$facts
</dl>
</main>
</body>
</html>
""")


def worker(request):
    facts = {
        "Python": sys.version.split()[0],
        "Platform": sys.platform,
        "Request": f"{request.method} {request.path}",
    }
    if "application/json" in request.headers.get("accept", ""):
        body = {"message": "Python, twice, as WebAssembly", "notebooks": "/dist/", **facts}
        return Response(json.dumps(body) + "\n", headers={"content-type": "application/json"})
    rows = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return Response(PAGE.substitute(facts=rows), headers={"content-type": "text/html; charset=utf-8"})
