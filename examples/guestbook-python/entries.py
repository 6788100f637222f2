"""/entries: the guestbook as a page, and where its form goes."""

from html import escape
from urllib.parse import parse_qsl

from _guestbook import Invalid, entries, not_allowed, sign
from wharf import Response

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Guestbook</title>
<h1>Guestbook</h1>
<ul>
{items}</ul>
<p><a href="/">Sign it</a></p>
</html>
"""


def worker(request):
    match request.method:
        case "GET" | "HEAD":
            items = "".join(f"<li><b>{escape(e.name)}</b> {escape(e.text)}</li>\n" for e in entries())
            return Response(PAGE.format(items=items))
        case "POST":
            form = parse_qsl(request.body.decode(errors="replace"))
            try:
                sign(dict(form))
            except Invalid as error:
                return Response(str(error), 400)
            return Response("", 303, {"location": "/entries"})
        case _:
            return not_allowed("GET, HEAD, POST")
