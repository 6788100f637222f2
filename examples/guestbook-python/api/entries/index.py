"""/api/entries: all entries, and a new one."""

from dataclasses import asdict

from _guestbook import Invalid, entries, not_allowed, sign
from wharf import Response


def worker(request):
    match request.method:
        case "GET" | "HEAD":
            return Response.json([asdict(entry) for entry in entries()])
        case "POST":
            try:
                entry = sign(fields(request))
            except Invalid as error:
                return Response.json({"error": str(error)}, 400)
            return Response.json(asdict(entry), 201, {"location": f"/api/entries/{entry.id}"})
        case _:
            return not_allowed("GET, HEAD, POST")


def fields(request):
    try:
        value = request.json()
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Invalid("expected a JSON object with the texts name and text")
    return value
