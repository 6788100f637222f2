# shellcheck shell=bash
# Sourced by the build-site.sh of each site.
#
# vendor EXAMPLE COLLECT: fills EXAMPLE/public/vendor by `COLLECT MODULES FOLDER`, which
# copies what the site needs out of the npm packages that package-lock.json pins.
# The result is kept in $WHARF_TESTBED/sites (default ~/.cache/wharf-testbed/sites) by
# what it was made from: a second build copies, and one that has nothing to do ends.
vendor() {
    local example=$1 collect=$2 name inputs cache stamp site work command
    name=$(basename "$example")
    for command in npm flock; do
        command -v "$command" >/dev/null || {
            printf '%s\n' "error: cannot find \`$command\`" "hint: tests/testbed/packages.sh demo installs it" >&2
            return 1
        }
    done
    site=$example/public/vendor
    stamp=$example/.build/site
    inputs=$(cat "$example"/package*.json "$example"/*.sh "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1)
    if [ -f "$stamp" ] && [ "$(<"$stamp")" = "$inputs" ] && [ -d "$site" ]; then
        return
    fi

    cache=${WHARF_TESTBED:-${XDG_CACHE_HOME:-$HOME/.cache}/wharf-testbed}/sites
    mkdir -p "$cache"
    exec 9>"$cache/$name.lock"
    flock 9
    if [ ! -d "$cache/$name-$inputs" ]; then
        printf '%s: fetching its packages\n' "$name" >&2
        work=$(mktemp -d "$cache/$name.XXXXXX")
        # shellcheck disable=SC2064 # the folder of now
        trap "rm -rf '$work'" EXIT
        cp "$example"/package*.json "$work/"
        npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
        mkdir "$work/vendor"
        "$collect" "$work/node_modules" "$work/vendor"
        find "$work/vendor" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
        mv "$work/vendor" "$cache/$name-$inputs"
        rm -rf "$work"
    fi

    rm -rf "$site" "$site.new"
    mkdir -p "$example/.build"
    cp -r "$cache/$name-$inputs" "$site.new"
    mv "$site.new" "$site"
    printf '%s\n' "$inputs" >"$stamp"
    printf '%s: %s files, %s in public/vendor\n' "$name" \
        "$(find "$site" -type f | wc -l)" "$(du -sh "$site" | cut -f1)" >&2
}
