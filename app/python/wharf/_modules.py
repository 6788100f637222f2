"""Imports that a request makes: the component has no file system to import from.

Modules that were imported while it was made are there. Of all others that are
in the project, in its packages and in the standard library this keeps the
code, or of the standard library the source: few ever ask for it, and to
compile all of it would take each build longer than all else.
"""

import contextlib
import importlib
import importlib.util
import marshal
import opcode
import os
import sys
import zlib
from importlib.machinery import FileFinder, PathFinder, SourceFileLoader

import wharf._files as files
import wharf._here as here

# Of the standard library: what no request has a use for, or can't use here.
_LEFT_OUT = frozenset(
    """__phello__ _android_support _apple_support _ios_support _osx_support _aix_support _pydatetime _pydecimal _pyio
    _pyrepl antigravity bdb cProfile cmd code codeop compileall ctypes curses dbm doctest ensurepip idlelib lib2to3
    lib-dynload msilib pdb profile profiling pstats pty pyclbr pydoc pydoc_data rlcompleter
    site-packages test tests this tkinter trace turtle turtledemo venv webbrowser zipapp __pycache__""".split()
)

# What C code and codecs import at their first use.
_AT_FIRST_USE = """_strptime asyncio.timeouts atexit concurrent.futures.thread copyreg email.generator encodings.ascii
    encodings.idna encodings.latin_1 encodings.punycode encodings.raw_unicode_escape encodings.unicode_escape
    encodings.utf_8_sig linecache locale queue random stringprep traceback unicodedata zoneinfo._common
    zoneinfo._tzpath""".split()

# What packages import at the first use of what they are for.
_AT_FIRST_USE_OF = {"httpx": "httpcore", "anyio": "anyio._backends._asyncio"}

_archive = {}

# Modules of compiled code that were taken out of packages: name → distribution.
removed = {}

# Those of them that were asked for, in order.
asked_for = []


class _Finder:
    """Changes modules once they are imported, and finds those that are kept here."""

    def __init__(self, patches):
        self._patches = dict(patches)

    def find_spec(self, name, path=None, target=None):
        if name in removed:
            asked_for.append(name)
        spec = None
        if name in _archive:
            spec = _archived_spec(name)
        patch = self._patches.pop(name, None)
        if patch is not None:
            spec = spec or PathFinder.find_spec(name, path)
            if spec is not None:
                spec.loader = _Patching(spec.loader, patch)
        return spec


class _Patching:
    def __init__(self, loader, patch):
        self._loader, self._patch = loader, patch

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        self._patch(module)


class _Archived:
    """A loader of what is kept."""

    def __init__(self, name):
        self.name = name
        self.path, self._is_package, self._is_source, self._blob = _archive[name]

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.get_code(self.name), module.__dict__)

    def get_code(self, name):
        content = zlib.decompress(self._blob)
        return compile(content, self.path, "exec", dont_inherit=True) if self._is_source else marshal.loads(content)

    def get_source(self, name):
        return zlib.decompress(self._blob).decode("utf-8") if self._is_source else None

    def get_filename(self, name):
        return self.path

    def is_package(self, name):
        return self._is_package

    def get_data(self, path):
        with open(path, "rb") as file:
            return file.read()

    def get_resource_reader(self, name):
        from importlib.resources.readers import FileReader

        return FileReader(self)


def _archived_spec(name):
    loader = _Archived(name)
    folder = [os.path.dirname(loader.path)] if loader.is_package(name) else None
    return importlib.util.spec_from_file_location(name, loader.path, loader=loader, submodule_search_locations=folder)


def install(patches):
    """Lets `patches` (module → function) change what is imported from now on."""
    importlib.import_module("importlib.resources.readers")
    for name in [name for name in patches if name in sys.modules]:
        patches[name](sys.modules[name])
    sys.meta_path.insert(0, _Finder({name: patch for name, patch in patches.items() if name not in sys.modules}))


