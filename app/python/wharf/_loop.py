"""asyncio's event loop on wasi:io's poll.

All but the waiting is asyncio's own. There are no threads: what asyncio gives
to one runs at once.
"""

import asyncio
import concurrent.futures
from asyncio.base_events import BaseEventLoop

from wit_world.imports import monotonic_clock, poll


class Loop(BaseEventLoop):
    """Waits for pollables and timers."""

    def __init__(self):
        super().__init__()
        # asyncio's base takes what is to be waited for from here.
        self._selector = self
        self._waiting = []

    async def wait(self, pollable):
        """Waits for a pollable, and drops it."""
        future = self.create_future()
        entry = (pollable, future)
        self._waiting.append(entry)
        try:
            await future
        finally:
            # It is done, or its task was cancelled.
            if entry in self._waiting:
                self._waiting.remove(entry)
            pollable.__exit__(None, None, None)

    def select(self, timeout):
        """The futures of the pollables that are ready, within `timeout` seconds."""
        waiting = list(self._waiting)
        pollables = [pollable for pollable, _ in waiting]
        if timeout == 0 and not pollables:
            return []
        if timeout is None and not pollables:
            raise RuntimeError("every task waits, and for nothing that can come")
        timer = None
        if timeout is not None:
            timer = monotonic_clock.subscribe_duration(max(0, int(timeout * 1e9)))
            pollables.append(timer)
        try:
            ready = poll.poll(pollables)
        finally:
            if timer is not None:
                timer.__exit__(None, None, None)
        return [waiting[index] for index in ready if index < len(waiting)]

    def _process_events(self, ready):
        for entry in ready:
            self._waiting.remove(entry)
            if not entry[1].done():
                entry[1].set_result(None)

    def _write_to_self(self):
        """Wakes the loop from another thread: there is none."""

    def run_in_executor(self, executor, function, *arguments):
        future = self.create_future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self):
        self._waiting.clear()
        super().close()


class _Policy(asyncio.events._AbstractEventLoopPolicy):
    def __init__(self):
        self._loop = None

    def get_event_loop(self):
        if self._loop is None:
            raise RuntimeError("there is no current event loop")
        return self._loop

    def set_event_loop(self, loop):
        self._loop = loop

    def new_event_loop(self):
        return Loop()


def _submit(self, function, /, *arguments, **keywords):
    """`ThreadPoolExecutor.submit` without threads: it is done when it returns."""
    future = concurrent.futures.Future()
    future.set_running_or_notify_cancel()
    try:
        future.set_result(function(*arguments, **keywords))
    except BaseException as error:
        future.set_exception(error)
    return future


def install():
    """Makes it the loop of `asyncio.run` and the like."""
    asyncio.events._set_event_loop_policy(_Policy())
    concurrent.futures.ThreadPoolExecutor.submit = _submit


_loop = None


def run(coroutine):
    """Runs a coroutine in this instance's loop."""
    return loop().run_until_complete(coroutine)


def loop():
    """This instance's loop: tasks that one request leaves go on with the next one."""
    global _loop
    if _loop is None:
        _loop = Loop()
        asyncio.set_event_loop(_loop)
    return _loop
