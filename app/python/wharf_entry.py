"""All Python workers of a project as one wasi:http component.

Loaded by componentize-py: what runs at import runs once, at build time, and
its result is part of the component. `wharf_workers.json` beside this file
says which workers there are: name → path of the source.
"""

import json
import sys
import traceback
import types as python_types
import weakref
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import encodings.idna  # noqa: F401  (imported now: a request has no files to import from)

import wharf
from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import types as http
from wit_world.imports.streams import StreamError_Closed

# What a stream takes at once with its flush (wasi:io, blocking-write-and-flush).
LARGEST_WRITE = 4096

# The project's folder has another name in here than on the machine that builds.
PROJECT = next(Path(folder) for folder in sys.path if (Path(folder) / ".wharf-project").exists())


def _load(name, path):
    """Runs a worker's source, under its name in the project, and gives its `worker`."""
    module = python_types.ModuleType(f"wharf_worker:{name}")
    module.__file__ = path
    module.Response = wharf.Response
    module.Request = wharf.Request
    code = compile((PROJECT / path).read_bytes(), path, "exec")
    sys.modules[module.__name__] = module
    exec(code, module.__dict__)
    worker = getattr(module, "worker", None)
    if not callable(worker):
        raise SystemExit(f"{path}: no function worker(request) found: expected def worker(request): …")
    return worker


def _load_all():
    manifest = json.loads((Path(__file__).parent / "wharf_workers.json").read_text())
    return {name: _load(name, path) for name, path in manifest.items()}


def _rehearse():
    """Uses what makes tables or imports at its first use: each request would be the first one.

    A resource's end is by `weakref.finalize`, and `unquote` has a table of all pairs of digits.
    """
    weakref.finalize(wharf.Headers(), len).detach()
    headers = wharf.Headers({"a": unquote("%C3%A9")})
    request = wharf.Request("POST", "", "/", "a=%20b+c&d=", headers, b'{"a": [1, "\\u00e9"]}')
    _ = request.args, request.text, request.json(), headers.get("a")
    wharf.Response.json(request.args)._finish()
    wharf.Response("<p>")._finish()


WORKERS = _load_all()
_rehearse()


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


def _write_body(body, data):
    with body.write() as stream:
        view = memoryview(data)
        while len(view) > LARGEST_WRITE:
            room = stream.check_write()
            if room == 0:
                with stream.subscribe() as ready:
                    ready.block()
                continue
            stream.write(bytes(view[:room]))
            view = view[room:]
        if view:
            stream.blocking_write_and_flush(bytes(view))
    http.OutgoingBody.finish(body, None)


def _method(method):
    name = type(method).__name__
    return method.value if name == "Method_Other" else name.split("_", 1)[1].upper()


class _Request(wharf.Request):
    """A request whose host is asked for what few workers look at once they do."""

    def __init__(self, incoming):
        self._incoming = incoming
        self._target = incoming.path_with_query() or "/"
        path, _, self.query = self._target.partition("?")
        self.path = unquote(path)
        self.method = _method(incoming.method())
        fields = incoming.headers().entries()
        self.headers = wharf.Headers((name, value.decode("latin-1")) for name, value in fields)
        self._worker = unquote(self.headers.get("wharf-worker", ""))
        self.params = dict(parse_qsl(self.headers.get("wharf-params", ""), keep_blank_values=True))
        for own in ("wharf-worker", "wharf-params"):
            del self.headers[own]
        # These rarely have one: it costs more to look for than all else here.
        if self.method not in ("GET", "HEAD"):
            _ = self.body

    @cached_property
    def url(self):
        authority = self._incoming.authority() or self.headers.get("host", "localhost")
        return f"http://{authority}{self._target}"

    @cached_property
    def body(self):
        return _read_body(self._incoming)


def _answer(request):
    worker = WORKERS.get(request._worker)
    if worker is None and len(WORKERS) == 1:
        (worker,) = WORKERS.values()
    if worker is None:
        return wharf.Response("no such worker\n", 404)
    response = worker(request)
    if not isinstance(response, wharf.Response):
        raise TypeError(f"worker {request._worker} returned {type(response).__name__}: expected a wharf.Response")
    return response


def _has_length(request, response, data):
    """Whether the length of `data` is the content's (RFC 9110, 8.6).

    204 has none to tell, and 304 and an empty answer to HEAD would have to tell that of another answer.
    """
    return response.status not in (204, 304) and (len(data) > 0 or request.method != "HEAD")


class IncomingHandler(exports.IncomingHandler):
    def handle(self, incoming, response_out):
        request = None
        try:
            request = _Request(incoming)
            response = _answer(request)
            data = response._finish()
        except Exception:
            traceback.print_exc()
            response, data = wharf.Response(status=500), b"500 Internal Server Error\n"
            response.headers["content-type"] = "text/plain; charset=utf-8"
        fields = [(name, value.encode("latin-1")) for name, value in response.headers.items()]
        if "content-length" not in response.headers and _has_length(request, response, data):
            fields.append(("content-length", str(len(data)).encode()))
        outgoing = http.OutgoingResponse(http.Fields.from_list(fields))
        if response.status != 200:
            outgoing.set_status_code(response.status)
        body = outgoing.body()
        http.ResponseOutparam.set(response_out, Ok(outgoing))
        _write_body(body, data)
