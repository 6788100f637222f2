#!/bin/bash
# Sinatra and the gems that it needs, of Debian 13's packages, as Bundler lays them out in
# `vendor/bundle`: gem servers are nothing that the tests depend on. Prints the folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"
# shellcheck source=debian-suites.sh
. "$here/debian-suites.sh"

packages=(ruby-sinatra ruby-rack ruby-rack-protection ruby-rack-session ruby-mustermann ruby-tilt)
gems=$WHARF_TESTBED/gems
only_one gems
inputs="1 ${packages[*]}"
if ! stamp_matches "$gems/stamp" "$inputs"; then
    work=$(mktemp -d "$WHARF_TESTBED/gems.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "fetching Sinatra"
    private_apt "$work/apt" trixie
    (cd "$work" && apt-get download -qq "${packages[@]}")
    unpack_debs "$work/debs" "$work"/*.deb
    home=$work/vendor/bundle/ruby/3.3.0
    mkdir -p "$home"
    mv "$work"/debs/usr/share/rubygems-integration/all/* "$home/"
    # Some of Debian's gems lie where its own Ruby looks first.
    for specification in "$home"/specifications/*.gemspec; do
        name=$(basename "$specification" .gemspec)
        [ -d "$home/gems/$name" ] || {
            mkdir -p "$home/gems/$name"
            cp -r "$work/debs/usr/lib/ruby/vendor_ruby" "$home/gems/$name/lib"
        }
    done
    rm -rf "$gems"
    mkdir "$gems"
    mv "$work/vendor" "$gems/"
    write_stamp "$gems/stamp" "$inputs"
fi
printf '%s\n' "$gems"
