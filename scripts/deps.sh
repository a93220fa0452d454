#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages that building, testing and demonstrating need ("make deps").  Needs root and the network
# only when something is missing.
#
#   scripts/deps.sh           installs what is missing
#   scripts/deps.sh --check   only says what is missing; exit code 1 if anything is
#   scripts/deps.sh --list    prints all packages
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)

packages=(
    # Compilers and what configure needs.
    gcc libc6-dev make pkg-config autoconf automake libtool
    git             # Applies the series.
    python3         # OVS's code generators, the demo, the tests.  Standard library only.

    # The library and its tests.
    liburcu-dev libcmocka-dev

    # Open vSwitch and what it links with.
    openvswitch-source
    dpdk-dev        # dpdk-testpmd, for the driver's tests.
    libdpdk-dev     # Brings libnuma, libpcap, libibverbs, libbpf, libxdp, which OVS looks for.
    libnuma-dev libpcap-dev libbpf-dev libxdp-dev
    libssl-dev libcap-ng-dev libunbound-dev
    procps iproute2 # What the tests and OVS's scripts look at processes and devices with.

    # Guests: QEMU, its firmware, what the image is packed with.  The guests' kernel is not here: the script that makes
    # the image downloads and unpacks its package, and never installs it.
    qemu-system-x86 seabios busybox-static cpio xz-utils

    spin            # make model.
    clang libclang-rt-dev   # make fuzz, make hostile.
)

missing() {
    local p
    # One call for all; a package that dpkg has never heard of prints nothing.
    declare -A have=()
    while read -r p; do
        have[$p]=1
    done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null |
             sed -n 's/ installed$//p')
    for p in "${packages[@]}"; do
        [ -n "${have[$p]:-}" ] || echo "$p"
    done
}

# The guest image needs a package that is downloaded later, so apt has to know a version that can still be had.
kernel_package=linux-image-cloud-amd64
lists_are_good() { # Younger than a day, or not needed any more.
    compgen -G "$root/build/image/cache/*.deb" >/dev/null ||
        { apt-cache show -q $kernel_package >/dev/null 2>&1 &&
          [ -n "$(find /var/lib/apt/lists/partial -maxdepth 0 -mtime -1 2>/dev/null)" ]; }
}

if [ "${1:-}" = --list ]; then
    printf '%s\n' "${packages[@]}"
    exit 0
fi

update() {
    # A third party's list that cannot be fetched is no reason to give up: the packages may be there all the same.
    "${apt[@]}" update || echo "deps: warning: apt-get update failed; going on with the lists that are there" >&2
}

export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)

mapfile -t todo < <(missing)
if [ ${#todo[@]} -eq 0 ]; then
    echo "deps: all ${#packages[@]} packages are installed"
    if [ "${1:-}" != --check ] && [ "$(id -u)" -eq 0 ] && ! lists_are_good; then
        update
    fi
    exit 0
fi

echo "deps: missing: ${todo[*]}"
[ "${1:-}" != --check ] || exit 1
if [ "$(. /etc/os-release && echo "$ID $VERSION_ID")" != "debian 12" ]; then
    echo "deps: warning: this is not Debian 12, which is what all of this is made for and tested on" >&2
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "deps: not root: run 'make deps' as root, or install the packages above" >&2
    exit 1
fi
update
"${apt[@]}" install --no-install-recommends "${todo[@]}"
