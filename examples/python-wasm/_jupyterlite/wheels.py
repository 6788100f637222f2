"""Makes Pyodide self-contained: `wheels.py PYODIDE_FOLDER PIP`.

Pyodide's lock names hundreds of packages on a CDN. This keeps the closure of
what the notebook kernel loads, downloads those wheels from the package index
with pip, at the lock's versions, and writes the lock anew: file names and
digests of what lies in the folder, nothing else.
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

# What jupyterlite-pyodide-kernel asks of Pyodide before the first cell runs.
ROOTS = ["micropip", "ipython", "jedi", "pyodide-http"]


def canonical(name: str) -> str:
    """The package's name as the lock's keys spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(packages: dict, roots: list[str]) -> list[str]:
    found: set[str] = set()
    queue = list(roots)
    while queue:
        name = canonical(queue.pop())
        if name not in found:
            found.add(name)
            queue += packages[name]["depends"]
    return sorted(found)


def main() -> None:
    folder, pip = Path(sys.argv[1]), sys.argv[2]
    lock_file = folder / "pyodide-lock.json"
    lock = json.loads(lock_file.read_text())
    names = closure(lock["packages"], ROOTS)
    python = ".".join(lock["info"]["python"].split(".")[:2])
    download = [pip, "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    download += ["--python-version", python, "--dest", str(folder)]
    download += [f"{name}=={lock['packages'][name]['version']}" for name in names]
    subprocess.run(download, check=True)

    wheels = {canonical(wheel.name.split("-")[0]): wheel for wheel in folder.glob("*.whl")}
    for name in names:
        package, wheel = lock["packages"][name], wheels[name]
        # The index's file may differ from the CDN's, in its name and its bytes.
        package["file_name"] = wheel.name
        package["sha256"] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock["packages"] = {name: lock["packages"][name] for name in names}
    lock_file.write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
