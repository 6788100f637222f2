"""What a Python worker speaks: a request comes in, a response goes out.

    from wharf import Response

    def worker(request):
        return Response("hello", headers={"content-type": "text/plain"})
"""

import json as _json
from urllib.parse import parse_qsl as _parse_qsl

__all__ = ["Cache", "Headers", "Request", "Response"]


class Headers:
    """HTTP header fields: names without regard to case, each with any number of values."""

    def __init__(self, fields=()):
        self._fields = []
        pairs = fields.items() if hasattr(fields, "items") else fields
        for name, value in pairs:
            for one in _values(value):
                self.add(name, one)

    def add(self, name, value):
        """Adds a value, and keeps those that the name has (Set-Cookie needs it)."""
        self._fields.append((str(name).lower(), str(value)))

    def get(self, name, default=None):
        """The first value of the name."""
        name = name.lower()
        return next((value for key, value in self._fields if key == name), default)

    def get_all(self, name):
        """All values of the name, in order."""
        name = name.lower()
        return [value for key, value in self._fields if key == name]

    def items(self):
        """All pairs of name and value, in order."""
        return list(self._fields)

    def keys(self):
        """All names, each once."""
        return list(self)

    def __getitem__(self, name):
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name, value):
        """Sets the value, or all values of a list."""
        del self[name]
        for one in _values(value):
            self.add(name, one)

    def __delitem__(self, name):
        name = name.lower()
        self._fields = [(key, value) for key, value in self._fields if key != name]

    def __contains__(self, name):
        return self.get(name) is not None

    def __iter__(self):
        return iter(dict(self._fields))

    def __len__(self):
        return len(self._fields)

    def __repr__(self):
        return f"Headers({self._fields!r})"


def _values(value):
    return value if isinstance(value, (list, tuple)) else (value,)


class Request:
    """A request: method, path, query, headers, body, and the route's parameters.

    `method` is in capitals; `path` is decoded; `query` is as it was sent,
    without the question mark; `body` is bytes; `params` has the parts of the
    path that the route names, for `[id].py` the key `id`.

    To a worker that does not import `wharf` the body is text, as Wasm Workers
    Server has it, unless it is no UTF-8.
    """

    def __init__(self, method, url, path, query, headers, body=b"", params=None):
        self.method = method
        self.url = url
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.params = params or {}

    @property
    def args(self):
        """The query as a dict; of a repeated name the last value."""
        return dict(_parse_qsl(self.query, keep_blank_values=True))

    @property
    def text(self):
        """The body as text in UTF-8."""
        return self.body if isinstance(self.body, str) else self.body.decode("utf-8")

    def json(self):
        """The body as JSON."""
        return _json.loads(self.body)

    def __repr__(self):
        return f"<Request {self.method} {self.url}>"


class Response:
    """A response: body (str, in UTF-8, or bytes), status and headers.

    Without a content-type, text is `text/html; charset=utf-8` when it begins
    with `<`, else `text/plain; charset=utf-8`; bytes are
    `application/octet-stream`.
    """

    def __init__(self, body="", status=200, headers=None):
        if not isinstance(body, (str, bytes, bytearray)):
            raise TypeError(f"Response body is {type(body).__name__}: expected str or bytes (see Response.json)")
        self.body = body
        self.status = int(status)
        self.headers = Headers(headers or ())

    @classmethod
    def json(cls, value, status=200, headers=None):
        """A response with `value` as JSON."""
        response = cls(_json.dumps(value), status, headers)
        if "content-type" not in response.headers:
            response.headers["content-type"] = "application/json"
        return response

    @property
    def status_code(self):
        """The status, by the name that Wasm Workers Server has for it."""
        return self.status

    @status_code.setter
    def status_code(self, status):
        self.status = int(status)

    def _finish(self):
        """The body as bytes, with a content-type set."""
        if not isinstance(self.headers, Headers):
            self.headers = Headers(self.headers)
        if isinstance(self.body, str):
            kind = "html" if self.body.lstrip()[:1] == "<" else "plain"
            default, body = f"text/{kind}; charset=utf-8", self.body.encode("utf-8")
        else:
            default, body = "application/octet-stream", bytes(self.body)
        if "content-type" not in self.headers and (body or self.status not in (204, 304)):
            self.headers["content-type"] = default
        return body


class Cache:
    """The key-value store `default`, as Wasm Workers Server has it: text by name.

    Of a worker without this store it forgets all when the request is answered.
    """

    @staticmethod
    def get(key):
        """The text of the key; `None`: there is none."""
        store = _default_store()
        if store is None:
            return _kept.get(str(key))
        value = store.get(str(key))
        return None if value is None else value.decode("utf-8")

    @staticmethod
    def set(key, value):
        """Keeps `value` as text."""
        store = _default_store()
        if store is None:
            _kept[str(key)] = str(value)
        else:
            store.set(str(key), str(value))


# What a worker without a store keeps during a request.
_kept = {}


def _default_store():
    from wharf import kv

    try:
        return kv.open("default")
    except kv.NotGranted:
        return None
