// SPDX-License-Identifier: MIT OR Apache-2.0

//! Guests that sleep: idle with their devices on, or switched off with their memory on a disk.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use busway_guest_agent::Blocks;

use crate::case::{Case, Outcome, tests};

tests![a_key_wakes_a_guest_that_idles, a_guest_that_saved_itself_on_a_disk_goes_on];

/// Uses the card, which gets back what it sends.
const FRAMES: &str = "frames() {
        ip link set eth0 up
        ip addr add 10.9.9.1/24 dev eth0
        until [ $(cat /sys/class/net/eth0/statistics/rx_packets) -gt 0 ]; do
            ping -q -c 1 -W 1 10.9.9.2 >/dev/null || true
        done
    }\n";

/// F47: on an IDE disk, which is written while all stops, and on which the writes go on then.
///
/// A key that comes too early keeps the guest awake, which tries again then: keys come ever more seldom.
fn a_key_wakes_a_guest_that_idles(case: &Case) -> Outcome {
    let (control, disk) = (case.control(), case.disk(16));
    let guest = case.guest().cpus(2).disk_with(&disk, "bus=ide").flag("--net").flag("loopback");
    let guest = guest.flag("--keyboard").flag("--control").flag(control.path());
    let script = "disk=$(disk 0)
        fact class $(cat $(bound_to hv_storvsc)/class_id)
        touch /tmp/writes
        (while [ -e /tmp/writes ]; do
            agent write $disk direct seed=7 block=64k count=16 start=8m && echo 1 >>/tmp/turns
        done) &
        writer=$!
        until [ -s /tmp/turns ]; do usleep 20000; done
        echo ready=yes
        until echo freeze >/sys/power/state; do usleep 100000; done
        fact slept $(cat /sys/power/suspend_stats/success)
        turns=$(wc -l </tmp/turns)
        until [ $(wc -l </tmp/turns) -gt $((turns + 1)) ]; do usleep 20000; done
        rm /tmp/writes
        wait $writer
        agent check $disk direct seed=7 block=64k count=16 start=8m
        fact sum $(sum $disk)
        frames
        dmesg -r | grep -v -e PCI: -e 'early wake event' -e 'aborted after' | sed -n 's/^<[0-3]>/complaint=/p'";
    let mut guest = guest.start(&[FRAMES, script].concat());
    guest.wait_for("ready=");
    let (awake, is_awake) = mpsc::channel::<()>();
    let slept = thread::scope(|scope| {
        let control = &control;
        scope.spawn(move || {
            let mut pause = Duration::from_millis(500);
            while is_awake.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                control.run(&["type", "x"]);
                pause *= 2;
            }
        });
        let slept = guest.wait_for("slept=");
        drop(awake);
        slept
    });
    assert_eq!(slept, "1");
    let report = guest.end();
    assert_eq!((report.status, report.fact("sum")), (0, &*disk.sha256()));
    assert_eq!(report.fact("class"), "{32412632-86cb-44a2-9b5c-50d1417354f5}");
    let blocks = Blocks { seed: 7, block: 64 << 10, count: 16, start: 8 << 20, stride: 64 << 10 };
    disk.must_hold(&blocks, 16);
    assert!(report.all("complaint").is_empty(), "{:?}", report.all("complaint"));
    Ok(())
}

/// By ACPI's S4, when the host asks for it. The second machine's kernel takes the first one's place, whose memory
/// finds all its devices again.
fn a_guest_that_saved_itself_on_a_disk_goes_on(case: &Case) -> Outcome {
    let (control, swap, disk) = (case.control(), case.empty_disk(256), case.disk(16));
    let life = || {
        let guest = case.guest().cpus(2).disk(&swap).disk(&disk).flag("--hibernation");
        let guest = guest.flag("--net").flag("loopback").flag("--keyboard").flag("--mouse");
        let guest = guest.flag("--balloon").flag("--control").flag(control.path());
        let guest = guest.flag("--memory").flag("256M");
        guest.start(&[FRAMES, SAVES_ITSELF].concat())
    };
    let mut first = life();
    first.wait_for("saved=[platform]");
    control.wait_until_ready("shutdown");
    control.ask(&["shutdown", "hibernate"]);
    let first = first.end();
    assert_eq!(first.status, 0);
    assert!(first.all("after").is_empty(), "it ends before that");
    let second = life().end();
    assert_eq!(second.status, 0);
    assert!(second.all("saved").is_empty(), "it does not begin anew");
    assert_eq!(second.fact("after"), first.fact("before"), "what it had in memory");
    assert_eq!(second.fact("sum"), disk.sha256());
    assert_eq!(second.fact("bound"), first.fact("bound"));
    Ok(())
}

/// What its guest does. hv_utils tells its user space by an event that it should hibernate.
const SAVES_ITSELF: &str = "swap=$(disk 0)
    if [ \"$(dd if=$swap bs=1 skip=4086 count=9 2>/dev/null)\" = S1SUSPEND ]; then
        disk 1
        cat /sys/block/${swap#/dev/}/dev >/sys/power/resume
        echo 'nothing came of that'
        exit 1
    fi
    mkswap $swap >/dev/null
    swapon $swap
    head -c 8m /dev/urandom >/dev/shm/kept
    fact before $(sum /dev/shm/kept)
    fact bound $(for device in $bus/*; do basename $(readlink $device/driver); done | sort)
    echo '#!/bin/sh
        touch /tmp/listens
        [ \"$EVENT\" != hibernate ] || touch /tmp/asked' >/tmp/event
    chmod +x /tmp/event
    uevent /tmp/event &
    until [ -e /tmp/listens ]; do
        echo change >/sys/class/net/lo/uevent
        usleep 100000
    done
    fact saved $(grep -o '\\[[a-z]*\\]' /sys/power/disk)
    until [ -e /tmp/asked ]; do usleep 100000; done
    echo disk >/sys/power/state
    fact after $(sum /dev/shm/kept)
    fact sum $(sum $(disk 1))
    frames
    fact bound $(for device in $bus/*; do basename $(readlink $device/driver); done | sort)";
