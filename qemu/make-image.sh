#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the kernel and the initial file system of the test guests.
#
#   make-image.sh [--programs DIR]... [--add FILE]... [--refresh] OUTDIR
#
# OUTDIR/vmlinuz     Debian's kernel for virtual machines, out of its package, which is downloaded but not installed
# OUTDIR/initrd.gz   busybox, guest-init.sh as /init, and in /bin the static programs DIR/p2p-* and each FILE
# OUTDIR/cache/      the kernel package
#
# DIR: default $P2PLINK_GUEST_PROGRAMS, or build/guest of this source tree; one without p2p-* programs is no error.
# Does nothing if nothing has changed.  --refresh looks for a newer kernel package.  Needs no root.
set -euo pipefail
export LC_ALL=C
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
meta=linux-image-cloud-amd64

fail()
{
    echo "make-image.sh: $*" >&2
    exit 1
}

usage()
{
    sed -n '/^#   make-image/,/^# Does/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "$1"
}

programs=()
add=()
refresh=no
while [ $# -gt 0 ]; do
    case $1 in
    --programs) programs+=("${2:?--programs needs a directory}"); shift 2 ;;
    --add) add+=("${2:?--add needs a file}"); shift 2 ;;
    --refresh) refresh=yes; shift ;;
    -h | --help) usage 0 ;;
    -*) fail "unknown option $1; see --help" ;;
    *) break ;;
    esac
done
[ $# -eq 1 ] || usage 2 >&2
[ ${#programs[@]} -gt 0 ] || programs=("${P2PLINK_GUEST_PROGRAMS:-$here/../build/guest}")
busybox=${P2PLINK_BUSYBOX:-/bin/busybox}
[ -x "$busybox" ] || fail "$busybox is not there: install busybox-static"

mkdir -p "$1/cache"
out=$(cd "$1" && pwd)

# One at a time in one directory.
exec 9>"$out/.lock"
flock 9

files=("$busybox" "${add[@]}")
for dir in "${programs[@]}"; do
    for f in "$dir"/p2p-*; do
        [ -f "$f" ] && [ -x "$f" ] && files+=("$f")
    done
done
for f in "${files[@]}"; do
    [ -r "$f" ] || fail "cannot read $f"
    if [ "$(head -c 4 "$f" | tail -c 3)" = ELF ] && readelf -lW "$f" | grep -q INTERP; then
        fail "$f is linked dynamically and cannot run in the guest: link it with -static"
    fi
done

# The kernel package: $meta depends on the one that is current.
[ $refresh = no ] || rm -f "$out/cache/package"
package=$(cat "$out/cache/package" 2>/dev/null || true)
deb=$(find "$out/cache" -name "${package:-none}_*.deb" | head -n 1)
if [ -z "$deb" ]; then
    package=$(apt-cache depends --no-recommends --no-suggests $meta 2>/dev/null |
              sed -n 's/^ *Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1)
    [ -n "$package" ] || fail "the package lists do not know $meta: run 'apt-get update'"
    rm -f "$out"/cache/*.deb
    (cd "$out/cache" && apt-get -qq -o APT::Sandbox::User=root download "$package") ||
        fail "cannot download $package: run 'apt-get update', and check the network"
    deb=$(find "$out/cache" -name "${package}_*.deb" | head -n 1)
    [ -n "$deb" ] || fail "apt-get has downloaded no $package"
    echo "$package" >"$out/cache/package"
fi

stamp=$({ echo "$deb"; sha256sum "${BASH_SOURCE[0]}" "$here/guest-init.sh" "${files[@]}"; } | sha256sum)
if [ "$stamp" = "$(cat "$out/.stamp" 2>/dev/null)" ] && [ -s "$out/vmlinuz" ] && [ -s "$out/initrd.gz" ]; then
    exit 0
fi
rm -f "$out/.stamp"

work=$(mktemp -d "$out/.work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

dpkg-deb -x "$deb" "$work/kernel"
# Hot-plug must be in the kernel itself: the image carries no modules.
for option in HOTPLUG_PCI_ACPI HOTPLUG_PCI_PCIE DEVTMPFS SERIAL_8250_CONSOLE; do
    grep -q "^CONFIG_$option=y$" "$work"/kernel/boot/config-* ||
        fail "$package has no built-in CONFIG_$option, which the test guests need"
done

root=$work/root
mkdir -p "$root"/{bin,dev,etc,proc,run,sys,tmp,var}
for f in "${files[@]}"; do
    install -m 755 "$f" "$root/bin/"
done
[ "$(basename "$busybox")" = busybox ] || mv "$root/bin/$(basename "$busybox")" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
done
install -m 755 "$here/guest-init.sh" "$root/init"

(cd "$root" && find . | sort | "$busybox" cpio -o -H newc -R 0:0 2>/dev/null | gzip -1n) >"$work/initrd.gz"
mv "$work"/kernel/boot/vmlinuz-* "$out/vmlinuz"
mv "$work/initrd.gz" "$out/initrd.gz"
echo "$stamp" >"$out/.stamp"
size=$(stat -c %s "$out/initrd.gz")
echo "make-image.sh: $package, $((${#files[@]} - 1)) programs, initrd of $((size / 1024)) kB in $out"
