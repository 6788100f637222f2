"""A request and its response on wasi:http, and bodies as streams.

Everything here blocks; what waits in the event loop uses the same streams and
`Loop.wait`.
"""

import io
import weakref
from urllib.parse import unquote

import wharf._here as here
from componentize_py_types import Err, Ok
from wit_world.imports import types as http
from wit_world.imports.streams import StreamError_Closed

# What a stream takes at once with its flush (wasi:io, blocking-write-and-flush).
LARGEST_WRITE = 4096

READ_SIZE = 65536

# The connection's own, which the host sends (RFC 9110, 7.6.1); wasi:http refuses them.
OF_THE_CONNECTION = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade")
)


class Misuse(Exception):
    """A worker does not keep to its interface: the message says it all, and no traceback more."""


class Exchange:
    """A request, of which the host is asked only what its reader looks at, and its response."""

    def __init__(self, incoming, response_out):
        self._incoming, self._response_out = incoming, response_out
        # The response's body, once that has begun.
        self.output = None
        self.target = incoming.path_with_query() or "/"
        self.raw_path, _, self.query = self.target.partition("?")
        method = incoming.method()
        name = type(method).__name__
        self.method = method.value if name == "Method_Other" else name.split("_", 1)[1].upper()
        # wasi:http has them in lower case.
        self.fields = []
        self.worker, self.encoded_params = "", ""
        for name, value in incoming.headers().entries():
            if name == "wharf-worker":
                self.worker = unquote(value.decode("latin-1"))
            elif name == "wharf-params":
                self.encoded_params = value.decode("latin-1")
            else:
                self.fields.append((name, value))
        self.body = None

    def field(self, name, default=None):
        """The first value of a header, as text."""
        return next((value.decode("latin-1") for key, value in self.fields if key == name), default)

    def params(self):
        """The parts of the path that the route names."""
        pairs = (pair.partition("=") for pair in self.encoded_params.split("&") if pair)
        return {unquote(name): unquote(value) for name, _, value in pairs}

    def authority(self):
        return self._incoming.authority() or self.field("host", "localhost")

    def scheme(self):
        return "https" if type(self._incoming.scheme()) is http.Scheme_Https else "http"

    def open_body(self):
        """The body's stream; it can be read once."""
        if self.body is None:
            self.body = InputStream(self._incoming.consume(), http.IncomingBody)
        return self.body

    def respond(self, status, fields):
        """Sends the response's head; gives its body to write."""
        kept = [(name, value) for name, value in fields if name not in OF_THE_CONNECTION]
        try:
            entries = http.Fields.from_list(kept)
        except Err:
            entries = None
        if entries is None:
            raise Misuse(_bad_field(kept))
        outgoing = http.OutgoingResponse(entries)
        if status != 200:
            outgoing.set_status_code(status)
        body = outgoing.body()
        http.ResponseOutparam.set(self._response_out, Ok(outgoing))
        self.output = OutputStream(body)
        return self.output

    def respond_whole(self, status, fields, data):
        """Sends a response; its length is known."""
        # 204 has none to tell, and 304 and an empty answer to HEAD would have
        # to tell that of another answer (RFC 9110, 8.6).
        has_length = status not in (204, 304) and (data or self.method != "HEAD")
        if has_length and not any(name == "content-length" for name, _ in fields):
            fields = [*fields, ("content-length", str(len(data)).encode())]
        output = self.respond(status, fields)
        output.write(data)
        output.finish()

    def split_path(self):
        """The path of the worker and the rest, both undecoded, together the path.

        As the host splits it for CGI (RFC 3875, 4.1.5 and 4.1.13): the parts
        of the route less a catch-all are the worker's.
        """
        parts = self.worker.split("/")
        if parts[-1] == "index":
            parts.pop()
        depth = sum(1 for part in parts if not part.startswith("[..."))
        end = -1
        for _ in range(depth + 1):
            end = self.raw_path.find("/", end + 1)
            if end < 0:
                return self.raw_path, ""
        return self.raw_path[:end], self.raw_path[end:]


class InputStream(io.RawIOBase):
    """An incoming body as a raw stream: each read gives what is there."""

    def __init__(self, body, kind):
        self._body, self._kind = body, kind
        self.stream = body.stream()

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size=-1):
        """At most `size` bytes, at least one; none: it has ended."""
        if size < 0:
            return self.readall()
        return self._take("blocking_read", size)

    def read_now(self, size=READ_SIZE):
        """What is there without waiting, maybe nothing; `None`: it has ended."""
        data = self._take("read", size)
        return data if data or self.stream is not None else None

    def readall(self):
        chunks = []
        while chunk := self.read(READ_SIZE):
            chunks.append(chunk)
        return b"".join(chunks)

    def close(self):
        self._finish()
        super().close()

    def _take(self, way, size):
        if self.stream is None:
            return b""
        try:
            return getattr(self.stream, way)(size)
        except Err as error:
            problem = error.value
        self._finish()
        if isinstance(problem, StreamError_Closed):
            return b""
        raise ConnectionError(f"the body was cut off: {problem.value.to_debug_string()}")

    def _finish(self):
        if self.stream is not None:
            self.stream.__exit__(None, None, None)
            self.stream = None
            self._kind.finish(self._body)


class OutputStream:
    """An outgoing body."""

    def __init__(self, body):
        self._body = body
        self.stream = body.write()

    def write(self, data):
        """Sends it, and waits until it is on its way."""
        try:
            view = memoryview(data)
            while len(view) > LARGEST_WRITE:
                room = self.stream.check_write()
                if room == 0:
                    with self.stream.subscribe() as ready:
                        ready.block()
                    continue
                self.stream.write(bytes(view[:room]))
                view = view[room:]
            self.stream.blocking_write_and_flush(bytes(view))
        except Err:
            raise BrokenPipeError("the reader is gone") from None

    def finish(self):
        self.stream.__exit__(None, None, None)
        http.OutgoingBody.finish(self._body, None)
        self.stream = None

    def abort(self):
        """Cuts it off, if it is not finished: its reader must not take it for whole."""
        if self.stream is not None:
            self.stream.__exit__(None, None, None)
            self._body.__exit__(None, None, None)
            self.stream = None


def _bad_field(fields):
    for name, value in fields:
        try:
            http.Fields.from_list([(name, value)])
        except Err:
            found = f"{name}: {value.decode('latin-1')}"
            return f"malformed response header {found!r}: expected a token, and a value in one line (RFC 9110, 5.1 and 5.5)"
    return "too many response headers"


def rehearse():
    """Makes the tables of `unquote` and `weakref.finalize`, by which resources end, at build time."""
    weakref.finalize(rehearse, len).detach()
    unquote("%C3%A9")
