// SPDX-License-Identifier: MIT OR Apache-2.0

//! Disks on the synthetic SCSI controller, as hv_storvsc and sd see them.

use std::fs::{self, File};

use busway_guest_agent::Blocks;
use busway_guest_images::disk as data_disk;
use busway_harness::Report;
use serde_json::Value;

use crate::case::{Case, Outcome, Skip, number, tests};
use crate::guest::{Guest, script_status};
use crate::image::{Image, sha256};
use crate::loop_device::LoopDevice;
use crate::small_storage::SmallStorage;

tests![
    a_disk_is_read_whole,
    a_disk_says_what_it_is,
    buffered_writes_arrive,
    direct_writes_of_many_odd_pages_arrive,
    threads_find_what_they_wrote,
    each_processor_has_a_channel_of_its_own,
    synced_writes_survive_the_end_of_busway,
    syncs_reach_the_hosts_disk_and_writes_wait_for_its_room,
    a_write_without_room_stops_the_machine_until_there_is,
    a_machine_that_stands_still_for_a_disk_is_let_go_or_ended,
    a_readonly_disk_refuses_writes,
    only_the_disks_that_exist_are_found,
    disks_on_four_controllers_are_told_apart,
    as_many_disks_as_asked_for_are_told_apart,
    discarded_blocks_are_given_back,
    an_image_under_layers_stays_what_it_is,
    an_image_in_longer_blocks_is_a_disk_or_a_disc,
    a_file_system_is_mounted_and_written,
    scsi_is_answered_as_its_tools_expect,
];

/// F31.
fn a_disk_is_read_whole(case: &Case) -> Outcome {
    let disk = case.disk(48);
    let guest = case.guest().disk(&disk).run("fact sha256 $(sum $(disk 0))");
    assert_eq!(guest.fact("sha256"), disk.sha256());
    Ok(())
}

/// F31, F37.
fn a_disk_says_what_it_is(case: &Case) -> Outcome {
    let disk = case.empty_disk(20);
    let guest = case.guest().disk_with(&disk, "serial=BUS-1234,wwn=0x5000c50015ea71ac").run(
        "cd /sys/block/$(basename $(disk 0))
        fact sectors $(cat size)
        fact block $(cat queue/logical_block_size)
        fact model $(cat device/vendor device/model)
        fact serial $(tail -c +5 device/vpd_pg80)
        fact identification $(od -An -tx1 device/vpd_pg83 | tr -d ' \\n')
        fact name $(cat device/wwid)
        fact cache $(cat queue/write_cache)
        fact readonly $(cat ro)",
    );
    assert_eq!(guest.number("sectors"), 20 << 11);
    assert_eq!(guest.fact("block"), "512");
    assert_eq!(guest.fact("model"), "Msft Virtual Disk");
    assert_eq!(guest.fact("serial"), "BUS-1234");
    assert!(guest.fact("identification").starts_with("0083"));
    assert_eq!(guest.fact("name"), "naa.5000c50015ea71ac");
    assert_eq!(guest.fact("cache"), "write back");
    assert_eq!(guest.fact("readonly"), "0");
    Ok(())
}

/// F35: through the page cache, synced at the end, seen from outside.
fn buffered_writes_arrive(case: &Case) -> Outcome {
    let disk = case.disk(16);
    let blocks = Blocks { seed: 11, block: 10_000, count: 300, start: 5_000, stride: 20_000 };
    case.guest().cpus(2).disk(&disk).run(
        "agent write $(disk 0) seed=11 block=10000 count=300 start=5000 stride=20000
        echo 3 >/proc/sys/vm/drop_caches
        agent check $(disk 0) seed=11 block=10000 count=300 start=5000 stride=20000",
    );
    disk.must_hold(&blocks, 300);
    disk.must_be_untouched_between(&blocks);
    Ok(())
}

