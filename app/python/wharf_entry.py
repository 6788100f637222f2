"""All Python workers of a project as one wasi:http component.

Loaded by componentize-py: what runs at import runs once, at build time, and
its result is part of the component. `wharf_workers.json` beside this file
says which workers there are: name → path of the source. `wharf_folders.json` says
which folders of the project they mount, for those that do. `wharf_removed.json`,
if there is one, says which modules of compiled code were taken out of the
packages: name → distribution and version.
"""

import gc
import os
import sys

import wharf._multiprocessing
import wharf._ssl

# Before anything imports them: the interpreter has none.
sys.modules["ssl"] = wharf._ssl
sys.modules["_multiprocessing"] = wharf._multiprocessing

import wharf
import wharf._files as files
import wharf._here as here
import wharf._loop as event_loop
import wharf._modules as modules
import wharf._outbound as outbound
import wharf._sqlite as sqlite
import wharf._tempfile as tempfile
import wharf._wasi as wasi
import wharf._workers as workers
import wharf.kv  # noqa: F401  (a request has no files to import from)
from wit_world import exports

os.chdir(here.PROJECT)
event_loop.install()
modules.install(outbound.PATCHES | {"sqlite3": sqlite.patch, "tempfile": tempfile.patch})

TEXT = [("content-type", b"text/plain; charset=utf-8")]

WORKERS = workers.load_all()

# What is on the path for all of them.
PATHS = len(sys.path)

modules.import_ahead()
modules.keep()
workers.keep_lines()
files.keep()
workers.rehearse()


class IncomingHandler(exports.IncomingHandler):
    def handle(self, incoming, response_out):
        exchange = wasi.Exchange(incoming, response_out)
        here.worker = exchange.worker
        wharf._kept.clear()
        worker = WORKERS.get(exchange.worker)
        if worker is None and len(WORKERS) == 1:
            (worker,) = WORKERS.values()
        if worker is None:
            exchange.respond_whole(404, TEXT, b"no such worker\n")
            return
        sys.path[PATHS:] = worker.search
        try:
            worker.answer(exchange)
            return
        except BrokenPipeError:
            return  # The client is gone.
        except wasi.Misuse as error:
            print(f"{worker.path}: {error}", file=sys.stderr)
        except Exception as error:
            workers.print_error(error)
        if exchange.output is None:
            exchange.respond_whole(500, TEXT, b"500 Internal Server Error\n")
        else:
            exchange.output.abort()


# The collector leaves alone what is there from now on: to look at it would
# write to each page of it, and each page would have to be copied. It does not
# collect before that: what it frees here and there is where a request's objects
# would go, all over the pages (Flask: a fifth more time a request).
gc.freeze()
here.is_build = False
