"""`_multiprocessing` for what imports it: there are no processes to start."""

import errno


class SemLock:
    SEM_VALUE_MAX = 0x7FFFFFFF

    def __init__(self, *arguments):
        raise OSError(errno.ENOSYS, "no processes and no semaphores in WebAssembly")


def sem_unlink(name):
    """There is none."""
