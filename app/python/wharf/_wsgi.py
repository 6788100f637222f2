"""WSGI applications (PEP 3333): Flask, Django, Bottle and the like."""

import io
import sys
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

import wharf._wasi as wasi

# As the server's CGI workers have them.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


class _Input(io.RawIOBase):
    """The body, for which the host is asked when it is first read."""

    def __init__(self, request):
        self._request = request

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._request.open_body().readinto(buffer)


def _text(raw):
    """What PEP 3333 calls a native string: a character a byte."""
    return unquote_to_bytes(raw).decode("latin-1")


def _environ(request):
    script, info = request.split_path()
    host, _, port = request.authority().rpartition(":")
    scheme = request.scheme()
    if not host or not port.isdigit():
        host, port = request.authority(), "443" if scheme == "https" else "80"
    environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": _text(script),
        "PATH_INFO": _text(info),
        "QUERY_STRING": request.query,
        "REQUEST_URI": request.target,
        "RAW_URI": request.target,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        # wasi:http does not tell which one it was.
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "wharf",
        # The host has put the client's own address there, and nothing else.
        "REMOTE_ADDR": request.field("x-forwarded-for", ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BufferedReader(_Input(request), wasi.READ_SIZE),
        # A body without a length has an end all the same.
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": True,
        "wsgi.file_wrapper": FileWrapper,
        "wsgiorg.routing_args": ((), request.params()),
    }
    for name, value in request.fields:
        if not _PLAIN.issuperset(name):
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        value = value.decode("latin-1")
        if key in environ:
            value = f"{environ[key]}{';' if key == 'HTTP_COOKIE' else ','} {value}"
        environ[key] = value
    environ.setdefault("HTTP_HOST", request.authority())
    return environ


class _Exchange:
    """The state of one response, which begins with its first piece of body."""

    def __init__(self, request):
        self._request = request
        self._status, self._fields = None, None

    def start_response(self, status, headers, exc_info=None):
        if exc_info is not None:
            try:
                if self._request.output is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._status is not None:
            raise RuntimeError("start_response was called twice: expected once, or with exc_info (PEP 3333)")
        code = status[:3] if isinstance(status, str) else ""
        if not code.isdigit() or not 200 <= int(code) <= 599:
            raise ValueError(f"start_response got status {status!r}: expected one like '200 OK'")
        self._status = int(code)
        self._fields = [_field(header) for header in headers]
        return self.write

    def write(self, data):
        """Sends a piece of body; before the first one the head."""
        _check_piece(data)
        if self._request.output is None:
            self._request.respond(*self._head())
        if data:
            self._request.output.write(data)

    def send_whole(self, data):
        """Sends all of the body at once."""
        _check_piece(data)
        if self._request.output is None:
            self._request.respond_whole(*self._head(), data)
        else:
            self.write(data)
            self._request.output.finish()

    def send(self, pieces):
        for piece in pieces:
            # A head waits for its first byte: until then it can be an error's.
            if piece or self._request.output is not None:
                self.write(piece)
        if self._request.output is None:
            self.send_whole(b"")
        else:
            self._request.output.finish()

    def _head(self):
        if self._status is None:
            raise wasi.Misuse("WSGI application gave a body before it called start_response")
        return self._status, self._fields


def _check_piece(data):
    if not isinstance(data, bytes):
        raise wasi.Misuse(f"WSGI application gave {type(data).__name__} as a piece of body: expected bytes")


def _field(header):
    try:
        name, value = header
        return name.lower(), value.encode("latin-1")
    except (AttributeError, TypeError, ValueError):
        pass
    raise TypeError(f"start_response got header {header!r}: expected a pair of name and value, both str in Latin-1")


def answer(application, request):
    """Lets the application answer, piece by piece."""
    exchange = _Exchange(request)
    pieces = application(_environ(request), exchange.start_response)
    if not hasattr(pieces, "__iter__") or isinstance(pieces, (str, bytes)):
        raise wasi.Misuse(f"WSGI application returned {type(pieces).__name__}: expected an iterable of bytes")
    try:
        if isinstance(pieces, (list, tuple)) and len(pieces) == 1:
            exchange.send_whole(pieces[0])
        else:
            exchange.send(pieces)
    finally:
        if hasattr(pieces, "close"):
            pieces.close()
