#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Starts a test guest made by make-image.sh, and stays until it is over.  A signal ends the guest; nothing is left.
#
#   start-guest.sh --image DIR --dir RUNDIR --name NAME [OPTION]... [-- QEMU-OPTION...]
#   start-guest.sh --image DIR --probe
#
#   --run COMMAND      shell command that the guest runs, with the second serial port as standard input and output
#   --after WHAT       then: poweroff (default), wait, shell, restart (run it again)
#   --machine pc|q35   default pc: i440fx, hot-plugs anything into any of some 28 slots
#   --root-ports N     q35: how many devices can be hot-plugged (default 8)
#   --window MB        q35: how large each of them can be (default 32)
#   --accel auto|kvm|tcg   default auto (or $P2PLINK_ACCEL): KVM if this kernel boots with it here, else TCG
#   --memory MB        default 192
#   --append TEXT      further parameters for the guest's kernel
#   --reboot           let the guest reboot; without it a reboot (also after a panic) ends the guest
#   --probe            only say which of kvm and tcg 'auto' is
#
# In RUNDIR, while the guest runs:
#   NAME.qmp   QMP, for p2plinkd: QEMU serves one client at a time
#   NAME.tty   the second serial port, a unix stream socket; who connects must read, or the command stops at its output
# and also afterwards:
#   NAME.console   what the kernel and the command's standard error said
#   NAME.out       what the command wrote while nobody was connected to NAME.tty; what it writes to a client that does
#                  not keep up appears here too, but with characters doubled (QEMU logs what it has to send again)
# The exit status is QEMU's, 0 also after a panic, or 0 after SIGTERM or SIGINT to this script.  How the command ended
# is in NAME.console: "p2p: command ended, status N".
set -euo pipefail
export LC_ALL=C

qemu=${P2PLINK_QEMU:-qemu-system-x86_64}
image='' dir='' name='' run='' after=poweroff machine=pc accel=${P2PLINK_ACCEL:-auto} memory=192 reboot=no probe=no
root_ports=8 window=32 parameters=
# A kernel that needs longer to boot with KVM is better off with TCG, which takes two seconds.
probe_limit=10

fail()
{
    echo "start-guest.sh: $*" >&2
    exit 1
}

usage()
{
    sed -n '/^#   start-guest/,/^set -e/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit "$1"
}

need()
{
    [ $# -ge 2 ] || fail "$1 needs a value; see --help"
}

while [ $# -gt 0 ]; do
    case $1 in
    --image) need "$@"; image=$2; shift 2 ;;
    --dir) need "$@"; dir=$2; shift 2 ;;
    --name) need "$@"; name=$2; shift 2 ;;
    --run) need "$@"; run=$2; shift 2 ;;
    --after) need "$@"; after=$2; shift 2 ;;
    --machine) need "$@"; machine=$2; shift 2 ;;
    --accel) need "$@"; accel=$2; shift 2 ;;
    --memory) need "$@"; memory=$2; shift 2 ;;
    --root-ports) need "$@"; root_ports=$2; shift 2 ;;
    --window) need "$@"; window=$2; shift 2 ;;
    --append) need "$@"; parameters=$2; shift 2 ;;
    --reboot) reboot=yes; shift ;;
    --probe) probe=yes; shift ;;
    -h | --help) usage 0 ;;
    --) shift; break ;;
    *) fail "unknown option $1; see --help" ;;
    esac
done

[ -n "$image" ] || usage 2 >&2
[ -s "$image/vmlinuz" ] && [ -s "$image/initrd.gz" ] || fail "no guest image in $image: make one with make-image.sh"
command -v "$qemu" >/dev/null || fail "$qemu is not there: install qemu-system-x86"

