#!/bin/sh
# What every test's script begins with.
set -eu
echo "busway-guest: starts"
trap 'status=$?; [ $status = 0 ] || dmesg | tail -n 30' EXIT

bus=/sys/bus/vmbus/devices

# A line that the test can ask for: a name, and all the rest.
fact() {
    name=$1
    shift
    echo "$name=$*"
}

# Where it is a module, it asks for its checksum by a name that the guest's modprobe does not know. Where it is none,
# an old modprobe complains.
load_ext4() {
    for module in crc32c_generic ext4; do
        modprobe $module 2>/dev/null || true
    done
}

# The device node of a LUN, once it is there. A bus without it should not cost the test all its time.
disk() {
    for turn in $(seq 3000); do
        if name=$(ls /sys/class/scsi_disk/*:0:0:"$1"/device/block) && [ -b "/dev/$name" ]; then
            echo "/dev/$name"
            return
        fi 2>/dev/null
        usleep 20000
    done
    echo "there is no disk $1" >&2
    return 1
}

# What a disk or a file holds, in short.
sum() {
    sha256sum "$1" | cut -d ' ' -f 1
}

# The directories of the VMBus devices that a driver is bound to.
bound_to() {
    for device in "$bus"/*; do
        [ "$(basename "$(readlink "$device/driver")")" != "$1" ] || echo "$device"
    done
}

# A row of /proc/interrupts, without its name and its description: one number for each CPU.
interrupts() {
    sed -n "s/^ *$1: *\([0-9 ]*[0-9]\).*/\1/p" /proc/interrupts
}
