#!/bin/bash
# Copies WordPress to public/vendor, and bundles PHP for browsers (php-wasm).
# Needs npm, with its registry as it is configured.
set -euo pipefail
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../vendor.sh
. "$example/../vendor.sh"

collect() {
    local modules=$1 folder=$2 builds static
    builds=$modules/@wp-playground/wordpress-builds
    # What PHP reads: its scripts, a database with WordPress installed, and the drop-in
    # that has WordPress talk to SQLite.
    cp "$builds/src/wordpress/wp-6.5.zip" "$folder/wordpress.zip"
    cp "$builds/src/sqlite-database-integration/sqlite-database-integration.zip" "$folder/sqlite.zip"

    # What browsers ask for: not the texts of minified files, but for the four that
    # WordPress has no minified name for, nor right-to-left styles.
    static=$folder/wordpress
    mkdir -p "$static/wp-content/themes"
    cp -r "$builds"/public/wp-6.5/{wp-admin,wp-includes} "$static/"
    cp -r "$builds/public/wp-6.5/wp-content/themes/twentytwentyfour" "$static/wp-content/themes/"
    find "$static" -type f \( -name '*-rtl.*' -o -name '*-rtl.min.*' -o -name '*.scss' -o -name '*.php' \
        -o -name 'screenshot.png' \) -delete
    find "$static" -type f \( -name '*.min.js' -o -name '*.min.css' \) -print0 |
        sed -z 's/\.min\.\(js\|css\)$/.\1/' |
        grep -zvE '/(site-icon|svg-painter|customize-models|customize-views)\.js$' | xargs -0 rm -f

    # The package chooses between two builds of PHP when it is loaded: of these, the one
    # that every browser runs.
    printf '%s\n' "export { PHP, PHPRequestHandler, loadPHPRuntime } from '@php-wasm/universal';" \
        "export * as loader from './node_modules/@php-wasm/web-8-3/asyncify/php_8_3.js';" >"$modules/../php.js"
    "$modules/.bin/esbuild" "$modules/../php.js" --bundle --minify --format=esm --target=es2022 \
        --loader:.wasm=file --asset-names=php --external:worker_threads --external:events --log-level=warning --outfile="$folder/php.js"
}
vendor "$example" collect