# Any byte that the kernel's command line, or the guest's shell on its way to 'sh -c', would take for something else.
encode()
{
    local i c
    for ((i = 0; i < ${#1}; i++)); do
        c=${1:i:1}
        case $c in
        [A-Za-z0-9._/:,@+=-]) printf %s "$c" ;;
        *) printf '%%%02X' "$(($(printf '%d' "'$c") & 255))" ;;
        esac
    done
}

# Boots the image with KVM and says "kvm" if its command has run in time.
try_kvm()
{
    [ -c /dev/kvm ] && [ -r /dev/kvm ] && [ -w /dev/kvm ] || return 1
    timeout -k 1 $probe_limit setpriv --pdeathsig KILL "$qemu" -nodefaults -no-user-config -display none -no-reboot \
        -machine pc -accel kvm -cpu host -m 192 -kernel "$image/vmlinuz" -initrd "$image/initrd.gz" \
        -append "console=ttyS0 quiet panic=-1 p2p.run=true" -serial stdio -serial null </dev/null 2>/dev/null |
        grep -q "p2p: command ended, status 0"
}

# The verdict is good for this boot of the machine and this kernel.
probe_accel()
{
    local key verdict
    key="$(cat /proc/sys/kernel/random/boot_id) $(stat -c '%s %Y' "$image/vmlinuz")"
    exec 8>"$image/.accel.lock" || fail "cannot write to $image, where the verdict on KVM is kept"
    flock 8
    if [ "$(head -n 1 "$image/.accel" 2>/dev/null)" = "$key" ]; then
        verdict=$(tail -n 1 "$image/.accel")
    else
        verdict=tcg
        if try_kvm; then
            verdict=kvm
        fi
        printf '%s\n%s\n' "$key" $verdict >"$image/.accel.new"
        mv "$image/.accel.new" "$image/.accel"
    fi
    exec 8>&-
    echo $verdict
}

if [ $probe = yes ]; then
    probe_accel
    exit 0
fi

case $name in
'' | *[!A-Za-z0-9._-]*) fail "--name '$name': a name of letters, digits, '.', '_' and '-' is needed" ;;
esac
[ -d "$dir" ] || fail "--dir '$dir' is not a directory"
case $after in poweroff | wait | shell | restart) ;; *) fail "--after $after: poweroff, wait, shell or restart" ;; esac
dir=$(cd "$dir" && pwd)
base=$dir/$name
[ ${#base} -le 100 ] || fail "$base is too long for a unix socket's name: use a shorter --dir or --name"

[ "$accel" != auto ] || accel=$(probe_accel)
case $accel in
kvm) accel_options=(-accel kvm -cpu host) ;;
# QEMU would reserve up to 1 GB for translated code; a small guest fills a fraction of this.
tcg) accel_options=(-accel tcg,thread=multi,tb-size=128 -cpu max) ;;
*) fail "--accel $accel: auto, kvm or tcg" ;;
esac

case $machine in
pc) machine_options=(-machine pc) ;;
q35)
    machine_options=(-machine q35)
    # The port's number is its chassis and slot too, which must be unique.  The guest's kernel does not enlarge the
    # window that the firmware has given to a root port, 2 MB unless told otherwise.  A BAR lies at a multiple of its
    # size, the window does not: twice the size holds it in any case.
    for ((i = 1; i <= root_ports; i++)); do
        machine_options+=(-device "pcie-root-port,id=rp$i,chassis=$i,slot=$i,pref64-reserve=$((2 * window))M")
    done
    ;;
*) fail "--machine $machine: pc or q35" ;;
esac

# A busy host makes the kernel's tests of timer and clock fail, which says nothing about them.
append="console=ttyS0 quiet panic=-1 no_timer_check tsc=nowatchdog $parameters"
append+=" p2p.name=$name p2p.after=$after p2p.run=$(encode "$run")"
[ ${#append} -lt 2000 ] ||
    fail "--run: the command is too long for the kernel's command line (${#append} bytes of 2000)"
reboot_options=(-no-reboot)
[ $reboot = no ] || reboot_options=()

exec 7>>"$base.console" || fail "cannot write to $base.console"
flock -n 7 || fail "a guest '$name' is running in $dir: use another --name"
rm -f "$base.qmp" "$base.tty"

qemu_pid=
cleanup()
{
    trap '' HUP INT TERM
    if [ -n "$qemu_pid" ]; then
        kill -TERM "$qemu_pid" 2>/dev/null || true
        for ((i = 0; i < 50; i++)); do
            kill -0 "$qemu_pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$qemu_pid" 2>/dev/null || true
        wait "$qemu_pid" 2>/dev/null || true
    fi
    rm -f "$base.qmp" "$base.tty"
}
trap cleanup EXIT
trap 'exit 0' INT TERM
trap 'exit 129' HUP

# If this script is killed the hard way, the kernel ends QEMU.
setpriv --pdeathsig TERM "$qemu" -name "$name" -nodefaults -no-user-config -display none "${reboot_options[@]}" \
    "${machine_options[@]}" "${accel_options[@]}" -smp 1 -m "$memory" \
    -kernel "$image/vmlinuz" -initrd "$image/initrd.gz" -append "$append" \
    -chardev "file,id=console,path=$base.console" -serial chardev:console \
    -chardev "socket,id=tty,path=$base.tty,server=on,wait=off,logfile=$base.out,logappend=off" -serial chardev:tty \
    -qmp "unix:$base.qmp,server=on,wait=off" "$@" </dev/null 7>&- &
qemu_pid=$!
echo "start-guest.sh: $name: accel=$accel machine=$machine pid=$qemu_pid qmp=$base.qmp tty=$base.tty"

status=0
wait "$qemu_pid" || status=$?
qemu_pid=
exit $status
