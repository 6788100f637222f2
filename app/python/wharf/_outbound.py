"""Outbound HTTP by wasi:http, beneath the packages that people use.

`http.client` (and so urllib, urllib3 and requests) gets connections that look
like sockets and speak HTTP/1.1 in memory; `httpcore` (and so httpx) gets its
requests sent one by one, in the event loop where they are async. TLS, DNS and
connections are the host's.
"""

import asyncio
import errno
import io
import socket
import ssl
import time

import wharf._here as here
import wharf._loop as event_loop
import wharf._wasi as wasi
from componentize_py_types import Err, Ok
from wit_world.imports import monotonic_clock, outgoing_handler, poll
from wit_world.imports import types as http

# wasi:http has these say by other means.
_NOT_SENT = wasi.OF_THE_CONNECTION | {"host", "proxy-authenticate", "proxy-authorization", "http2-settings"}


def _method(name):
    known = getattr(http, f"Method_{name.capitalize()}", None)
    return known() if known is not None and name.isupper() and name != "OTHER" else http.Method_Other(name)


def _nanoseconds(seconds):
    return None if seconds is None else max(1, int(seconds * 1e9))


class Exchange:
    """One request on its way, and its response."""

    def __init__(self, scheme, authority, method, target, fields, connect_timeout=None):
        self._origin = f"{scheme}://{authority}"
        if here.is_build:
            raise ConnectionError(f"{self._origin}: no requests while the component is made: send it in the handler")
        entries = [(name, value) for name, value in fields if name.lower() not in _NOT_SENT]
        try:
            request = http.OutgoingRequest(http.Fields.from_list(entries))
            request.set_method(_method(method))
            request.set_scheme(http.Scheme_Https() if scheme == "https" else http.Scheme_Http())
            request.set_authority(authority)
            request.set_path_with_query(target)
        except Err:
            request = None
        if request is None:
            raise ValueError(f"malformed request: {method} {self._origin}{target}")
        options = http.RequestOptions()
        options.set_connect_timeout(_nanoseconds(connect_timeout))
        self.body = wasi.OutputStream(request.body())
        try:
            self._future = outgoing_handler.handle(request, options)
        except Err as error:
            problem = error.value
        else:
            return
        raise _problem(problem, self._origin)

    def subscribe(self):
        """Ready when there is a response, or none will come."""
        return self._future.subscribe()

    def response(self):
        """Its status, fields and body, once `subscribe` is ready."""
        match self._future.get():
            case Ok(Ok(response)):
                body = wasi.InputStream(response.consume(), http.IncomingBody)
                return response.status(), response.headers().entries(), body
            case Ok(Err(code)):
                raise _problem(code, self._origin)
        raise ConnectionError(f"{self._origin}: no response")


def _problem(code, origin):
    kind = type(code).__name__.removeprefix("ErrorCode_")
    detail = getattr(code, "value", None)
    if kind == "HttpRequestDenied":
        setting = f'outbound = ["{origin}"] under [workers."{here.worker}"]'
        return PermissionError(errno.EACCES, f"{origin} is not granted: expected {setting} in wharf.toml")
    if kind in ("DnsError", "DestinationNotFound"):
        return socket.gaierror(socket.EAI_NONAME, f"{origin}: no such host")
    if kind == "ConnectionRefused":
        return ConnectionRefusedError(errno.ECONNREFUSED, f"{origin}: connection refused")
    if kind == "TlsCertificateError":
        return ssl.SSLCertVerificationError(f"{origin}: its certificate is not trusted")
    if kind.startswith("Tls"):
        return ssl.SSLError(f"{origin}: {kind}")
    if "Timeout" in kind:
        return TimeoutError(errno.ETIMEDOUT, f"{origin}: timed out")
    return ConnectionError(f"{origin}: {kind}{'' if detail is None else f': {detail}'}")


def _wait(pollable, deadline):
    """Blocks until it is ready, and drops it."""
    with pollable:
        if deadline is None:
            pollable.block()
            return
        left = max(0, int((deadline - time.monotonic()) * 1e9))
        with monotonic_clock.subscribe_duration(left) as timer:
            if 0 not in poll.poll([pollable, timer]):
                raise TimeoutError("timed out")


def _deadline(timeout):
    return None if timeout is None else time.monotonic() + timeout