@contextlib.contextmanager
def mounted(settings):
    """Lets a worker import from the folders of the project that it mounts, where it sees them.

    `settings`: `folders` (where it sees them → path below the project) and `path`,
    its PYTHONPATH; None if it mounts none. Gives a list, which has in the end what is
    on `sys.path` for it: at a request the folders are really there.
    """
    added = []
    if settings is None:
        yield added
        return
    folders = settings["folders"]

    def find(path):
        for guest, folder in folders.items():
            if path == guest or path.startswith(guest + "/"):
                place = f"{here.PROJECT}/{folder}{path[len(guest) :]}"
                return FileFinder(place, (SourceFileLoader, [".py"]))
        raise ImportError(f"not a mounted folder: {path}")

    before = list(sys.path)
    sys.path_hooks.insert(0, find)
    sys.path.extend(path for path in settings["path"].split(":") if path)
    try:
        yield added
    finally:
        added.extend(path for path in sys.path if path not in before)
        sys.path_hooks.remove(find)
        sys.path[:] = before
        for path in [path for path in sys.path_importer_cache if path not in before]:
            del sys.path_importer_cache[path]


def import_ahead():
    """Imports what functions of the project and of its packages import of the standard library."""
    for name in _AT_FIRST_USE:
        _try_import(name)
    for package, name in _AT_FIRST_USE_OF.items():
        if package in sys.modules:
            _try_import(name)
    for path in files.walk(here.PROJECT, ".py"):
        try:
            with open(path, "rb") as file:
                _import_for(compile(file.read(), path, "exec", dont_inherit=True))
        except (SyntaxError, ValueError):
            pass  # Nobody imports it, or it was reported.
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        if path.startswith(tuple(folder + "/" for folder in here.PACKAGES)):
            spec = module.__spec__
            code = spec and hasattr(spec.loader, "get_code") and spec.loader.get_code(spec.name)
            if code:
                _import_for(code)


def _import_for(code):
    """Imports what the functions below `code` import."""
    for inner in code.co_consts:
        if not hasattr(inner, "co_code"):
            continue
        _import_for(inner)
        parts = set(_names(inner, _IMPORT_FROM))
        for name in _names(inner, _IMPORT_NAME):
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names or top in _LEFT_OUT or top == "unittest":
                continue
            module = _try_import(name)
            if module is not None and hasattr(module, "__path__"):
                for part in parts:
                    if not hasattr(module, part):
                        _try_import(f"{name}.{part}")


def all_imports(code):
    """The names of the modules that `code` imports, anywhere."""
    yield from _names(code, _IMPORT_NAME)
    for inner in code.co_consts:
        if hasattr(inner, "co_code"):
            yield from all_imports(inner)


_IMPORT_NAME, _IMPORT_FROM = opcode.opmap["IMPORT_NAME"], opcode.opmap["IMPORT_FROM"]
_EXTENDED_ARG = opcode.opmap["EXTENDED_ARG"]


def _names(code, operation):
    """The names that an operation has in `code`."""
    operations, arguments = code.co_code[::2], code.co_code[1::2]
    at = operations.find(operation)
    while at >= 0:
        index = arguments[at]
        if at and operations[at - 1] == _EXTENDED_ARG:
            index |= arguments[at - 1] << 8
        yield code.co_names[index]
        at = operations.find(operation, at + 1)


def _try_import(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def keep():
    """Keeps what is not imported yet."""
    for root in (here.PROJECT, *here.PACKAGES, here.LIBRARY):
        is_library = root == here.LIBRARY
        for path in files.walk(root, ".py", _LEFT_OUT if is_library else ("__pycache__", "tests")):
            parts = path[len(root) + 1 : -3].split("/")
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            if name in sys.modules or name in _archive or any("." in part for part in parts):
                continue
            if is_library and parts[0] in _LEFT_OUT or parts[-1] in _LEFT_OUT:
                continue
            with open(path, "rb") as file:
                content = file.read()
            if not is_library:
                try:
                    content = marshal.dumps(compile(content, here.shown(path), "exec", dont_inherit=True))
                except (SyntaxError, ValueError):
                    continue  # Of another Python's: an import would say so as well.
            _archive[name] = path, is_package, is_library, zlib.compress(content, 6)
            _keep_parents(root, parts[:-1])


def _keep_parents(root, parts):
    """Keeps packages that are only folders."""
    for end in range(1, len(parts) + 1):
        name, path = ".".join(parts[:end]), "/".join([root, *parts[:end], "__init__.py"])
        if name not in sys.modules and name not in _archive and not os.path.exists(path):
            _archive[name] = path, True, True, zlib.compress(b"")
