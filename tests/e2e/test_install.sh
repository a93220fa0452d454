#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# "make install" into a staging folder, as a package builder would: what is there, what the library exports, whether a
# program of somebody else's builds with it by pkg-config, whether the installed programs find their library, and
# whether "make uninstall" takes all of it away again.
set -uo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
if [ "${P2P_BUILD:-$root/build}" != "$root/build" ]; then
    echo "1..0 # SKIP what is installed is the build without sanitizers"
    exit 0
fi
unset MAKEFLAGS MFLAGS MAKELEVEL
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
stage=$dir/stage
lib=$stage/usr/lib

n=0
failed=0
check() { # NAME COMMAND...
    local name=$1 out
    shift
    n=$((n + 1))
    if out=$("$@" 2>&1); then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        # shellcheck disable=SC2001  # Each line of several.
        sed 's/^/# /' <<<"$out"
        failed=1
    fi
}

installs() { make install DESTDIR="$stage" PREFIX=/usr; }

names_are_right() {
    [ "$(readlink "$lib/libp2plink.so")" = libp2plink.so.0 ] &&
        [ "$(readlink "$lib/libp2plink.so.0")" = libp2plink.so.0.1.0 ] &&
        readelf -d "$lib/libp2plink.so.0.1.0" | grep -F 'soname: [libp2plink.so.0]'
}

headers_are_there() {
    diff -r libp2plink/include/p2plink "$stage/usr/include/p2plink"
}

# Every name that programs can bind to is public and has a version.
exports_are_public() {
    local exported
    exported=$(nm -D --defined-only --format=posix "$lib/libp2plink.so" | awk '$2 != "A" { print $1 }')
    grep -q '^p2p_version@@LIBP2PLINK_0.1$' <<<"$exported" || { echo "no p2p_version"; return 1; }
    ! grep -v '^p2p_[a-z0-9_]*@@LIBP2PLINK_[0-9.]*$' <<<"$exported"
}

# Every function that the headers promise is there.
promises_are_kept() {
    local name
    for name in $(cat libp2plink/include/p2plink/*.h | tr '\n' ' ' | grep -o 'P2P_EXPORT [^;(]*(' |
                  sed -n 's/.*[ *]\(p2p_[a-z0-9_]*\)($/\1/p'); do
        nm -D --defined-only "$lib/libp2plink.so" | grep -q " T $name@" || { echo "$name is not exported"; return 1; }
    done
}

# A program of somebody else's, who has the staged tree only.
pkgconf() {
    PKG_CONFIG_LIBDIR=$lib/pkgconfig:$(pkg-config --variable pc_path pkg-config) PKG_CONFIG_SYSROOT_DIR=$stage \
        PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1 pkg-config "$@" libp2plink
}
cat >"$dir/hello.c" <<'C'
#include <stdio.h>
#include <p2plink/control.h>
#include <p2plink/detector.h>
#include <p2plink/switch.h>
#include <p2plink/vnf.h>

int main(void)
{
    struct p2p_port_config cfg = { .name = "nobody", .attach = P2P_ATTACH_SOCKET, .socket = "/nonexistent/socket" };
    struct p2p_port *port;
    struct p2p_error err = { "" };

    if (!p2p_port_open(&cfg, &port, &err) || !err.text[0]) {
        return 1;
    }
    puts(p2p_version());
    return 0;
}
C
builds_shared() {
    # shellcheck disable=SC2046
    gcc -Wall -Werror -o "$dir/hello" "$dir/hello.c" $(pkgconf --cflags --libs) &&
        [ "$(LD_LIBRARY_PATH=$lib "$dir/hello")" = "$(pkgconf --modversion)" ]
}
builds_static() {
    # shellcheck disable=SC2046
    gcc -Wall -Werror -static -o "$dir/hello-static" "$dir/hello.c" $(pkgconf --static --cflags --libs) &&
        [ "$("$dir/hello-static")" = "$(pkgconf --modversion)" ]
}

programs_find_library() {
    local program
    for program in "$stage"/usr/bin/p2p* "$stage"/usr/sbin/p2p*; do
        ! ldd "$program" | grep -F 'not found' || { echo "$program"; return 1; }
        ! ldd "$program" | grep 'libp2plink' | grep -vF "$stage" || { echo "$program uses another library"; return 1; }
        ! readelf -d "$program" | grep -F "$root" || { echo "$program knows where it was built"; return 1; }
    done
}

uninstalls() {
    make uninstall DESTDIR="$stage" PREFIX=/usr && ! find "$stage" ! -type d | grep .
}

builds_nothing_twice() {
    local out
    out=$(make all 2>&1) && [[ $out =~ ^(make: Nothing to be done for \'all\'\.)?$ ]] || { echo "$out"; return 1; }
}

echo 1..10
check "make install" installs
check "library's file names and soname" names_are_right
check "public headers" headers_are_there
check "only public, versioned names are exported" exports_are_public
check "every function of the headers is exported" promises_are_kept
check "a program builds with pkg-config and runs" builds_shared
check "a static program builds with pkg-config and runs" builds_static
check "programs find the library beside them" programs_find_library
check "make uninstall leaves nothing" uninstalls
check "a second make all does nothing" builds_nothing_twice
exit $failed
