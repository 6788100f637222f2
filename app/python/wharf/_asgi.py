"""ASGI applications, version 3: Starlette, Quart and the like."""

import asyncio
from urllib.parse import unquote

import wharf._loop as event_loop
import wharf._wasi as wasi
from componentize_py_types import Err

_VERSIONS = {"version": "3.0", "spec_version": "2.4"}


class Exchange:
    """The state of one request and its response."""

    def __init__(self, request):
        self._request = request
        self._start = None
        self._is_read = False
        self._finished = asyncio.Event()

    async def receive(self):
        if not self._is_read:
            body = self._request.open_body()
            while (chunk := body.read_now()) == b"":
                await event_loop.loop().wait(body.stream.subscribe())
            self._is_read = chunk is None
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}
        await self._finished.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        kind = message["type"]
        if kind == "http.response.start" and self._start is None:
            self._start = message
        elif kind == "http.response.body" and self._start is not None and not self._finished.is_set():
            await self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            expected = "http.response.start" if self._start is None else "http.response.body"
            raise wasi.Misuse(f"ASGI application sent {kind!r}: expected {expected!r}")

    async def _send_body(self, data, more):
        status = self._start["status"]
        fields = [(bytes(name).decode("latin-1").lower(), bytes(value)) for name, value in self._start.get("headers", ())]
        request = self._request
        try:
            if request.output is None and not more:
                request.respond_whole(status, fields, data)
            else:
                await self._write(request.output or request.respond(status, fields), data, more)
        except (Err, BrokenPipeError):
            self._finished.set()
            raise OSError("the client is gone") from None
        if not more:
            self._finished.set()

    async def _write(self, output, data, more):
        stream, loop = output.stream, event_loop.loop()
        view = memoryview(data)
        while view:
            room = stream.check_write()
            if room == 0:
                await loop.wait(stream.subscribe())
                continue
            stream.write(bytes(view[:room]))
            view = view[room:]
        # Each message is sent when it is sent: others wait for it.
        stream.flush()
        while stream.check_write() == 0:
            await loop.wait(stream.subscribe())
        if not more:
            output.finish()

    @property
    def is_finished(self):
        return self._finished.is_set()


def _scope(request, state):
    script, _ = request.split_path()
    host, _, port = request.authority().rpartition(":")
    scheme = request.scheme()
    if not host or not port.isdigit():
        host, port = request.authority(), 443 if scheme == "https" else 80
    client = request.field("x-forwarded-for")
    scope = {
        "type": "http",
        "asgi": _VERSIONS,
        "http_version": "1.1",
        "method": request.method,
        "scheme": scheme,
        # With the worker's own part in front, as ASGI has it and unlike WSGI.
        "path": unquote(request.raw_path),
        "raw_path": request.raw_path.encode("ascii"),
        "query_string": request.query.encode("ascii"),
        "root_path": unquote(script),
        "headers": [(name.encode("ascii"), value) for name, value in request.fields],
        "client": None if client is None else (client, 0),
        "server": (host, int(port)),
        "extensions": {},
        "path_params": request.params(),
    }
    if not any(name == b"host" for name, _ in scope["headers"]):
        scope["headers"].insert(0, (b"host", request.authority().encode("ascii")))
    if state is not None:
        scope["state"] = state.copy()
    return scope


class Application:
    """An application and, in this instance, its lifespan.

    Its startup runs in each fresh instance before the first request: what it
    opens (connections, tasks) would not outlive the build. What may be done
    once for all belongs at the top of the module. There is no shutdown: an
    instance does not know which request is its last.
    """

    def __init__(self, application):
        self._application = application
        self._state = None
        self._lifespan = None

    async def answer(self, request):
        exchange = Exchange(request)
        if self._lifespan is None:
            await self._start()
        await self._application(_scope(request, self._state), exchange.receive, exchange.send)
        if not exchange.is_finished:
            raise wasi.Misuse("ASGI application returned without a complete response")

    async def _start(self):
        state, started = {}, asyncio.get_running_loop().create_future()
        messages = [{"type": "lifespan.startup"}]

        async def receive():
            if messages:
                return messages.pop()
            await asyncio.Event().wait()

        async def send(message):
            if not started.done():
                started.set_result(message)

        async def live():
            try:
                scope = {"type": "lifespan", "asgi": _VERSIONS | {"spec_version": "2.0"}, "state": state}
                await self._application(scope, receive, send)
            except Exception:
                # It knows no lifespan (ASGI, lifespan protocol): go on without.
                pass
            if not started.done():
                started.set_result(None)

        # Kept, so that it goes on.
        self._lifespan = asyncio.create_task(live())
        message = await started
        if message is None:
            return
        if message["type"] == "lifespan.startup.failed":
            raise wasi.Misuse(f"ASGI application failed to start: {message.get('message', '')}")
        self._state = state
