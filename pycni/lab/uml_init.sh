#!/bin/bash
# PID 1 inside user-mode Linux, started by pycni.lab.uml. The root is the host's / (hostfs).
#
# Builds a root of its own: the host's files below, memory above, so that writes vanish with the
# guest, and private /run, /tmp and /dev. Then runs one command and powers off.
#
# $D, on the kernel's command line: a host directory with  env (settings), cmd (the command),
# and for the answer  started, rc, init.log.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
for word in $(</proc/cmdline); do
    case $word in pycni.dir=*) D=${word#*=} ;; esac
done
mount -t sysfs sys /sys
# WRITABLE, VISIBLE: arrays of directories; MODULES: kernel modules; CHANNEL: a device or empty.
. "$D/env"
kernel=$(uname -r)
modules=/usr/lib/uml/modules/$kernel
R=/mnt/root

power_off() { echo o >/proc/sysrq-trigger; sleep 10; }
fail() { echo "pycni: $*" >/dev/console; power_off; }

# What the guest writes goes into a tmpfs; index numbers may repeat (xino=off), since hostfs and
# tmpfs have no room in theirs to tell the layers apart.
overlay() { # overlay LOWER TARGET
    layer=$((${layer:-0} + 1))
    mkdir -p "/mnt/layer$layer/upper" "/mnt/layer$layer/work" "$2" &&
        mount -t overlay -o \
            "lowerdir=$1,upperdir=/mnt/layer$layer/upper,workdir=/mnt/layer$layer/work,xino=off" \
            overlay "$2"
}

make_devices() {
    mount -t devtmpfs dev $R/dev
    mkdir -p $R/dev/pts $R/dev/shm $R/dev/net
    mount -t devpts -o mode=620,ptmxmode=666 devpts $R/dev/pts
    mount -t tmpfs shm $R/dev/shm
    chmod 1777 $R/dev/shm
    [ -e $R/dev/net/tun ] || mknod $R/dev/net/tun c 10 200
    ln -sfn /proc/self/fd $R/dev/fd
    for n in 0:stdin 1:stdout 2:stderr; do ln -sfn "/proc/self/fd/${n%:*}" "$R/dev/${n#*:}"; done
}

make_root() {
    insmod "$modules/kernel/fs/overlayfs/overlay.ko" || fail "no overlay module in $modules"
    mount -t tmpfs -o size=70% tmpfs /mnt && overlay / $R || fail "no overlay over the host's files"
    mount -t proc proc $R/proc
    mount -t sysfs sys $R/sys
    mount -t tmpfs run $R/run
    mount -t tmpfs tmp $R/tmp
    chmod 1777 $R/tmp
    mkdir -p $R/run/netns $R/run/lock $R/run/old-root
    make_devices
    mount -t cgroup2 cgroup $R/sys/fs/cgroup 2>/dev/null
    mount -t bpf bpf $R/sys/fs/bpf 2>/dev/null
    # Where modprobe and the kernel's own loading look for modules.
    mkdir -p $R/lib/modules
    ln -sfn "$modules" "$R/lib/modules/$kernel"
    # A clone below /tmp or /run would be hidden by the guest's own; writes to it vanish too.
    for d in "${VISIBLE[@]}"; do overlay "$d" "$R$d" || fail "cannot show $d in the guest"; done
    for d in "$D" "${WRITABLE[@]}"; do
        mkdir -p "$R$d" && mount --bind "$d" "$R$d" || fail "cannot share $d with the guest"
    done
}

enter_root() {
    cd $R && pivot_root . run/old-root || fail "cannot enter the new root"
    cd / || fail "no root"
    exec </dev/null >"$D/init.log" 2>&1
    umount -l /run/old-root && rmdir /run/old-root
}

make_root
enter_root
for m in $MODULES; do modprobe "$m" || echo "no module $m"; done
hostname uml
ip link set lo up
# Kernel messages stay readable by dmesg; the console is for panics.
echo 1 >/proc/sys/kernel/printk
# Bytes must pass unaltered; ^C must still mean SIGINT on ttyS0.
stty -F /dev/ttyS0 -opost -echo
stty -F /dev/ttyS1 -opost -echo
[ -z "$CHANNEL" ] || stty -F "$CHANNEL" raw -echo
: >"$D/started"

# ttyS0 becomes the controlling terminal (setsid -c works on stdin), so that ^C arrives.
# The command itself has no input.
setsid -c -w bash -c 'exec bash "$1" </dev/null' sh "$D/cmd" </dev/ttyS0 >/dev/ttyS0 2>/dev/ttyS1
rc=$?
# Setting a terminal's modes waits until its output is out (stty's default, TCSADRAIN).
stty -F /dev/ttyS0 echo
stty -F /dev/ttyS1 echo
echo $rc >"$D/rc.new" && mv "$D/rc.new" "$D/rc"
power_off
