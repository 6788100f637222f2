"""/visits: how many there were."""

from _guestbook import not_allowed
from wharf import Response, kv


def worker(request):
    match request.method:
        case "GET" | "HEAD":
            visits = int(kv.open().get("visits", 0))
        case "POST":
            visits = kv.open().increment("visits")
        case _:
            return not_allowed("GET, HEAD, POST")
    return Response(str(visits))
