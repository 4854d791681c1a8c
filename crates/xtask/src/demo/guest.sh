#!/bin/sh
# What the demonstration runs in the guest: it lets the guest's own drivers speak.
set -u
bus=/sys/bus/vmbus/devices

title() {
    printf '\n%s\n' "$1"
}

line() {
    printf '  %-17s %s\n' "$1" "$2"
}

# What a class of VMBus devices is called, by its GUID.
class() {
    case $1 in
        ba6163d9-*) echo 'SCSI controller' ;;
        32412632-*) echo 'IDE controller' ;;
        f8615163-*) echo 'network adapter' ;;
        0e0b6031-*) echo 'shutdown' ;;
        9527e630-*) echo 'time synchronization' ;;
        57164f39-*) echo 'heartbeat' ;;
        a9a0f4e7-*) echo 'key-value exchange' ;;
        35fa2e29-*) echo 'backup' ;;
        34d14be3-*) echo 'file copy' ;;
        525074dc-*) echo 'dynamic memory' ;;
        cfa8b69e-*) echo 'mouse' ;;
        f912ad6d-*) echo 'keyboard' ;;
        da0a7802-*) echo 'video' ;;
        *) echo 'unknown' ;;
    esac
}

title 'The guest'
line kernel "Linux $(uname -r), unmodified"
line hypervisor "$(dmesg | sed -n 's/.*Hypervisor detected: //p')"
line processors "$(nproc)"
line 'clock source' "$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
line VMBus "version $(dmesg | sed -n 's/.*Vmbus version://p')"

title 'Devices on its VMBus, and the drivers that it bound to them'
for device in "$bus"/*; do
    id=$(cat "$device/class_id")
    driver=none
    [ ! -e "$device/driver" ] || driver=$(basename "$(readlink "$device/driver")")
    line "${driver}" "$(class "${id#?}") ${device##*/}, channel $(cat "$device/id")"
done

waited=0
until [ -b /dev/sda1 ] || [ $waited = 500 ]; do
    waited=$((waited + 1))
    usleep 20000
done
[ -b /dev/sda1 ] || {
    title 'There is no disk. The last words of the kernel:'
    dmesg | tail -n 20
    exit 1
}

title 'The disk'
cd /sys/block/sda || exit 1
line /dev/sda "$(cat device/vendor device/model | xargs), $(($(cat size) / 2048)) MiB, serial $(tail -c +5 device/vpd_pg80)"
modprobe ext4
mount -t ext4 -o ro /dev/sda1 /mnt || exit 1
line /dev/sda1 "$(awk '$2 == "/mnt" { print $3 ", mounted" }' /proc/mounts)"
line greeting.txt "$(cat /mnt/greeting.txt)"
line 'sha256 inside' "$(sha256sum /dev/sda | cut -d ' ' -f 1)"
umount /mnt

# Nothing but the answer from outside is to follow.
case " $(cat /proc/cmdline) " in
    *' busway.shell '*) ;;
    *)
        echo 0 >/proc/sys/kernel/printk
        poweroff -f
        ;;
esac
