#!/bin/bash
# Builds the JupyterLite site of this example into public/dist: notebooks,
# Python (Pyodide) and the packages that the kernel loads, so that a browser
# needs no other host. Two builds are byte-identical.
#
# Needs python3 with venv, npm, and their package indexes as they are configured.
# Downloads and the finished site are kept in $WHARF_TESTBED/python-wasm
# (default ~/.cache/wharf-testbed): a second build copies.
set -euo pipefail
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$example/_jupyterlite
site=$example/public/dist
cache=${WHARF_TESTBED:-${XDG_CACHE_HOME:-$HOME/.cache}/wharf-testbed}/python-wasm
# comm is what ipywidgets talk through; Pyodide's lock does not have it.
comm=comm==0.2.3
# Every date in the site: 1980-01-01, the earliest that a zip file can say.
epoch=315532800

fail() {
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}
for command in python3 npm flock; do
    command -v "$command" >/dev/null || fail "cannot find \`$command\`" "tests/testbed/packages.sh demo installs it"
done

inputs=$(cd "$source" && find . -type f ! -path '*/__pycache__/*' -print0 | sort -z |
    xargs -0 sha256sum ./../build-site.sh | sha256sum | cut -d' ' -f1)
stamp=$example/.build/site
if [ -f "$stamp" ] && [ "$(<"$stamp")" = "$inputs" ] && [ -d "$site" ]; then
    exit 0
fi

mkdir -p "$cache"
exec 9>"$cache.lock"
flock 9

if [ ! -d "$cache/$inputs" ]; then
    work=$(mktemp -d "$cache/build.XXXXXX")
    trap 'rm -rf "$work"' EXIT

    tools=$(sha256sum <"$source/requirements.txt" | cut -c1-16)
    venv=$cache/venv-$tools
    if [ ! -f "$venv/complete" ]; then
        echo "python-wasm: installing jupyterlite" >&2
        rm -rf "$venv"
        python3 -m venv "$venv" || fail "cannot make a virtual environment" "on Debian: apt-get install python3-venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$source/requirements.txt"
        touch "$venv/complete"
    fi

    echo "python-wasm: fetching Pyodide and its wheels" >&2
    cp "$source"/package*.json "$work/"
    npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel=error
    lite=$work/lite
    mkdir -p "$lite/static/pyodide"
    cp "$work"/node_modules/pyodide/{pyodide.mjs,pyodide.asm.mjs,pyodide.asm.wasm,python_stdlib.zip,pyodide-lock.json} \
        "$lite/static/pyodide/"
    chmod 644 "$lite"/static/pyodide/*
    "$venv/bin/python" "$source/wheels.py" "$lite/static/pyodide" "$venv/bin/pip"
    "$venv/bin/pip" download --quiet --no-deps --only-binary=:all: --dest "$work/wheels" "$comm"

    echo "python-wasm: building the site" >&2
    cp "$source/jupyter-lite.json" "$lite/"
    cp -r "$source/contents" "$lite/contents"
    find "$lite" -exec touch --no-dereference --date="@$epoch" {} +
    (
        cd "$lite"
        export JUPYTER_CONFIG_DIR=$work/jupyter JUPYTER_DATA_DIR=$work/jupyter
        export HOME=$work PATH=$venv/bin:$PATH PYTHONHASHSEED=0 TZ=UTC LC_ALL=C.UTF-8
        "$venv/bin/jupyter" lite build --lite-dir . --contents contents --output-dir "$work/site" \
            --piplite-wheels "$work"/wheels/*.whl \
            --no-sourcemaps --no-libarchive --source-date-epoch "$epoch" >"$work/log" 2>&1
    ) || { cat "$work/log" >&2 && fail "cannot build the JupyterLite site" "the log is above"; }
    chmod -R u=rwX,go=rX "$work/site"
    mv "$work/site" "$cache/$inputs"
fi

mkdir -p "$example/public" "$example/.build"
rm -rf "$site" "$site.new"
cp -r "$cache/$inputs" "$site.new"
mv "$site.new" "$site"
printf '%s\n' "$inputs" >"$stamp"
echo "python-wasm: $(find "$site" -type f | wc -l) files, $(du -sh "$site" | cut -f1) in public/dist" >&2
