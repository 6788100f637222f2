"""/api/entries/ID: one entry."""

from dataclasses import asdict

from _guestbook import entry, not_allowed
from wharf import Response


def worker(request):
    if request.method not in ("GET", "HEAD"):
        return not_allowed("GET, HEAD")
    found = entry(request.params["id"])
    if found is None:
        return Response.json({"error": "no such entry"}, 404)
    return Response.json(asdict(found))
