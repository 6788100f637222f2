"""Where this program is: its folders while it is made, its worker while it answers.

The project's folder has another name in here than on the machine that builds.
"""

import sys
from pathlib import Path

# Where our own modules are.
RUNTIME = str(Path(__file__).parent.parent)

# The user's sources and files.
PROJECT = next(folder for folder in sys.path if (Path(folder) / ".wharf-project").exists())

# What pip installed for the project: all others that componentize-py was given.
# It numbers its folders, and has the standard library in /python.
PACKAGES = [folder for folder in sys.path if folder[1:].isdigit() and folder not in (RUNTIME, PROJECT)]

LIBRARY = "/python"

# The name of the worker that answers.
worker = ""

# Whether the component is still being made: nothing outside can be asked.
is_build = True


def shown(path):
    """A file's path as its author knows it: below the project, below the packages."""
    for folder in (PROJECT, *PACKAGES):
        if path.startswith(folder + "/"):
            return path[len(folder) + 1 :]
    return path


def is_ours(path):
    """Whether the file is one of this runtime's, or of what componentize-py made."""
    return path.startswith((RUNTIME + "/", "/world/", "/bundled/"))


def is_projects(path):
    """Whether the file is the project's. Workers are known by their path in it."""
    return path.startswith(PROJECT + "/") or not path.startswith(("/", "<"))


def is_users(path):
    """Whether the file is the project's or one of its packages'."""
    return is_projects(path) or path.startswith(tuple(folder + "/" for folder in PACKAGES))
