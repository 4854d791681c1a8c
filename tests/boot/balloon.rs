// SPDX-License-Identifier: MIT OR Apache-2.0

//! Dynamic memory, as hv_balloon and the host's kernel see it.

use busway_guest_agent::Blocks;
use busway_harness::Control;

use crate::case::{Case, Outcome, tests};
use crate::guest::shared_memory;
use crate::image::Image;

tests![memory_is_taken_and_given_back];

const MIB: u64 = 1 << 20;

/// F72: a guest that has used its memory gives half of it to the host, where it is free then; what comes back
/// can be used. One whose kernel takes new memory gets that too, and uses it, for what goes to a disk and
/// comes from there first: Linux takes pages above 4 GiB before others. Where the extended hypercalls are,
/// what it has no use for is free before anybody asks.
fn memory_is_taken_and_given_back(case: &Case) -> Outcome {
    let control = case.control();
    let image = Image::empty(case.path("disk"), 64 << 20);
    let guest = case.guest().flag("--control").flag(control.path()).flag("--balloon=max=768M");
    let guest = guest.word("memhp_default_state=online").disk(&image);
    let mut guest = guest.flag("--memory").flag("512M").start(
        "free() { sed -n 's/^MemFree: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; }
        total() { sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo; }
        fill() {
            touch /mnt/fill
            agent write /mnt/fill seed=$1 block=1m count=$2
            agent check /mnt/fill seed=$1 block=1m count=$2
            rm /mnt/fill
        }
        echo reports=$(dmesg | grep -c 'Cold memory discard hint enabled')
        mount -t tmpfs -o size=440m fill /mnt
        fill 1 320
        echo used=$(free)
        while [ $(free) -gt 200000 ]; do usleep 100000; done
        echo taken=$(free)
        while [ $(free) -lt 370000 ]; do usleep 100000; done
        fill 2 320
        [ -e /sys/devices/system/memory/auto_online_blocks ] && grows=yes || grows=no
        before=$(total)
        echo whole=$grows
        [ $grows = no ] || while [ $(total) -lt $((before + 250000)) ]; do usleep 100000; done
        if [ $grows = yes ]; then
            disk=$(disk 0)
            # A disk that nobody has open has no pages in memory.
            exec 3<$disk
            agent write $disk seed=4 block=1m count=64 sync=end says=written
            echo 3 >/proc/sys/vm/drop_caches
            agent check $disk seed=4 block=1m count=64
            echo cached=$(awk '/zone *Normal/ { here = 1 } here && /nr_zone_(in)?active_file/ { n += $2 } END { print n }' /proc/zoneinfo)
            fill 3 420
        fi
        echo grown=$grows
        sleep 1000",
    );
    let reports = guest.wait_for("reports=") == "1";
    // KVM passes the extended hypercalls on from 6.3 on, and Linux makes them from 5.14 on.
    assert!(reports || case.kernel.engine == "kvm" || case.kernel.version < (5, 14));
    guest.wait_for("used=");
    // It has written 320 MiB.
    while reports && shared_memory(&guest) > 256 * MIB {
        guest.has_time();
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let before = shared_memory(&guest);
    let has = |control: &Control| control.ask(&["balloon"])["done"]["memory"].as_u64().unwrap();
    assert_eq!(has(&control), 512 * MIB);
    control.ask(&["balloon", "256M"]);
    control.wait_until(&["balloon"], |line| line["done"]["memory"] == 256 * MIB);
    guest.wait_for("taken=");
    let after = shared_memory(&guest);
    assert!(reports || after + 150 * MIB < before, "{before} B, then {after}");
    control.ask(&["balloon", "512M"]);
    let grows = guest.wait_for("whole=") == "yes";
    assert_eq!(has(&control), 512 * MIB);
    assert!(control.refused(&["balloon", "1G"]).contains("768M"));
    if grows {
        control.ask(&["balloon", "768M"]);
        let cached: u64 = guest.wait_for("cached=").parse().unwrap();
        assert!(cached << 12 >= 48 * MIB, "{cached} pages of the disk are in new memory");
    }
    guest.wait_for("grown=");
    assert_eq!(has(&control), if grows { 768 } else { 512 } * MIB);
    control.ask(&["shutdown"]);
    assert_eq!(guest.end().status, 0);
    if grows {
        image.must_hold(
            &Blocks { seed: 4, block: 1 << 20, count: 64, start: 0, stride: 1 << 20 },
            64,
        );
    }
    Ok(())
}
