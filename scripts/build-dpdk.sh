#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Gets what Debian's DPDK packages leave out: the headers that drivers are written against, and the examples.  Called by
# guest/dpdk/build.mk, or by hand:
#
#   scripts/build-dpdk.sh source       build/dpdk/src and build/dpdk/include, of the version of libdpdk-dev (default)
#   scripts/build-dpdk.sh examples     build/dpdk/examples/: l2fwd, l3fwd and l3fwd-power, unmodified, from the same
#                                      source
#
# Environment: DPDK_CACHE   where the source package is kept (build/dpdk/cache); nothing is downloaded if it is there
#              CC
#
# The source package is what apt says it is, signatures and all: apt is given a list of sources made of the machine's
# own (the entry that libdpdk-dev comes from), and folders of its own for what it downloads.  Needs no root.
set -euo pipefail
export LC_ALL=C
umask 022

root=$(cd "$(dirname "$0")/.." && pwd)
out=$root/build/dpdk
cache=${DPDK_CACHE:-$out/cache}
CC=${CC:-gcc}

say() { echo "build-dpdk: $*"; }
die() { echo "build-dpdk: $*" >&2; exit 1; }

# Headers for drivers, by their place in the source; all others are in libdpdk-dev.
headers="drivers/bus/vdev/bus_vdev_driver.h lib/eal/include/bus_driver.h lib/eal/include/dev_driver.h
         lib/ethdev/ethdev_driver.h lib/ethdev/ethdev_vdev.h"

installed=$(dpkg-query -W -f '${db:Status-Status} ${source:Package} ${source:Version}' libdpdk-dev 2>/dev/null || true)
read -r status package version <<<"$installed"
[ "${status:-}" = installed ] || die "libdpdk-dev is not installed: 'make deps' installs it"
dsc=${package}_${version#*:}.dsc

# Prints the files of the machine's own sources in which the entry stands that libdpdk-dev comes from.
entries() {
    apt-cache madison libdpdk-dev | awk -v v="$version" '$3 == v { print $5, $6 }' | while read -r site place; do
        apt-get indextargets --format '$(SITE) $(RELEASE)/$(COMPONENT) $(SOURCESENTRY)' "Created-By: Packages" |
            awk -v s="$site" -v p="$place" '$1 == s && $2 == p { sub(/:[0-9]+$/, "", $3); print $3 }'
    done | sort -u
}

download() {
    local private file n=0 apt
    private=$(mktemp -d "$out/apt.XXXXXX")
    # shellcheck disable=SC2064  # Now.
    trap "rm -rf '$private'" EXIT
    mkdir -p "$private"/{parts,lists/partial,archives/partial}
    for file in $(entries); do
        n=$((n + 1))
        case $file in
        *.sources) sed 's/^Types:.*/Types: deb-src/' "$file" >"$private/parts/$n.sources" ;;
        *) sed -n 's/^deb\([[:blank:]]\)/deb-src\1/p' "$file" >"$private/parts/$n.list" ;;
        esac
    done
    [ $n -gt 0 ] || die "apt does not know where libdpdk-dev $version comes from: run 'apt-get update', and install" \
        "the version that is current"
    apt=(apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$private/parts"
         -o Dir::State::Lists="$private/lists" -o Dir::Cache="$private" -o Dir::Cache::Archives="$private/archives"
         -o Dir::Cache::PkgCache= -o Dir::Cache::SrcPkgCache= -o APT::Sandbox::User= -o Acquire::Languages=none
         -o Acquire::Retries=3 -o Acquire::IndexTargets::deb-src::Contents-deb::DefaultEnabled=false)
    say "downloading the source of $package $version"
    # A list that cannot be fetched may be one that is not needed.
    "${apt[@]}" update || say "apt-get update failed; going on with what it has fetched"
    mkdir -p "$cache"
    (cd "$cache" && "${apt[@]}" source --download-only --only-source "$package=$version") ||
        die "cannot download the source package $package $version: is the network there?  If the archive has a newer" \
            "version by now, upgrade libdpdk-dev"
    rm -rf "$private"
    trap - EXIT
}

# The names of the files that the .dsc lists, with their sums.
dsc_sums() {
    sed -n '/^Checksums-Sha256:/,/^[^ ]/s/^ \([0-9a-f]*\) [0-9]* \(.*\)/\1  \2/p' "$cache/$dsc"
}

make_source() {
    local id headers_id file work upstream debian
    mkdir -p "$out"
    exec 9>"$out/lock"
    flock 9
    id="$version $(sha256sum <"${BASH_SOURCE[0]}")"
    if [ "$(cat "$out/src.id" 2>/dev/null)" = "$id" ]; then
        return
    fi
    [ -e "$cache/$dsc" ] || download
    (cd "$cache" && dsc_sums | grep -v '\.asc$' | sha256sum --quiet -c) ||
        die "what is in $cache is not what $dsc lists: remove it, and try again"
    upstream=$(dsc_sums | sed -n 's/.*  \(.*\.orig\.tar\.[a-z0-9]*\)$/\1/p')
    debian=$(dsc_sums | sed -n 's/.*  \(.*\.debian\.tar\.[a-z0-9]*\)$/\1/p')

    say "unpacking $upstream into ${out#"$root"/}/src"
    rm -rf "$out/src" "$out/src.tmp" "$out/include" "$out/src.id"
    work=$out/src.tmp
    mkdir -p "$work"
    tar -xf "$cache/$upstream" -C "$work" --strip-components=1 --wildcards \
        '*/lib' '*/drivers/bus/vdev' '*/examples' '*/config' '*/VERSION'
    tar -xf "$cache/$debian" -C "$work"
    for file in $(grep -v '^#' "$work/debian/patches/series" 2>/dev/null || true); do
        # Only what has been unpacked.
        (cd "$work" && GIT_CEILING_DIRECTORIES=$out git apply --include='lib/*' --include='drivers/bus/vdev/*' \
            --include='examples/*' "debian/patches/$file") || die "Debian's patch $file does not apply"
    done
    mkdir -p "$out/include"
    for file in $headers; do
        cp "$work/$file" "$out/include/"
    done
    mv "$work" "$out/src"
    echo "$id" >"$out/src.id"
}

make_examples() {
    local name sources
    mkdir -p "$out/examples"
    for name in l2fwd l3fwd l3fwd-power; do
        if [ "$out/examples/$name" -nt "$out/src.id" ]; then
            continue
        fi
        # As the example's own Makefile says, with its list of sources.
        sources=$(sed -n 's/^SRCS-y *:\{0,1\}+\{0,1\}= *//p' "$out/src/examples/$name/Makefile")
        say "building ${out#"$root"/}/examples/$name"
        # shellcheck disable=SC2046,SC2086  # Lists.
        (cd "$out/src/examples/$name" && $CC -O3 -w -DALLOW_EXPERIMENTAL_API -I../common \
            $(pkg-config --cflags libdpdk) $sources -o "$out/examples/$name.tmp" $(pkg-config --libs libdpdk)) ||
            die "$name does not build"
        mv "$out/examples/$name.tmp" "$out/examples/$name"
    done
}

case ${1:-source} in
source) make_source ;;
examples) make_source; make_examples ;;
*) die "unknown target '$1': give source or examples" ;;
esac