/// F33, F34: each write is one packet whose buffer begins and ends within a page: 33 pages, 34, and more.
fn direct_writes_of_many_odd_pages_arrive(case: &Case) -> Outcome {
    let disk = case.empty_disk(32);
    let guest = case.guest().cpus(2).disk(&disk).run(
        "disk=$(disk 0)
        fact largest $(cat /sys/block/${disk#/dev/}/queue/max_sectors_kb)
        echo 1024 >/sys/block/${disk#/dev/}/queue/max_sectors_kb
        agent write $disk direct skew=512 seed=1 block=128k count=32
        agent write $disk direct skew=3584 seed=101 block=132k count=32 start=8m
        agent write $disk direct skew=1536 seed=201 block=1m count=8 start=16m
        # A flush counts as a write too.
        fact writes $(awk '{ print $5 - $16 }' /sys/block/${disk#/dev/}/stat)
        agent check $disk direct skew=2560 seed=1 block=128k count=32
        agent check $disk direct skew=512 seed=101 block=132k count=32 start=8m
        agent check $disk direct skew=1024 seed=201 block=1m count=8 start=16m",
    );
    // Linux 7 cuts those of 1 MiB, which lie on 257 pages, in two.
    let writes = if case.kernel.version.0 < 7 { 72 } else { 80 };
    assert_eq!(guest.number("writes"), writes, "no write was cut in pieces");
    disk.must_hold(
        &Blocks { seed: 1, block: 128 << 10, count: 32, start: 0, stride: 128 << 10 },
        32,
    );
    let second =
        Blocks { seed: 101, block: 132 << 10, count: 32, start: 8 << 20, stride: 132 << 10 };
    disk.must_hold(&second, 32);
    let third = Blocks { seed: 201, block: 1 << 20, count: 8, start: 16 << 20, stride: 1 << 20 };
    disk.must_hold(&third, 8);
    Ok(())
}

/// F32, with a program of our own: lengths from 512 B to 150 KiB at any offset in page and disk.
fn threads_find_what_they_wrote(case: &Case) -> Outcome {
    let disk = case.empty_disk(32);
    case.guest().cpus(4).disk(&disk).run("agent churn $(disk 0) threads=8 count=60 region=4m");
    Ok(())
}

/// F32: as many queues as processors, each on a channel whose interrupts go to a processor, and each
/// with requests of its own; a reset that all of them see, with writes under way.
fn each_processor_has_a_channel_of_its_own(case: &Case) -> Outcome {
    let disk = case.empty_disk(32);
    let guest = case.guest().cpus(4).disk(&disk).run(
        "disk=$(disk 0)
        name=${disk#/dev/}
        channels=$(bound_to hv_storvsc)/channels
        fact queues $(ls /sys/block/$name/mq | wc -l)
        fact channels $(ls $channels | wc -l)
        for cpu in 0 1 2 3; do
            taskset $((1 << cpu)) agent write $disk direct seed=$cpu block=64k count=16 start=${cpu}m &
        done
        wait
        for cpu in 0 1 2 3; do agent check $disk direct seed=$cpu block=64k count=16 start=${cpu}m; done
        for channel in $channels/*; do fact received $(cat $channel/interrupts); done
        agent churn $disk threads=4 count=40 region=4m
        taskset 2 agent reset $disk seed=100 block=256k count=64
        agent check $disk direct seed=100 block=256k count=64",
    );
    assert_eq!((guest.fact("queues"), guest.fact("channels")), ("4", "4"));
    let received = guest.all("received");
    assert!(received.iter().all(|count| count.parse::<u64>().unwrap() > 0), "{received:?}");
    Ok(())
}

/// F35: busway is killed in the middle of it, and all that the guest knew to be safe is there.
fn synced_writes_survive_the_end_of_busway(case: &Case) -> Outcome {
    let disk = case.empty_disk(64);
    let cached = Blocks { seed: 21, block: 4096, count: 4000, start: 0, stride: 8192 };
    let dsync =
        Blocks { seed: 900_021, block: 12_288, count: 2000, start: 32 << 20, stride: 16_384 };
    let mut guest = case.guest().cpus(2).disk(&disk).start(
        "disk=$(disk 0)
        agent write $disk seed=21 count=4000 stride=8k sync=each says=cached &
        agent write $disk seed=900021 block=12k count=2000 start=32m stride=16k direct skew=512 \
            sync=dsync says=direct &
        wait",
    );
    guest.wait_for("cached=40");
    guest.kill();
    let report = guest.end();
    assert_eq!(report.status, 128 + 9);
    let said = |key| report.all(key).len() as u64;
    assert!(said("direct") > 0);
    disk.must_hold(&cached, said("cached"));
    disk.must_hold(&dsync, said("direct"));
    Ok(())
}

/// F35: what syncing means does not end with busway: each goes on to the disk below it, which counts.
///
/// F44: a host without room has the writes of one disk wait (`werror=wait`) for longer than the guest's
/// timer, while the other goes on. The guest winds its timer up again, resets and aborts nothing, and what it
/// wrote is there when there is room. BUSWAY_FREEZE_SECONDS says for how long, with the guest's own timer.
fn syncs_reach_the_hosts_disk_and_writes_wait_for_its_room(case: &Case) -> Outcome {
    let below = case.empty_disk(16);
    let device = LoopDevice::over(below.path()).map_err(Skip)?;
    let storage = SmallStorage::of(4).map_err(Skip)?;
    let full = Image::empty(storage.path().join("disk"), 16 << 20);
    let before = device.flushes();
    let control = case.control();
    let guest = case.guest().cpus(2).disk_at(device.path()).disk_with(&full, "werror=wait");
    let freeze = number("BUSWAY_FREEZE_SECONDS");
    let timer = freeze.map_or("1".to_owned(), |_| "$(cat $timer)".to_owned());
    let seconds = freeze.unwrap_or(4);
    let mut guest = guest.flag("--control").flag(control.path()).start(&format!(
        "disk=$(disk 0)
        for turn in $(seq 10); do
            agent write $disk seed=$turn block=64k start=${{turn}}m
        done
        full=$(disk 1)
        timer=/sys/block/${{full#/dev/}}/device/timeout
        fact timer $(cat $timer)
        echo {timer} >$timer
        dmesg -c >/dev/null
        (agent write $full direct seed=4 block=64k count=128 || poweroff -f) &
        writer=$!
        echo step=writing
        read line
        sleep {seconds}
        agent check $disk direct seed=7 block=64k start=7m
        kill -0 $writer
        echo step=waited
        wait $writer
        agent check $full direct seed=4 block=64k count=128
        fact complaints $(dmesg | grep -ciE 'hv_storvsc|I/O error|abort|reset.*(bus|device|host)|offline')"
    ));
    guest.wait_for("step=writing");
    let waiting = || control.ask(&["disk", "list"])["done"]["disks"][1]["waiting"].as_u64();
    while waiting() == Some(0) {
        guest.has_time();
    }
    control.ask(&["disk", "resume"]);
    guest.type_in("\r");
    guest.wait_for("step=waited");
    while waiting() == Some(0) {
        guest.has_time();
    }
    storage.make_room(32);
    control.ask(&["disk", "resume"]);
    let guest = guest.end();
    assert_eq!((script_status(&guest), guest.status), (Some(0), 0));
    assert_eq!((guest.fact("timer"), guest.fact("complaints")), ("180", "0"));
    assert!(guest.busway.contains("the host has no room for the image"), "{}", guest.busway);
    assert!(device.flushes() - before >= 10, "{} flushes", device.flushes() - before);
    let blocks = Blocks { seed: 4, block: 64 << 10, count: 128, start: 0, stride: 64 << 10 };
    full.must_hold(&blocks, 128);
    Ok(())
}

/// F44, with `werror=stop`: the whole machine stands still, and does so again if it is let go on too early.
fn a_write_without_room_stops_the_machine_until_there_is(case: &Case) -> Outcome {
    let storage = SmallStorage::of(4).map_err(Skip)?;
    let full = Image::empty(storage.path().join("disk"), 16 << 20);
    let control = case.control();
    let guest = case.guest().cpus(2).disk_with(&full, "werror=stop");
    let mut guest = guest.flag("--control").flag(control.path()).start(
        "dmesg -c >/dev/null
        disk=$(disk 0)
        echo step=writing
        agent write $disk direct seed=4 block=64k count=128
        agent check $disk direct seed=4 block=64k count=128
        fact complaints $(dmesg | grep -ciE 'hv_storvsc|I/O error|abort|reset|offline|BUG|stall')
        echo step=written
        read line",
    );
    guest.wait_for("step=writing");
    control.wait_until(&["status"], |status| status["done"]["paused"] == true);
    assert!(control.ask(&["disk", "list"])["done"]["disks"][0]["waiting"].as_u64() > Some(0));
    control.ask(&["resume"]);
    control.wait_until(&["status"], |status| status["done"]["paused"] == true);
    storage.make_room(32);
    // A request that fails at the very moment of the first may pause it once more.
    control.wait_until(&["resume"], |_| {
        let waiting = control.ask(&["disk", "list"])["done"]["disks"][0]["waiting"] == 0;
        waiting && control.ask(&["status"])["done"]["paused"] == false
    });
    guest.wait_for("step=written");
    guest.type_in("\r");
    let guest = guest.end();
    assert_eq!((script_status(&guest), guest.status), (Some(0), 0));
    assert_eq!(guest.fact("complaints"), "0");
    assert!(
        guest.busway.contains("the machine is paused: the host has no room"),
        "{}",
        guest.busway
    );
    let blocks = Blocks { seed: 4, block: 64 << 10, count: 128, start: 0, stride: 64 << 10 };
    full.must_hold(&blocks, 128);
    Ok(())
}

/// F43 with `rerror=stop`: a read of what was cut off stops the machine until it is there again. F44 with
/// `werror=enospc`: want of room does, and a machine that stands still is ended by SIGTERM at once.
fn a_machine_that_stands_still_for_a_disk_is_let_go_or_ended(case: &Case) -> Outcome {
    let storage = SmallStorage::of(4).map_err(Skip)?;
    let (full, cut) = (Image::empty(storage.path().join("disk"), 16 << 20), case.disk(4));
    let (before, whole) = (cut.sha256(), fs::read(cut.path()).unwrap());
    let control = case.control();
    let guest = case.guest().disk_with(&full, "werror=enospc");
    let guest = guest.disk_with(&cut, "readonly,rerror=stop");
    let mut guest = guest.flag("--control").flag(control.path()).start(
        "cut=$(disk 1)
        echo step=whole
        read line
        fact sha256 $(sum $cut)
        echo step=same
        read line
        agent write $(disk 0) direct seed=4 block=64k count=128",
    );
    let is_paused = |status: &Value| status["done"]["paused"] == true;
    guest.wait_for("step=whole");
    File::options().write(true).open(cut.path()).unwrap().set_len(1 << 20).unwrap();
    guest.type_in("\r");
    control.wait_until(&["status"], is_paused);
    fs::write(cut.path(), whole).unwrap();
    control.wait_until(&["resume"], |_| !is_paused(&control.ask(&["status"])));
    guest.wait_for("step=same");
    guest.type_in("\r");
    control.wait_until(&["status"], is_paused);
    guest.terminate();
    let guest = guest.end();
    assert_eq!(guest.status, 128 + 15);
    assert_eq!(guest.fact("sha256"), before);
    assert!(guest.busway.contains("the host has no room"), "{}", guest.busway);
    Ok(())
}

/// F41. And F43: the host cannot read what is not there of an image that was cut off under it; that is a medium
/// error, which ends when it is there again.
fn a_readonly_disk_refuses_writes(case: &Case) -> Outcome {
    let disk = case.disk(4);
    let (before, whole) = (disk.sha256(), fs::read(disk.path()).unwrap());
    let mut guest = case.guest().disk_with(&disk, "readonly").start(
        "disk=$(disk 0)
        fact readonly $(cat /sys/block/${disk#/dev/}/ro)
        fact sha256 $(sum $disk)
        ! agent write $disk seed=1
        # The block layer may be talked out of it; the disk itself may not.
        blockdev --setrw $disk || true
        agent write $disk seed=1 direct || fact refused yes
        echo 3 >/proc/sys/vm/drop_caches
        echo step=whole
        read line
        dd if=$disk of=/dev/null bs=4k count=8 2>/dev/null
        ! dd if=$disk of=/dev/null bs=4k skip=512 count=8 2>/dev/null
        fact sense $(dmesg | grep -o 'Sense Key : Medium Error' | tail -n 1)
        echo step=short
        read line
        fact again $(sum $disk)",
    );
    guest.wait_for("step=whole");
    File::options().write(true).open(disk.path()).unwrap().set_len(1 << 20).unwrap();
    guest.type_in("\r");
    guest.wait_for("step=short");
    fs::write(disk.path(), whole).unwrap();
    guest.type_in("\r");
    let guest = guest.end();
    assert_eq!((script_status(&guest), guest.status), (Some(0), 0));
    assert_eq!(guest.fact("readonly"), "1");
    assert_eq!(guest.fact("sha256"), before);
    assert_eq!(guest.fact("refused"), "yes");
    assert_eq!(guest.fact("sense"), "Sense Key : Medium Error");
    assert_eq!(guest.fact("again"), before);
    assert_eq!(disk.sha256(), before);
    Ok(())
}

/// F38: an absent LUN is absent, and asking for it costs nothing.
fn only_the_disks_that_exist_are_found(case: &Case) -> Outcome {
    let (first, second) = (case.disk(2), case.disk(1));
    let guest = case.guest().disk(&first).disk(&second).run(
        "disk 0 && disk 1
        for host in /sys/class/scsi_host/*; do echo '- - -' >$host/scan; done
        fact disks $(ls -d /sys/block/sd* | wc -l)
        fact devices $(ls -d /sys/class/scsi_device/* | wc -l)
        fact first $(sum $(disk 0))
        fact second $(sum $(disk 1))",
    );
    assert_eq!((guest.fact("disks"), guest.fact("devices")), ("2", "2"));
    assert_eq!(guest.fact("first"), first.sha256());
    assert_eq!(guest.fact("second"), second.sha256());
    Ok(())
}

/// F38.
fn disks_on_four_controllers_are_told_apart(case: &Case) -> Outcome {
    let guest = case.guest().cpus(2).flag("--integration").flag("none");
    let report = with_disks(case, guest, 16);
    assert_eq!((report.number("disks"), report.number("devices")), (64, 4));
    Ok(())
}

/// F38: up to 255 on the first of four controllers, as BUSWAY_DISKS says, among five hundred devices.
fn as_many_disks_as_asked_for_are_told_apart(case: &Case) -> Outcome {
    let Some(of_first) = number("BUSWAY_DISKS") else {
        return Err(Skip("it takes long: BUSWAY_DISKS=255 says how many".to_owned()));
    };
    let memory = format!("{}M", 512 + 2 * of_first);
    let mut guest = case.guest().cpus(2).flag("--memory").flag(memory);
    guest = guest.flag("--integration").flag("none");
    // Their class comes before that of disks in the order of offers, so that disks have the last relids.
    for device in 0..496 {
        guest = guest.flag("--raw").flag(format!("00000000-6275-4000-8000-{device:012x}"));
    }
    let report = with_disks(case, guest, of_first);
    assert_eq!(report.number("disks"), u64::from(of_first) + 48);
    assert_eq!((report.number("devices"), report.number("last")), (500, 500));
    Ok(())
}

/// The disk `lun` of controller C is `disk C:LUN`. The other `disk` knows no controllers.
const DISK_OF_CONTROLLER: &str = r#"
    disk() {
        device=$bus/73637369-000${1%:*}-4000-8000-627573776179
        for turn in $(seq 3000); do
            set -- $1 $device/host*/target*/*:0:0:${1#*:}/block/*
            if [ -b /dev/${2##*/} ]; then echo /dev/${2##*/}; return; fi
            usleep 20000
        done
        echo "there is no disk $1" >&2
        return 1
    }"#;

/// What a guest says that has so many disks on its first controller, 16 on each of the others, and
/// finds on each what is nowhere else.
fn with_disks(case: &Case, mut guest: Guest<'_>, of_first: u32) -> Report {
    let mut places = Vec::new();
    for (controller, count) in [(0, of_first), (1, 16), (2, 16), (3, 15)] {
        places.extend((0..count).map(|lun| (controller, lun, format!("controller={controller}"))));
    }
    places.push((3, 254, "controller=3,lun=254".to_owned()));
    let mut checks = String::new();
    for (seed, (controller, lun, words)) in (0..).zip(places) {
        let disk = case.empty_disk(1);
        disk.write(&Blocks { seed, block: 512, count: 1, start: 0, stride: 512 });
        guest = guest.disk_with(&disk, &words);
        checks += &format!("agent check $(disk {controller}:{lun}) seed={seed} block=512\n");
    }
    guest.run(&format!(
        "{DISK_OF_CONTROLLER}
        {checks}
        fact disks $(ls -d /sys/block/sd* | wc -l)
        fact devices $(ls $bus | wc -l)
        fact last $(cat $bus/73637369-0003-*/id)"
    ))
}

/// F36.
fn discarded_blocks_are_given_back(case: &Case) -> Outcome {
    let disk = case.disk(16);
    let before = disk.allocated();
    case.guest().disk(&disk).run(
        "disk=$(disk 0)
        [ $(cat /sys/block/${disk#/dev/}/queue/discard_max_bytes) -gt 0 ]
        blkdiscard -o 4194304 -l 8388608 $disk",
    );
    assert!(disk.allocated() <= before - (8 << 20), "{} of {before}", disk.allocated());
    Ok(())
}

/// A golden image twice: what is written to the one is gone with the machine, what is written to the
/// other is there in the next.
fn an_image_under_layers_stays_what_it_is(case: &Case) -> Outcome {
    let disk = case.disk(16);
    let before = disk.sha256();
    let overlay = format!("overlay={}", case.path("overlay").display());
    let boot = |script: &str| {
        let guest = case.guest().cpus(2).disk_with(&disk, "temporary").disk_with(&disk, &overlay);
        guest.run(script)
    };
    let first = boot(
        "fact temporary $(sum $(disk 0))
        fact overlay $(sum $(disk 1))
        for lun in 0 1; do
            agent churn $(disk $lun) threads=4 count=30 region=2m
            agent write $(disk $lun) seed=7 block=10000 count=100 start=12m
            blkdiscard -o 0 -l 4194304 $(disk $lun)
            echo 3 >/proc/sys/vm/drop_caches
            agent check $(disk $lun) seed=7 block=10000 count=100 start=12m
        done",
    );
    assert_eq!((first.fact("temporary"), first.fact("overlay")), (&*before, &*before));
    let second = boot(
        "fact temporary $(sum $(disk 0))
        agent check $(disk 1) seed=7 block=10000 count=100 start=12m
        fact zeroes $(head -c 4194304 $(disk 1) | tr -d '\\0' | wc -c)",
    );
    assert_eq!((second.fact("temporary"), second.fact("zeroes")), (&*before, "0"));
    assert_eq!(disk.sha256(), before);
    Ok(())
}

/// F42, as far as the guest does it by itself: the disc goes out and comes in. And a disk whose blocks
/// are 4 KiB.
fn an_image_in_longer_blocks_is_a_disk_or_a_disc(case: &Case) -> Outcome {
    let disk = case.empty_disk(8);
    let disc = case.path("disc.iso");
    let disc = Image::noise(disc, 3 << 20);
    let before = disc.sha256();
    let guest = case.guest().program("sg3-utils")?.cpus(2);
    let guest = guest.disk_with(&disk, "block-size=4096");
    let guest = guest.flag("--dvd").flag(disc.path()).run(
        "disk=$(disk 0)
        fact disk $(cat /sys/block/${disk#/dev/}/queue/logical_block_size)
        agent write $disk direct seed=5 block=64k count=16
        agent check $disk direct seed=5 block=64k count=16
        modprobe sr_mod
        for turn in $(seq 500); do [ ! -b /dev/sr0 ] || break; usleep 20000; done
        fact disc $(cat /sys/block/sr0/queue/logical_block_size)
        fact before $(sum /dev/sr0)
        sg_raw --readonly /dev/sr0 1b 00 00 00 02 00 2>/dev/null
        dd if=/dev/sr0 of=/dev/null bs=2048 count=1 2>/dev/null || fact out yes
        sg_raw --readonly /dev/sr0 1b 00 00 00 03 00 2>/dev/null
        echo 3 >/proc/sys/vm/drop_caches
        fact after $(sum /dev/sr0)",
    );
    assert_eq!((guest.fact("disk"), guest.fact("disc")), ("4096", "2048"));
    assert_eq!((guest.fact("before"), guest.fact("after")), (&*before, &*before));
    assert_eq!(guest.fact("out"), "yes");
    Ok(())
}

/// F46: a partition and ext4 on it; the file is there in the next boot.
fn a_file_system_is_mounted_and_written(case: &Case) -> Outcome {
    let disk = Image::copy_of_data_disk(case.path("disk"));
    let noise = case.path("noise");
    fs::write(&noise, noise_of_data_disk()).unwrap();
    let script = "load_ext4
        mount -t ext4 $(disk 0)1 /mnt
        cat /mnt/greeting.txt
        fact old $(sum /mnt/deep/down/noise.bin)";
    let first = case.guest().disk(&disk).run(&format!(
        "{script}
        touch /mnt/new
        agent write /mnt/new seed=5 block=1000 count=3000
        umount /mnt"
    ));
    let second = case.guest().disk(&disk).run(&format!(
        "{script}
        agent check /mnt/new seed=5 block=1000 count=3000"
    ));
    for guest in [first, second] {
        assert!(guest.lines.iter().any(|line| line == "This file lies on a VMBus disk."));
        assert_eq!(guest.fact("old"), sha256(&noise));
    }
    Ok(())
}

/// What the file of noise on the disk of `cargo xtask images` holds.
fn noise_of_data_disk() -> Vec<u8> {
    data_disk::noise(data_disk::NOISE.1)
}

/// F37, by programs that know nothing of Hyper-V.
fn scsi_is_answered_as_its_tools_expect(case: &Case) -> Outcome {
    if case.kernel.version >= (6, 12) {
        return Err(Skip("sg_turs of its suite says of itself: bad pass-through setup".to_owned()));
    }
    let disk = case.empty_disk(8);
    let guest = case.guest().program("sg3-utils")?.disk_with(&disk, "serial=SG3").run(
        "disk=$(disk 0)
        modprobe sg
        sg_inq $disk | sed -n 's/^ *Unit serial number: */serial=/p'
        for page in 0x00 0x80 0x83 0xb0 0xb1 0xb2; do sg_inq --vpd --page=$page $disk >/dev/null; done
        sg_readcap --long $disk | sed -n 's/^ *Last LBA=\\([0-9]*\\).*/last=\\1/p'
        sg_luns $disk | sed -n 's/^ *Lun list length = \\([0-9]*\\) .*/luns=\\1/p'
        sg_turs $disk && fact ready yes
        sg_requests $disk >/dev/null
        sg_modes --page=8 $disk | sed -n 's/.*WCE: */caching=/p'
        sg_sync $disk
        # An operation that no disk has: illegal request, invalid operation code.
        sg_raw $disk ff 00 00 00 00 00 2>&1 | sed -n 's/.*\\(Sense key: Illegal Request\\).*/sense=\\1/p'
        sg_reset --bus $disk
        agent write $disk seed=3
        agent check $disk seed=3",
    );
    assert_eq!(guest.fact("serial"), "SG3");
    assert_eq!(guest.number("last"), (8 << 11) - 1);
    assert_eq!(guest.number("luns"), 8, "bytes for one");
    assert_eq!(guest.fact("ready"), "yes");
    assert_eq!(guest.fact("sense"), "Sense key: Illegal Request");
    Ok(())
}
