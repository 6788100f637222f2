"""The project's workers: found, loaded while the component is made, and called."""

import inspect
import json
import linecache
import sys
import traceback
import types
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import wharf
import wharf._asgi as asgi
import wharf._here as here
import wharf._loop as event_loop
import wharf._modules as modules
import wharf._wasi as wasi
import wharf._wsgi as wsgi

# Before the message of a failed build, for who reads the output of componentize-py.
MARK = "wharf-error: "


class Worker:
    """`worker(request)` of a file."""

    def __init__(self, path, function, is_wws):
        self.path = path
        self._function = function
        self._request = _TextRequest if is_wws else _Request

    def answer(self, exchange):
        response = self._function(self._request(exchange))
        if inspect.iscoroutine(response):
            response = event_loop.run(response)
        if not isinstance(response, wharf.Response):
            raise wasi.Misuse(f"worker(request) returned {type(response).__name__}: expected a Response")
        data = response._finish()
        fields = [(name, value.encode("latin-1")) for name, value in response.headers.items()]
        exchange.respond_whole(response.status, fields, data)


class WsgiWorker:
    """A WSGI application."""

    def __init__(self, path, application):
        self.path, self._application = path, application

    def answer(self, exchange):
        wsgi.answer(self._application, exchange)


class AsgiWorker:
    """An ASGI application."""

    def __init__(self, path, application):
        self.path, self._application = path, asgi.Application(application)

    def answer(self, exchange):
        event_loop.run(self._application.answer(exchange))


class _Request(wharf.Request):
    """A request whose host is asked for what few workers look at once they do."""

    def __init__(self, exchange):
        self._exchange = exchange
        self.query = exchange.query
        self.method = exchange.method
        # These rarely have one: it costs more to look for than all else here.
        if self.method not in ("GET", "HEAD"):
            _ = self.body

    @cached_property
    def path(self):
        return unquote(self._exchange.raw_path)

    @cached_property
    def url(self):
        return f"{self._exchange.scheme()}://{self._exchange.authority()}{self._exchange.target}"

    @cached_property
    def headers(self):
        headers = wharf.Headers((name, value.decode("latin-1")) for name, value in self._exchange.fields)
        # wasi:http has it as the authority of the request.
        if "host" not in headers:
            headers.add("host", self._exchange.authority())
        return headers

    @cached_property
    def params(self):
        return self._exchange.params()

    @cached_property
    def body(self):
        return self._exchange.open_body().readall()


class _TextRequest(_Request):
    """As Wasm Workers Server has it: the body is text. Where it is no UTF-8 it is bytes, and there empty."""

    @cached_property
    def body(self):
        body = self._exchange.open_body().readall()
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError:
            return body


def load_all():
    """All workers by name."""
    runtime = Path(here.RUNTIME)
    removed = runtime / "wharf_removed.json"
    if removed.exists():
        modules.removed.update(json.loads(removed.read_text()))
    manifest = json.loads((runtime / "wharf_workers.json").read_text())
    folders = json.loads((runtime / "wharf_folders.json").read_text())
    workers = {}
    for name, path in manifest.items():
        with modules.mounted(folders.get(name)) as search:
            worker = _load(name, path)
        worker.search = search
        workers[name] = worker
    return workers


def _load(name, path):
    """Runs a worker's source under its name in the project."""
    file = f"{here.PROJECT}/{path}"
    source = Path(file).read_bytes()
    module = types.ModuleType(f"wharf_worker:{name}")
    module.__file__ = file
    # Wasm Workers Server has these without an import.
    module.Cache, module.Request, module.Response = wharf.Cache, wharf.Request, wharf.Response
    sys.modules[module.__name__] = module
    try:
        code = compile(source, path, "exec", dont_inherit=True)
        exec(code, module.__dict__)
    except SystemExit as error:
        raise SystemExit(f"{MARK}{path}: it ended the program: exit code {error.code}") from None
    except BaseException as error:
        problem = _load_error(path, error)
    else:
        return _handler(path, module, code)
    raise SystemExit(MARK + problem)