class HttpSocket:
    """What `http.client` takes for a connection: requests in HTTP/1.1 are sent to it,
    and responses in HTTP/1.1 are read from it, one exchange after the other."""

    def __init__(self, scheme, host, port, timeout):
        self._scheme = scheme
        self._authority = f"[{host}]" if ":" in host else host
        if port not in (None, 443 if scheme == "https" else 80):
            self._authority += f":{port}"
        self._timeout = None if timeout is socket._GLOBAL_DEFAULT_TIMEOUT else timeout
        self._connect_timeout = self._timeout
        self._begin()

    def _begin(self):
        self._received = b""
        self._exchange = None
        self._left = None

    def sendall(self, data, flags=0):
        """Takes a part of a request."""
        self._received += bytes(data)
        if self._exchange is None:
            head, end, rest = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            self._received = rest
            self._open(head)
        try:
            if self._left is None:
                self._send_chunks()
            else:
                self._send_counted()
        except BrokenPipeError:
            # Its response may still tell why.
            self._left, self._received = 0, b""

    send = sendall

    def _open(self, head):
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        fields = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        sent = dict(fields)
        self._left = None if sent.get("transfer-encoding", "").lower() == "chunked" else int(sent.get("content-length", 0))
        encoded = [(name, value.encode("latin-1")) for name, value in fields]
        self._exchange = Exchange(self._scheme, self._authority, method, target, encoded, self._connect_timeout)
        if self._left == 0:
            self._exchange.body.finish()

    def _send_counted(self):
        data, self._received = self._received[: self._left], b""
        if data:
            self._left -= len(data)
            self._exchange.body.write(data)
            if self._left == 0:
                self._exchange.body.finish()

    def _send_chunks(self):
        while True:
            size, end, rest = self._received.partition(b"\r\n")
            if not end:
                return
            size = int(size.partition(b";")[0], 16)
            if len(rest) < size + 2:
                return
            self._received = rest[size + 2 :]
            if size == 0:
                self._left = 0
                self._exchange.body.finish()
                return
            self._exchange.body.write(rest[:size])

    def makefile(self, mode="rb", buffering=None):
        """The response, as HTTP/1.1."""
        exchange = self._exchange
        if exchange is None:
            raise ConnectionError("a response is read before its request was sent")
        return io.BufferedReader(_ResponseReader(exchange, self), wasi.READ_SIZE)

    def next_exchange(self):
        self._begin()

    def settimeout(self, timeout):
        self._timeout = timeout

    def gettimeout(self):
        return self._timeout

    def setsockopt(self, *option):
        """TCP is the host's."""

    def getpeercert(self, binary_form=False):
        return b"" if binary_form else {}

    def fileno(self):
        return -1

    def shutdown(self, how):
        """Nothing is left to be told."""

    def close(self):
        """The exchange ends with its response."""


class _ResponseReader(io.RawIOBase):
    def __init__(self, exchange, connection):
        self._exchange, self._connection = exchange, connection
        self._head, self._body = None, None

    def readable(self):
        return True

    def readinto(self, buffer):
        timeout = self._connection.gettimeout()
        if self._head is None:
            _wait(self._exchange.subscribe(), _deadline(timeout))
            status, fields, self._body = self._exchange.response()
            # The next one would be another connection: one that is kept tells nothing.
            lines = [b"HTTP/1.1 %d %s" % (status, b"OK" if status == 200 else b"-"), b"connection: close"]
            lines += [name.encode("latin-1") + b": " + value for name, value in fields]
            self._head = b"\r\n".join([*lines, b"", b""])
            self._connection.next_exchange()
        data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        if not data and self._body.stream is not None:
            if timeout is not None:
                _wait(self._body.stream.subscribe(), _deadline(timeout))
            data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def patch_http_client(module):
    """`http.client`: its connections, and those of urllib3 by inheritance."""

    def connect(self):
        _refuse_proxy(self)
        self.sock = HttpSocket("http", self.host, self.port, self.timeout)

    def connect_tls(self):
        _refuse_proxy(self)
        _check_tls(_is_special(self._context))
        self.sock = HttpSocket("https", self.host, self.port, self.timeout)

    module.HTTPConnection.connect = connect
    module.HTTPSConnection.connect = connect_tls


def patch_urllib(module):
    """`urllib.request`: what fails before there is a response is a URLError, as where the
    connection is made before the request is sent."""
    own = module.AbstractHTTPHandler.do_open

    def do_open(self, *arguments, **keywords):
        try:
            return own(self, *arguments, **keywords)
        except (module.URLError, TimeoutError, module.http.client.HTTPException):
            raise
        except OSError as error:
            raise module.URLError(error) from error

    module.AbstractHTTPHandler.do_open = do_open


