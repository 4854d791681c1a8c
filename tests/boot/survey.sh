# Walks through the guest once, for all the tests that only look.
disk=$(disk 0)
dd if=$disk of=/dev/null bs=1M 2>/dev/null

fact cpus $(nproc)
fact release $(uname -r)
dmesg | sed -n 's/.*Hypervisor detected: /detected=/p; s/.*Hyper-V: \(privilege flags\|features\) /privileges=/p
    s/.*Hyper-V: \(Host\|Hypervisor\) Build /build=/p; s/.*Hyper-V Host Build:[0-9]*-/build=/p; s/.*Vmbus version:/vmbus=/p'
fact firmware_bugs "$(dmesg | grep -ci 'firmware bug\|fw bug' || true)"
dmesg -r | sed -n 's/^<[0-3]>/complaint=/p'
dmesg | grep -i 'probe.*fail\|call trace\|timed out\|invalid transaction' | sed 's/^/trouble=/'
fact clocksource $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)
fact clocksources "$(cat /sys/devices/system/clocksource/clocksource0/available_clocksource)"
agent clock threads=$(nproc) count=100000
fact clock monotonic
for row in HYP HRE HVS LOC; do
    fact $row "$(interrupts $row)"
done

ls /sys/bus/acpi/devices | sed -n 's/^/acpi=/p'
ls /sys/module | sed -n 's/^/module=/p'
for device in $bus/*; do
    fact device ${device##*/}
    fact bound ${device##*/}:$(basename "$(readlink $device/driver || echo none)")
    for attribute in id state class_id device_id modalias vendor numa_node channel_vp_mapping; do
        [ ! -e $device/$attribute ] || fact $attribute "$(cat $device/$attribute | tr '\n' ' ')"
    done
    for channel in $device/channels/*; do
        for attribute in cpu in_mask out_mask read_avail write_avail interrupts events intr_out_empty; do
            fact channel.$attribute $(cat $channel/$attribute)
        done
    done
done
# On any of its channels: which one a request takes depends on the processor.
interrupts_of_disk() {
    total=0
    for count in $(cat $(bound_to hv_storvsc | head -n 1)/channels/*/interrupts); do
        total=$((total + count))
    done
    echo $total
}
before=$(interrupts_of_disk)
agent load $disk count=64 >/dev/null
fact interrupts.before $before
fact interrupts.after $(interrupts_of_disk)
fact vmbus.at $(dmesg | sed -n "s/^\[ *\([0-9.]*\)\].*Vmbus version.*/\1/p")
fact drivers.at $(dmesg | sed -n "s/^\[ *\([0-9.]*\)\].*Run \/init as init process.*/\1/p")
fact disk.at $(dmesg | sed -n "s/^\[ *\([0-9.]*\)\].*Attached SCSI disk.*/\1/p")
