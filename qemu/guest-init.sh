#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
#
# /init of the test guests (make-image.sh puts it there): runs one command and does what is to be done after it.
#
# From the kernel's command line:
#   p2p.run=COMMAND     shell command, with every byte but A-Z a-z 0-9 . _ / : , @ + = - written as %XX
#   p2p.after=WHAT      poweroff (default), wait, shell, or restart (run the command again)
#
# The command has the second serial port, raw and without echo, as standard input and output.  Its standard error is
# the console (first serial port), where its end is noted too: "p2p: command ended, status N".

export PATH=/bin HOME=/ TERM=dumb
tty=/dev/ttyS1

/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
ln -s /run /var/run
exec </dev/null >/dev/console 2>&1
hostname guest
ip link set lo up

param()
{
    for word in $(cat /proc/cmdline); do
        case $word in
        "$1"=*) printf '%b' "$(echo "${word#*=}" | sed 's/%\([0-9A-Fa-f][0-9A-Fa-f]\)/\\x\1/g')" ;;
        esac
    done
}

name=$(param p2p.name)
[ -z "$name" ] || hostname "$name"
run=$(param p2p.run)
after=$(param p2p.after)
stty -F $tty raw -echo 115200

while :; do
    if [ -n "$run" ]; then
        echo "p2p: command starts: $run"
        setsid sh -c "$run" <$tty >$tty
        echo "p2p: command ended, status $?"
    fi
    case ${after:-poweroff} in
    poweroff)
        sync
        poweroff -f
        ;;
    shell)
        setsid -c sh -c "stty sane; exec sh -i" <$tty >$tty 2>&1
        ;;
    restart)
        sleep 0.2
        ;;
    *)
        break
        ;;
    esac
done
# The first process must not end; it also buries orphans.
while :; do
    sleep 3600 &
    wait
done
