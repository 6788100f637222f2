"""/files/NAME: a file, as it was put. wharf.toml says how large it may be."""

import re

from _guestbook import not_allowed
from wharf import Response, kv

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def worker(request):
    name = request.params["name"]
    valid = NAME.fullmatch(name)
    match request.method:
        case "GET" | "HEAD":
            content = kv.open().get(f"file/{name}") if valid else None
            if content is None:
                return Response("no such file\n", 404)
            # Whatever it says it is: no browser shows it as a page of this site.
            headers = {"content-type": "application/octet-stream", "x-content-type-options": "nosniff"}
            return Response(content, headers=headers)
        case "PUT":
            if not valid:
                return Response("name: expected at most 100 of A-Z a-z 0-9 . _ -, no dot in front", 400)
            kv.open().set(f"file/{name}", request.body)
            return Response("", 204)
        case _:
            return not_allowed("GET, HEAD, PUT")
