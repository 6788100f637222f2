"""Answers a wasi:http request by a WSGI application (PEP 3333)."""

import io
import sys
import weakref
from urllib.parse import unquote

from componentize_py_types import Err, Ok
from wit_world.imports import types as http
from wit_world.imports.streams import StreamError_Closed

# What blocking-write-and-flush takes at once.
LARGEST_WRITE = 4096


def rehearse():
    """Uses what has a table to make, or an import, at its first use."""
    unquote("/%20", "latin-1")
    weakref.finalize(io.BytesIO(), len).detach()


def _method(method):
    name = type(method).__name__
    return method.value if name == "Method_Other" else name.split("_", 1)[1].upper()


def _read_body(request):
    chunks = []
    body = request.consume()
    with body.stream() as stream:
        while True:
            try:
                chunks.append(stream.blocking_read(65536))
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    break
                raise
    http.IncomingBody.finish(body)
    return b"".join(chunks)


def _environment(request, body):
    path, _, query = (request.path_with_query() or "/").partition("?")
    environment = {
        "REQUEST_METHOD": _method(request.method()),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": True,
    }
    for name, value in request.headers().entries():
        name = name.upper().replace("-", "_")
        if name != "CONTENT_LENGTH":
            environment[name if name == "CONTENT_TYPE" else f"HTTP_{name}"] = value.decode("latin-1")
    if authority := request.authority():
        environment["HTTP_HOST"] = authority
    return environment


def serve(application, request, out):
    """Lets `application` answer `request`."""
    answer = {}

    def start_response(status, headers, exc_info=None):
        answer["status"], answer["headers"] = int(status.split()[0]), headers

    data = b"".join(application(_environment(request, _read_body(request)), start_response))
    fields = [(name.lower(), value.encode("latin-1")) for name, value in answer["headers"]]
    response = http.OutgoingResponse(http.Fields.from_list(fields))
    response.set_status_code(answer["status"])
    body = response.body()
    http.ResponseOutparam.set(out, Ok(response))
    with body.write() as stream:
        for start in range(0, len(data), LARGEST_WRITE):
            stream.blocking_write_and_flush(data[start : start + LARGEST_WRITE])
    http.OutgoingBody.finish(body, None)
