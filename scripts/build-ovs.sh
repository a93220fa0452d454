#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds Open vSwitch from Debian's openvswitch-source package.  Called by the Makefile, or by hand:
#
#   scripts/build-ovs.sh [FLAVOUR]      dpdk     patched, with DPDK      build/ovs          (default)
#                                       nodpdk   patched, without DPDK   build/ovs-nodpdk
#                                       vanilla  unpatched, with DPDK    build/ovs-vanilla  (to compare with)
#   scripts/build-ovs.sh source         only (re)makes build/ovs-src, the patched source
#   scripts/build-ovs.sh export         writes what has been committed to build/ovs-src to ovs-patch/
#
# Environment: BUILD      where the build trees and lib/libp2plink.so lie (build)
#              SANITIZE   for example "address,undefined": builds with these sanitizers
#              JOBS       how many compilers at a time (number of CPUs)
#              PREFIX     where "make install" in the build tree puts things (/usr/local)
#              OVS_TARBALL, CC, CFLAGS
#
# The patched source is a git tree in build/ovs-src whose repository lies beside it, in build/ovs-src.git: OVS's
# makefiles behave differently when they find a .git.  When the series changes, it is applied in a worktree of its own
# first; only when all of it applies, build/ovs-src is moved there, and git then touches only the files that differ, so
# that make rebuilds only what the change affects.  To work on the series there, commit to it
# (git --git-dir=build/ovs-src.git --work-tree=build/ovs-src commit) and export.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
flavour=${1:-dpdk}
BUILD=${BUILD:-$root/build}
JOBS=${JOBS:-$(nproc)}
OVS_TARBALL=${OVS_TARBALL:-/usr/src/openvswitch/openvswitch.tar.gz}
SANITIZE=${SANITIZE:-}
prefix=${PREFIX:-/usr/local}
src_base=$root/build            # Sources do not depend on the sanitizers: all variants share them.
patches=("$root"/ovs-patch/*.patch)
[ -e "${patches[0]}" ] || patches=()

# All programs that this project uses; "make install" in the build directory builds the others.
programs="vswitchd/ovs-vswitchd ovsdb/ovsdb-server ovsdb/ovsdb-tool ovsdb/ovsdb-client utilities/ovs-vsctl
          utilities/ovs-ofctl utilities/ovs-appctl utilities/ovs-dpctl utilities/ovs-tcpdump utilities/ovs-pcap
          utilities/ovs-ctl utilities/ovs-lib"

say() { echo "build-ovs: $*"; }
die() { echo "build-ovs: $*" >&2; exit 1; }

# Neither the user's git configuration nor a repository that this runs inside of must have a say.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
# The caller's make flags (-n, -k, a job server that is not ours) are not for OVS's makefiles.
unset MAKEFLAGS MFLAGS MAKELEVEL

# Runs a command with its output in a log, and shows the log's end if it fails.
logged() { # LOG COMMAND...
    local log=$1
    shift
    if ! "$@" >>"$log" 2>&1; then
        echo "--- last lines of $log:" >&2
        tail -n 40 "$log" >&2
        die "'$1' failed; all of its output is in $log"
    fi
}

unpack() { # DIRECTORY
    [ -e "$OVS_TARBALL" ] || die "$OVS_TARBALL is missing: 'make deps' installs openvswitch-source"
    rm -rf "$1"
    mkdir -p "$1"
    tar -xzf "$OVS_TARBALL" -C "$1" --strip-components=1
}

# Runs git on the patched source.
src_git() {
    git --git-dir="$src_base/ovs-src.git" --work-tree="$src_base/ovs-src" \
        -c user.name=p2plink -c user.email=p2plink@localhost -c commit.gpgSign=false -c gc.auto=0 "$@"
}

# What the source is made of: the tarball and the series.
source_id() {
    { sha256sum <"$OVS_TARBALL"; cat /dev/null ${patches[@]+"${patches[@]}"} | sha256sum; } | sha256sum | cut -d' ' -f1
}

# Unpacks the tarball and makes it the repository's first commit.
init_source() {
    rm -rf "$src_base/ovs-src.git" "$src_base/ovs-src.id"
    say "unpacking $OVS_TARBALL into ${src_base#"$root"/}/ovs-src"
    unpack "$src_base/ovs-src"
    git init -q --bare --initial-branch=main "$src_base/ovs-src.git"
    src_git config core.bare false
    # What autoconf, automake and libtool make again belongs to nobody's patch.
    cat >"$src_base/ovs-src.git/info/exclude" <<'LIST'
Makefile.in
aclocal.m4
autom4te.cache/
config.h.in
config.h.in~
configure
configure~
manpages.mk
/build-aux/ar-lib
/build-aux/compile
/build-aux/config.guess
/build-aux/config.sub
/build-aux/depcomp
/build-aux/install-sh
/build-aux/ltmain.sh
/build-aux/missing
/build-aux/test-driver
/m4/libtool.m4
/m4/lt*.m4
/package.m4
/tests/package.m4
/tests/testsuite
/tests/*-testsuite
*.pyc
__pycache__/
LIST
    src_git add -A
    src_git commit -q -m "Open vSwitch, as Debian's openvswitch-source has it."
    src_git branch -q vanilla
}

# Does build/ovs-src hold what the former run left there?
source_is_ours() {
    [ "$(src_git rev-parse -q --verify HEAD)" = "$(cat "$src_base/ovs-src.git/applied")" ] &&
        src_git diff --quiet HEAD
}

# Brings build/ovs-src to the tarball plus the series.  The id file is there only while the source is whole.
make_source() {
    local src=$src_base/ovs-src id_file=$src_base/ovs-src.id id tarball tmp commit fresh=false
    local advice="export them (scripts/build-ovs.sh export), or remove build/ovs-src*, then try again"

    mkdir -p "$src_base"
    exec 9>"$src_base/ovs-src.lock"
    flock 9

    [ -e "$OVS_TARBALL" ] || die "$OVS_TARBALL is missing: 'make deps' installs openvswitch-source"
    tarball=$(sha256sum <"$OVS_TARBALL")
    id=$(source_id)
    if [ -e "$id_file" ] && [ "$(cat "$id_file")" = "$id" ]; then
        return
    fi
    if [ ! -e "$id_file" ]; then
        fresh=true # A former attempt ended half-way, or there was none.
    elif [ "$(cat "$src_base/ovs-src.git/tarball")" != "$tarball" ]; then
        source_is_ours || die "the tarball is a new one, but build/ovs-src has changes of yours: $advice"
        fresh=true
    fi
    if $fresh; then
        init_source
        echo "$tarball" >"$src_base/ovs-src.git/tarball"
    fi

    tmp=$src_base/ovs-src.tmp
    rm -rf "$tmp"
    src_git worktree prune
    src_git worktree add -q --detach "$tmp" vanilla
    if [ ${#patches[@]} -gt 0 ]; then
        say "applying ${#patches[@]} patches"
        # git finds the repository through the worktree's .git file.
        if ! git -C "$tmp" -c user.name=p2plink -c user.email=p2plink@localhost -c commit.gpgSign=false \
                 am -q --committer-date-is-author-date "${patches[@]}"; then
            rm -rf "$tmp"
            die "the series in ovs-patch/ does not apply to $OVS_TARBALL"
        fi
    else
        say "ovs-patch/ holds no patches: building OVS as it is"
    fi
    commit=$(git -C "$tmp" rev-parse HEAD)
    rm -rf "$tmp"
    src_git worktree prune
    # Somebody's work is kept from harm, unless the series says the same by now.
    $fresh || source_is_ours || src_git diff --quiet "$commit" ||
        die "build/ovs-src has changes that ovs-patch/ does not have: $advice"

    rm -f "$id_file"
    src_git reset -q --hard "$commit"
    echo "$commit" >"$src_base/ovs-src.git/applied"
    if $fresh; then
        # The series changes what configure is made from.  Later changes of that kind are noticed by OVS's makefiles.
        say "making configure"
        rm -f "$src_base/ovs-src.log"
        (cd "$src" && logged "$src_base/ovs-src.log" ./boot.sh)
    fi
    echo "$id" >"$id_file"
}

# Writes what has been committed to build/ovs-src back to ovs-patch/.
export_source() {
    src_git diff --quiet HEAD || die "build/ovs-src has changes that are not committed"
    rm -f ${patches[@]+"${patches[@]}"}
    src_git format-patch -q --zero-commit --no-signature -o "$root/ovs-patch" vanilla
}

make_vanilla_source() {
    mkdir -p "$src_base"
    exec 9>"$src_base/ovs-vanilla-src.lock"
    flock 9
    if [ -e "$src_base/ovs-vanilla-src.id" ] &&
       [ "$(cat "$src_base/ovs-vanilla-src.id")" = "$(sha256sum <"$OVS_TARBALL")" ]; then
        return
    fi
    say "unpacking $OVS_TARBALL into ${src_base#"$root"/}/ovs-vanilla-src"
    unpack "$src_base/ovs-vanilla-src"
    sha256sum <"$OVS_TARBALL" >"$src_base/ovs-vanilla-src.id"
}

patched=true
case $flavour in
dpdk)
    dir=$BUILD/ovs
    options=(--with-dpdk=shared)
    ;;
nodpdk)
    dir=$BUILD/ovs-nodpdk
    options=()
    ;;
vanilla)
    dir=$BUILD/ovs-vanilla
    options=(--with-dpdk=shared)
    patched=false
    ;;
source)
    make_source
    exit 0
    ;;
export)
    export_source
    exit 0
    ;;
*)
    die "unknown flavour '$flavour': give dpdk, nodpdk, vanilla, source or export"
    ;;
esac

cflags=${CFLAGS:--g -O2}
ldflags=
if $patched; then
    make_source
    src=$src_base/ovs-src
    options+=(--with-p2plink)
    # The library that lies beside the build tree (build/lib), or beside the installed programs (PREFIX/lib), in this
    # order: a program is found at build/ovs/vswitchd/ or PREFIX/sbin/.  One "$" is make's, the backslash is the
    # shell's.
    ldflags="-Wl,-rpath,\\\$\$ORIGIN/../lib:\\\$\$ORIGIN/../../lib"
    export PKG_CONFIG_PATH=$BUILD/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
    [ -e "$BUILD/pkgconfig/libp2plink.pc" ] || [ ${#patches[@]} -eq 0 ] ||
        die "$BUILD/pkgconfig/libp2plink.pc is missing: 'make lib' first"
else
    make_vanilla_source
    src=$src_base/ovs-vanilla-src
fi
if [ -n "$SANITIZE" ]; then
    cflags="-g -O1 -fno-omit-frame-pointer -fsanitize=$SANITIZE"
    ldflags="${ldflags:+$ldflags }-fsanitize=$SANITIZE"
    # Programs that run during the build may leak as they like.
    export ASAN_OPTIONS=detect_leaks=0
fi

# Configured already, the same way, from the same place?
recipe="$src ${options[*]} $prefix $cflags $ldflags ${CC:-gcc}"
mkdir -p "$dir"
if [ ! -e "$dir/configured" ] || [ "$(cat "$dir/configured")" != "$recipe" ]; then
    say "configuring ${dir#"$root"/}: ${options[*]}"
    rm -rf "$dir"
    mkdir -p "$dir"
    # PYTHON3: the system's, which is what Debian's packages are for; another one that is first in PATH may be anything.
    (cd "$dir" && logged "$dir/configure.log" "$src/configure" "${options[@]}" \
        --prefix="$prefix" --localstatedir=/var --sysconfdir=/etc \
        PYTHON3=/usr/bin/python3 CC="${CC:-gcc}" CFLAGS="$cflags" LDFLAGS="$ldflags")
    echo "$recipe" >"$dir/configured"
fi

say "building ${dir#"$root"/} with $JOBS jobs"
rm -f "$dir/make.log"
# OVS's headers that are generated are prerequisites of "all" only, so they are asked for first.
export BUILT_FIRST='p2plink-first: config.h $(BUILT_SOURCES)
p2plink-first: $(srcdir)/python/ovs/version.py $(srcdir)/python/ovs/dirs.py'
logged "$dir/make.log" bash -c 'make -C "$1" -j "$2" -f Makefile -f - p2plink-first <<<"$BUILT_FIRST"' - "$dir" "$JOBS"
# shellcheck disable=SC2086  # A list.
logged "$dir/make.log" make -C "$dir" -j "$JOBS" $programs

# Whoever starts ovsdb-server looks for the schema beside the programs.
ln -sfn "$src/vswitchd/vswitch.ovsschema" "$dir/vswitchd/vswitch.ovsschema"
say "done: ${dir#"$root"/}"
