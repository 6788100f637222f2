"""Key-value stores, as `wharf.toml` grants them: `kv = { default = "/data/kv" }`.

    from wharf import kv

    def worker(request):
        visits = kv.open().increment("visits")
"""

import wharf._here as _here
from componentize_py_types import Err as _Err
from wit_world.imports import atomics as _atomics
from wit_world.imports import batch as _batch
from wit_world.imports import store as _store

__all__ = ["NotGranted", "Store", "StoreError", "open"]

_opened = {}


class StoreError(Exception):
    """A store does not exist, is not granted, or failed."""


class NotGranted(StoreError):
    """The worker has no such store."""


def open(name="default"):
    """The store `name` of this worker."""
    if name not in _opened:
        _opened[name] = Store(name)
    return _opened[name]


class Store:
    """A store: keys are text, values are bytes. Text is stored in UTF-8."""

    def __init__(self, name):
        if _here.is_build:
            raise StoreError(f"key-value store {name!r}: none while the component is made: open it in the handler")
        self.name = name
        self._bucket = self._call(_store.open, name)

    def get(self, key, default=None):
        """The value of the key."""
        value = self._call(self._bucket.get, key)
        return default if value is None else value

    def set(self, key, value):
        """Keeps a value: bytes or text."""
        self._call(self._bucket.set, key, _bytes(key, value))

    def delete(self, key):
        """Removes the key, if it is there."""
        self._call(self._bucket.delete, key)

    def exists(self, key):
        """Whether there is a value."""
        return self._call(self._bucket.exists, key)

    def keys(self):
        """All keys, in no order, read page by page."""
        cursor = None
        while True:
            page = self._call(self._bucket.list_keys, cursor)
            yield from page.keys
            cursor = page.cursor
            if cursor is None:
                return

    def increment(self, key, delta=1):
        """Adds `delta` in one step that no other request can come between. The sum."""
        return self._call(_atomics.increment, self._bucket, key, delta)

    def get_many(self, keys):
        """The values of those keys that have one, by key."""
        pairs = self._call(_batch.get_many, self._bucket, list(keys))
        return {pair[0]: pair[1] for pair in pairs if pair is not None}

    def set_many(self, values):
        """Keeps all values of a dict. Not in one step."""
        self._call(_batch.set_many, self._bucket, [(key, _bytes(key, value)) for key, value in values.items()])

    def delete_many(self, keys):
        """Removes all these keys. Not in one step."""
        self._call(_batch.delete_many, self._bucket, list(keys))

    def __repr__(self):
        return f"<Store {self.name!r}>"

    def _call(self, function, *arguments):
        try:
            return function(*arguments)
        except _Err as error:
            problem = _problem(self.name, error.value)
        # Outside of the handler, so that the traceback has no second part.
        raise problem


def _bytes(key, value):
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"value of key {key!r} is {type(value).__name__}: expected bytes or str")


def _problem(name, error):
    match error:
        case _store.Error_AccessDenied() | _store.Error_NoSuchStore():
            setting = f'kv = {{ {name} = "/data/{name}" }} under [workers."{_here.worker}"]'
            return NotGranted(f"key-value store {name!r} is not granted: expected {setting} in wharf.toml")
        case _:
            return StoreError(f"key-value store {name!r}: {error.value}")
