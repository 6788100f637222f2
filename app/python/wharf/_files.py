"""Files that a request reads: templates and data of the project and of its packages.

The component has no file system but what `wharf.toml` mounts. This keeps the
files' content, and shows it to `open`, `os.stat`, `os.listdir` and
`os.scandir` under the names that the files had while it was made.
"""

import builtins
import errno
import io
import os
import posix
import stat
import zlib

import wharf._here as here

_files = {}
_folders = {}

# Made from other files, or of use only to who installs and compiles.
_ENDINGS_LEFT_OUT = (".pyc", ".pyi", ".so", ".po", ".c", ".h", ".pyx", ".pxd", ".a")

_open, _stat, _listdir, _scandir = io.open, os.stat, os.listdir, os.scandir


def walk(root, ending, left_out=("__pycache__",)):
    """Paths of files below `root`, in order."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in left_out)
        for name in sorted(names):
            if name.endswith(ending):
                yield f"{folder}/{name}"


def keep():
    """Keeps the files, and shows them from now on."""
    for root in (here.PROJECT, *here.PACKAGES):
        _folders[root] = set()
        for path in walk(root, ""):
            name = path.rpartition("/")[2]
            is_record = ".dist-info/" in path and name not in ("METADATA", "entry_points.txt", "top_level.txt")
            if name.endswith(_ENDINGS_LEFT_OUT) or is_record or name == ".wharf-project":
                continue
            # Of sources only the names, for who looks for modules (pkgutil).
            content = None
            if not name.endswith(".py"):
                with _open(path, "rb") as file:
                    content = zlib.compress(file.read(), 6)
            _files[path] = _stat(path).st_size, content
            while path != root and path:
                folder, _, name = path.rpartition("/")
                _folders.setdefault(folder, set()).add(name)
                path = folder
    builtins.open = io.open = open_file
    # importlib has its own name for it: pkgutil asks by that which folders there are.
    os.stat = os.lstat = posix.stat = status
    os.listdir, os.scandir = names, entries


def _find(path):
    """The path as it is kept, or None."""
    if not isinstance(path, (str, os.PathLike)):
        return None
    path = os.fspath(path)
    if not isinstance(path, str):
        return None
    if not path.startswith("/"):
        path = f"{here.PROJECT}/{path}"
    path = os.path.normpath(path)
    return path if path in _files or path in _folders else None


def open_file(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
    path = _find(file)
    if path is None:
        return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    if path in _folders:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if set(mode) & set("wax+"):
        raise PermissionError(errno.EROFS, "a file of the component can only be read", path)
    content = _files[path][1]
    if content is None:
        raise FileNotFoundError(errno.ENOENT, "sources are not kept in the component", path)
    raw = io.BytesIO(zlib.decompress(content))
    raw.name = path
    if "b" in mode:
        return raw
    return io.TextIOWrapper(raw, encoding or "utf-8", errors, newline)


def status(path, *, dir_fd=None, follow_symlinks=True):
    kept = _find(path)
    if kept is None:
        return _stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
    return _status(kept)


def _status(path):
    kind, size = (stat.S_IFDIR | 0o555, 0) if path in _folders else (stat.S_IFREG | 0o444, _files[path][0])
    # A time that is the same in each build.
    return os.stat_result((kind, hash(path) & 0xFFFFFFFF, 1, 1, 0, 0, size, 0, 0, 0))


def names(path="."):
    kept = _find(path)
    if kept is None:
        return _listdir(path)
    if kept in _files:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), kept)
    return sorted(_folders[kept])


class _Entry:
    """What `os.DirEntry` is."""

    def __init__(self, folder, name):
        self.name, self.path = name, f"{folder}/{name}"

    def is_dir(self, *, follow_symlinks=True):
        return self.path in _folders

    def is_file(self, *, follow_symlinks=True):
        return self.path in _files

    def is_symlink(self):
        return False

    def is_junction(self):
        return False

    def stat(self, *, follow_symlinks=True):
        return _status(self.path)

    def inode(self):
        return self.stat().st_ino

    def __fspath__(self):
        return self.path


class _Entries:
    def __init__(self, entries):
        self._entries = iter(entries)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._entries)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        self._entries = iter(())


def entries(path="."):
    kept = _find(path)
    if kept is None:
        return _scandir(path)
    return _Entries(_Entry(kept, name) for name in names(kept))