def patch_urllib3(module):
    """`urllib3.connection`, which has a `connect` of its own."""

    def connect(self):
        _refuse_proxy(self)
        self.sock = HttpSocket("http", self._dns_host, self.port, self.timeout)

    def connect_tls(self):
        _refuse_proxy(self)
        _check_tls(self.cert_reqs in ("CERT_NONE", ssl.CERT_NONE) or self.cert_file or _is_special(self.ssl_context))
        self.is_verified = True
        self.sock = HttpSocket("https", self._dns_host, self.port, self.timeout)

    module.HTTPConnection.connect = connect
    module.HTTPSConnection.connect = connect_tls
    # There is no connection that could have dropped, nor one to be asked.
    module.HTTPConnection.is_connected = property(lambda self: self.sock is not None)


def _refuse_proxy(connection):
    if getattr(connection, "_tunnel_host", None):
        raise OSError(f"proxy {connection.host}: expected none: the host connects by itself")


def _is_special(context):
    """Whether TLS settings ask for what the host's TLS does not do."""
    return context is not None and context.is_special


def _check_tls(is_special):
    if is_special:
        raise ssl.SSLError("the host's TLS verifies each certificate: expected no verify=False, and no client certificate")


def patch_httpcore(module):
    """`httpcore`: its pools of connections, and so httpx."""

    class Body:
        def __init__(self, body, timeout):
            self._body, self._timeout = body, timeout

        def __iter__(self):
            while self._body.stream is not None:
                try:
                    _wait(self._body.stream.subscribe(), _deadline(self._timeout))
                except TimeoutError as error:
                    raise module.ReadTimeout(str(error)) from None
                chunk = self._body.read(wasi.READ_SIZE)
                if chunk:
                    yield chunk

        async def __aiter__(self):
            while (chunk := self._body.read_now()) is not None:
                if chunk:
                    yield chunk
                    continue
                await _within(self._timeout, self._body.stream.subscribe(), module.ReadTimeout)

        def close(self):
            self._body.close()

        async def aclose(self):
            self._body.close()

    async def _within(timeout, pollable, late):
        try:
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().wait(pollable)
        except TimeoutError:
            raise late("timed out") from None

    def begin(pool, request):
        timeouts = request.extensions.get("timeout", {})
        url = request.url
        scheme, host = url.scheme.decode("ascii"), url.host.decode("ascii")
        _check_tls(scheme == "https" and _is_special(pool._ssl_context))
        authority = host if url.port is None else f"{host}:{url.port}"
        fields = [(name.decode("latin-1").lower(), value) for name, value in request.headers]
        method, target = request.method.decode("ascii"), url.target.decode("ascii")
        try:
            exchange = Exchange(scheme, authority, method, target, fields, timeouts.get("connect"))
        except OSError as error:
            problem = error
        else:
            return exchange, timeouts.get("read")
        raise _named(module, problem)

    def end(exchange, timeout):
        try:
            status, fields, body = exchange.response()
        except OSError as error:
            problem = error
        else:
            headers = [(name.encode("ascii"), value) for name, value in fields]
            extensions = {"http_version": b"HTTP/1.1"}
            return module.Response(status, headers=headers, content=Body(body, timeout), extensions=extensions)
        raise _named(module, problem)

    def handle_request(self, request):
        exchange, timeout = begin(self, request)
        for chunk in request.stream:
            exchange.body.write(chunk)
        exchange.body.finish()
        try:
            _wait(exchange.subscribe(), _deadline(timeout))
        except TimeoutError as error:
            raise module.ReadTimeout(str(error)) from None
        return end(exchange, timeout)

    async def handle_async_request(self, request):
        exchange, timeout = begin(self, request)
        async for chunk in request.stream:
            exchange.body.write(chunk)
        exchange.body.finish()
        await _within(timeout, exchange.subscribe(), module.ReadTimeout)
        return end(exchange, timeout)

    module.ConnectionPool.handle_request = handle_request
    module.AsyncConnectionPool.handle_async_request = handle_async_request


def _named(module, error):
    """An error as httpcore names it."""
    kind = module.ConnectTimeout if isinstance(error, TimeoutError) else module.ConnectError
    return kind(str(error))


def patch_anyio(module):
    """`anyio`'s way to run what blocks, in a thread: here it just runs (Starlette)."""

    async def run_sync(cls, function, arguments, abandon_on_cancel=False, limiter=None):
        await module.AsyncIOBackend.checkpoint()
        return function(*arguments)

    module.AsyncIOBackend.run_sync_in_worker_thread = classmethod(run_sync)


# By the module that is changed once it is imported.
PATCHES = {
    "http.client": patch_http_client,
    "urllib.request": patch_urllib,
    "urllib3.connection": patch_urllib3,
    "httpcore": patch_httpcore,
    "anyio._backends._asyncio": patch_anyio,
}
