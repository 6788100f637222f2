"""`tempfile` where no folder for it is mounted: uploads that are too large for
memory, as frameworks see it, are kept in memory."""

import io


class _MemoryFile(io.BytesIO):
    name = "<memory>"


def patch(module):
    for name in ("TemporaryFile", "NamedTemporaryFile"):
        setattr(module, name, _in_memory(module, getattr(module, name)))


def _in_memory(module, own):
    def temporary_file(mode="w+b", buffering=-1, encoding=None, newline=None, suffix=None, prefix=None, dir=None, *more, errors=None, **keywords):
        if dir is None:
            try:
                module.gettempdir()
            except FileNotFoundError:
                raw = _MemoryFile()
                return raw if "b" in mode else io.TextIOWrapper(raw, encoding, errors, newline)
        return own(mode, buffering, encoding, newline, suffix, prefix, dir, *more, errors=errors, **keywords)

    return temporary_file
