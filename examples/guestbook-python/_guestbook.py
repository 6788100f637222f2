"""What an entry is, and where entries, visits and files are kept.

All is in the key-value store `default`, which wharf.toml grants each worker:
`entries` and `visits` are counters, `entry/1` and `file/NAME` the rest.
"""

import json
import re
from dataclasses import asdict, dataclass
from itertools import batched

from wharf import Response, kv

# Most characters of each field.
_MOST = {"name": 100, "text": 1000}

_ID = re.compile(r"[1-9][0-9]{0,15}")


class Invalid(ValueError):
    """No entry can be made of what was sent; the message says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    id: int
    name: str
    text: str


def sign(fields):
    """Adds an entry of the texts `name` and `text` in `fields`."""
    name, text = (_checked(fields.get(field), field) for field in _MOST)
    store = kv.open()
    # No two requests get the same number: the store counts in one step.
    entry = Entry(store.increment("entries"), name, text)
    store.set(f"entry/{entry.id}", json.dumps(asdict(entry)))
    return entry


def entries():
    """All entries, oldest first."""
    store = kv.open()
    last = int(store.get("entries", 0))
    for ids in batched(range(1, last + 1), 1000):
        keys = [f"entry/{id}" for id in ids]
        found = store.get_many(keys)
        # One that is being added has its number before it is there.
        yield from (_load(found[key]) for key in keys if key in found)


def entry(id):
    """The entry of that id, a text; None: there is none."""
    value = kv.open().get(f"entry/{id}") if _ID.fullmatch(id) else None
    return None if value is None else _load(value)


def not_allowed(allow):
    """What a request of another method is answered."""
    return Response("method not allowed\n", 405, {"allow": allow})


def _checked(value, field):
    if not isinstance(value, str) or not value.strip():
        raise Invalid(f"{field}: expected a text")
    value = value.strip()
    try:
        value.encode()
    except UnicodeEncodeError:  # half a character, as JSON can spell it: "\ud800"
        raise Invalid(f"{field}: expected a text") from None
    if len(value) > _MOST[field]:
        raise Invalid(f"{field}: expected at most {_MOST[field]} characters")
    return value


def _load(value):
    return Entry(**json.loads(value))