def _handler(path, module, code):
    worker = getattr(module, "worker", None)
    if callable(worker):
        imports = {imported.partition(".")[0] for imported in modules.all_imports(code)}
        return Worker(path, worker, is_wws="wharf" not in imports)
    for name in ("app", "application"):
        application = getattr(module, name, None)
        if callable(application):
            return AsgiWorker(path, application) if _is_asgi(application) else WsgiWorker(path, application)
    raise SystemExit(
        f"{MARK}{path}: no handler found: expected def worker(request), or a WSGI or ASGI application named app or application"
    )


def _is_asgi(application):
    """Tells ASGI from WSGI as uvicorn does: its call is a coroutine's."""
    if inspect.isclass(application):
        return hasattr(application, "__await__")
    if inspect.isfunction(application):
        return inspect.iscoroutinefunction(application)
    return inspect.iscoroutinefunction(getattr(application, "__call__", None))


def _load_error(path, error):
    """What the user has to know of it, in a line."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{here.shown(error.filename)}:{error.lineno}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not here.is_ours(frame.filename)]
    place = path
    for frame in frames:
        # The last line that the project's author wrote.
        if here.is_projects(frame.filename):
            place = f"{here.shown(frame.filename)}:{frame.lineno}"
    chain = list(_chain(error))
    compiled = next((name for part in chain for name in _modules_of(part) if name in modules.removed), None)
    if compiled is None and isinstance(error, ImportError):
        # Some packages say it in words of their own (numpy).
        failed = {here.shown(frame.filename).partition("/")[0] for frame in frames}
        compiled = next((name for name in reversed(modules.asked_for) if name.partition(".")[0] in failed), None)
    if compiled is not None:
        distribution = modules.removed[compiled]
        return f"{place}: {distribution} needs compiled code ({compiled}), which does not exist for WebAssembly"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{place}: no module named {error.name!r}: {_remedy(error.name)}"
    print_error(error)
    return f"{place}: {''.join(traceback.format_exception_only(error)).strip()}"


def _remedy(name):
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top.startswith("_"):
        return "it does not exist for WebAssembly"
    if any(Path(folder, top).exists() for folder in here.PACKAGES):
        return f"the installed {top} does not have it"
    return f"add {top} to requirements.txt"


def _chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _modules_of(error):
    if isinstance(error, ImportError) and error.name:
        yield error.name
        if error.name_from:
            yield f"{error.name}.{error.name_from}"


def print_error(error):
    """Prints an error with the user's lines, and without ours."""
    report = traceback.TracebackException.from_exception(error)
    _trim(report)
    print("".join(report.format()), end="", file=sys.stderr)


def _trim(report):
    while report is not None:
        frames = list(report.stack)
        # What called the user's code, asyncio for one, is ours as well.
        first = next((at for at, frame in enumerate(frames) if here.is_users(frame.filename)), 0)
        frames = [frame for frame in frames[first:] if not here.is_ours(frame.filename)]
        for frame in frames:
            frame.filename = here.shown(frame.filename)
        report.stack[:] = frames
        for inner in report.exceptions or ():
            _trim(inner)
        if report.__cause__ is not None:
            _trim(report.__cause__)
        report = report.__context__


def rehearse():
    """Uses what makes tables or imports at its first use: each request would be the first one."""
    wasi.rehearse()
    headers = wharf.Headers({"a": unquote("%C3%A9")})
    request = wharf.Request("POST", "", "/", "a=%20b+c&d=", headers, b'{"a": [1, "\\u00e9"]}')
    _ = request.args, request.text, request.json(), headers.get("a")
    wharf.Response.json(request.args)._finish()
    wharf.Response("<p>")._finish()
    event_loop.run(_nothing())


async def _nothing():
    """Starts the loop."""


def keep_lines():
    """Keeps the project's sources for tracebacks."""
    for path in modules.files.walk(here.PROJECT, ".py"):
        text = Path(path).read_bytes().decode("utf-8", "replace")
        for name in (path, here.shown(path)):
            linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
