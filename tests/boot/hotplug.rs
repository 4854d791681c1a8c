// SPDX-License-Identifier: MIT OR Apache-2.0

//! Disks and discs that come, go and change while a guest uses them.

use std::thread;
use std::time::Duration;

use busway_guest_agent::Blocks;

use crate::case::{Case, Outcome, tests};
use crate::image::Image;

tests![disks_grow_come_and_go_under_the_guest, discs_are_taken_and_put_in];

/// F39, F40: the guest sees by itself how long a disk has become, finds one that is added, and lets go of
/// one that is taken while it reads, as fast as the disk's limit lets it. Reads that a limit would hold up for minutes
/// go on without it. Nothing is said by the kernel beyond what becomes of the disks.
fn disks_grow_come_and_go_under_the_guest(case: &Case) -> Outcome {
    let (first, second, control) = (case.disk(8), case.empty_disk(12), case.control());
    let guest = case.guest().cpus(2).disk(&first).flag("--control").flag(control.path());
    let mut guest = guest.start(
        "first=$(disk 0)
        block=${first#/dev/}
        fact before $(cat /sys/block/$block/size)
        echo step=grow
        until [ $(cat /sys/block/$block/size) = 32768 ]; do usleep 50000; done
        agent write $first direct seed=3 block=64k count=16 start=12m
        agent check $first direct seed=3 block=64k count=16 start=12m
        echo step=add
        second=$(disk 1)
        fact added $(cat /sys/block/${second#/dev/}/size)
        agent write $second direct seed=9 block=64k count=32
        agent check $second direct seed=9 block=64k count=32
        (while agent check $second direct seed=9 block=64k count=32 >/dev/null 2>&1; do :; done) &
        echo step=remove
        wait $!
        until [ ! -e /sys/block/${second#/dev/} ]; do usleep 50000; done
        fact disks $(ls -d /sys/block/sd* | wc -l)
        agent check $first direct seed=3 block=64k count=16 start=12m
        dmesg | grep -E 'BUG:|WARNING: CPU|Call Trace|blocked for more|Oops' && fact complaint yes || true",
    );
    guest.wait_for("step=grow");
    let grown = control.ask(&["disk", "resize", "0", "16M"]);
    assert_eq!(grown["done"]["disks"][0]["bytes"], 16 << 20, "{grown}");
    guest.wait_for("step=add");
    let path = second.path().to_str().unwrap();
    let added = control.ask(&["disk", "add", &format!("{path},serial=PLUGGED,bps=2M")]);
    assert_eq!(added["done"]["disks"][0]["unit"], 1, "{added}");
    assert!(control.refused(&["disk", "add", path]).contains("in use"));
    guest.wait_for("step=remove");
    let listed = control.ask(&["disk", "list"]);
    assert!(listed["done"]["disks"][1]["delayed"].as_u64() > Some(0), "{listed}");
    // A block takes a minute, and the one behind it waits for that.
    let slow = control.ask(&["disk", "rate", "PLUGGED", "--bps", "1K"]);
    let slow = &slow["done"]["disks"][0];
    assert_eq!((&slow["unit"], &slow["bps"]), (&1.into(), &1024.into()), "{slow}");
    while control.ask(&["disk", "list"])["done"]["disks"][1]["delayed"] == slow["delayed"] {
        guest.has_time();
        thread::sleep(Duration::from_millis(50));
    }
    control.ask(&["disk", "rate", "PLUGGED"]);
    control.ask(&["disk", "remove", "PLUGGED"]);
    let listed = control.ask(&["disk", "list"]);
    assert_eq!(listed["done"]["disks"].as_array().unwrap().len(), 1, "{listed}");
    let report = guest.end();
    assert_eq!(report.status, 0);
    assert_eq!((report.fact("before"), report.fact("added")), ("16384", "24576"));
    assert_eq!(report.fact("disks"), "1");
    assert!(report.all("complaint").is_empty());
    let blocks =
        |seed, count, start| Blocks { seed, block: 64 << 10, count, start, stride: 64 << 10 };
    first.must_hold(&blocks(3, 16, 12 << 20), 16);
    second.must_hold(&blocks(9, 32, 0), 32);
    Ok(())
}

/// F42, by the host's hand.
fn discs_are_taken_and_put_in(case: &Case) -> Outcome {
    let control = case.control();
    let disc = |mib: usize| Image::noise(case.path("disc"), mib << 20);
    let (first, second) = (disc(3), disc(5));
    let guest = case.guest().cpus(2).flag("--dvd").flag(first.path());
    let mut guest = guest.flag("--control").flag(control.path()).start(
        "modprobe sr_mod
        for turn in $(seq 500); do [ ! -b /dev/sr0 ] || break; usleep 20000; done
        fact first $(sum /dev/sr0)
        exec 3</dev/sr0
        echo step=held
        until [ -e /sys/block/sr0 ] && ! dd if=/dev/sr0 of=/dev/null bs=2048 count=1 2>/dev/null; do
            usleep 50000
        done
        exec 3<&-
        ! dd if=/dev/sr0 of=/dev/null bs=2048 count=1 2>/dev/null
        echo step=out
        until dd if=/dev/sr0 of=/dev/null bs=2048 count=1 2>/dev/null; do usleep 50000; done
        fact size $(cat /sys/block/sr0/size)
        fact second $(sum /dev/sr0)",
    );
    guest.wait_for("step=held");
    assert!(control.refused(&["dvd", "eject"]).contains("locked"));
    control.ask(&["dvd", "eject", "--force"]);
    guest.wait_for("step=out");
    let put_in = control.ask(&["dvd", "insert", second.path().to_str().unwrap()]);
    assert_eq!(put_in["done"]["disks"][0]["bytes"], 5 << 20, "{put_in}");
    let report = guest.end();
    assert_eq!(report.status, 0);
    assert_eq!(report.fact("first"), first.sha256());
    assert_eq!(report.fact("second"), second.sha256());
    assert_eq!(report.number("size"), 5 << 11);
    Ok(())
}
