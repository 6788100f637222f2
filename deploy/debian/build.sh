#!/bin/bash
# Makes a Debian package of an installation: the same files give the same bytes.
#
# usage: build.sh PREFIX FOLDER
#
# PREFIX is a folder that `make install PREFIX=…` filled; prints the package's path.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
prefix=$(realpath "$1")
mkdir -p "$2"
folder=$(realpath "$2")
source=$here/../..

command -v dpkg-deb >/dev/null || {
    echo "error: cannot find \`dpkg-deb\`" >&2
    echo "hint: apt-get install dpkg" >&2
    exit 1
}
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$source/Cargo.toml")
architecture=$(dpkg --print-architecture)
# Of the last commit, or else of 1970, if nobody says otherwise.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$source" log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
umask 022
mkdir -p "$root/usr/share/doc/wharf" "$root/usr/share/lintian/overrides" "$root/DEBIAN"
cp -a "$prefix/bin" "$prefix/libexec" "$prefix/share" "$root/usr/"
cp "$here/copyright" "$root/usr/share/doc/wharf/"
cp "$here/lintian-overrides" "$root/usr/share/lintian/overrides/wharf"
gzip -9n <"$source/CHANGELOG.md" >"$root/usr/share/doc/wharf/NEWS.gz"
{
    printf 'wharf (%s) unstable; urgency=medium\n\n  * See NEWS.gz.\n\n' "$version"
    printf ' -- The wharf authors <wharf@localhost>  %s\n' "$(LC_ALL=C date -u -d "@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')"
} | gzip -9n >"$root/usr/share/doc/wharf/changelog.gz"
chmod -R u=rwX,go=rX "$root"

size=$(du -k -s --apparent-size "$root/usr" | cut -f1)
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@SIZE@/$size/" \
    "$here/control" >"$root/DEBIAN/control"
(cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
for script in postinst prerm postrm; do
    install -m 755 "$here/$script" "$root/DEBIAN/$script"
done
package=$folder/wharf_${version}_$architecture.deb
dpkg-deb -Zxz --root-owner-group --build "$root" "$package" >&2
printf '%s\n' "$package"
