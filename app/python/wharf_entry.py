"""All Python workers of a project as one wasi:http component.

Loaded by componentize-py: what runs at import runs once, at build time, and
its result is part of the component. `wharf_workers.json` beside this file
says which workers there are: name → path of the source.
"""

import json
import sys
import traceback
import types as python_types
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import encodings.idna  # noqa: F401  (imported now: a request has no files to import from)

import wharf
from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import types as http
from wit_world.imports.streams import StreamError_Closed

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


WORKERS = _load_all()


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
        while view:
            room = stream.check_write()
            if room == 0:
                with stream.subscribe() as ready:
                    ready.block()
                continue
            stream.write(bytes(view[:room]))
            view = view[room:]
        stream.flush()
        with stream.subscribe() as ready:
            ready.block()
    http.OutgoingBody.finish(body, None)


def _method(method):
    name = type(method).__name__
    return method.value if name == "Method_Other" else name.split("_", 1)[1].upper()


def _request(incoming):
    target = incoming.path_with_query() or "/"
    path, _, query = target.partition("?")
    headers = wharf.Headers((name, value.decode("latin-1")) for name, value in incoming.headers().entries())
    name = unquote(headers.get("wharf-worker", ""))
    params = dict(parse_qsl(headers.get("wharf-params", ""), keep_blank_values=True))
    for own in ("wharf-worker", "wharf-params"):
        del headers[own]
    authority = incoming.authority() or headers.get("host", "localhost")
    url = f"http://{authority}{target}"
    request = wharf.Request(_method(incoming.method()), url, unquote(path), query, headers, _read_body(incoming), params)
    return name, request


def _answer(incoming):
    name, request = _request(incoming)
    worker = WORKERS.get(name)
    if worker is None and len(WORKERS) == 1:
        (worker,) = WORKERS.values()
    if worker is None:
        return wharf.Response("no such worker\n", 404)
    response = worker(request)
    if not isinstance(response, wharf.Response):
        raise TypeError(f"worker {name} returned {type(response).__name__}: expected a wharf.Response")
    return response


def _has_length(request, response, data):
    """Whether the length of `data` is the content's (RFC 9110, 8.6).

    204 has none to tell, and 304 and an empty answer to HEAD would have to tell that of another answer.
    """
    return response.status not in (204, 304) and (len(data) > 0 or _method(request.method()) != "HEAD")


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out):
        try:
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
        outgoing.set_status_code(response.status)
        body = outgoing.body()
        http.ResponseOutparam.set(response_out, Ok(outgoing))
        _write_body(body, data)
