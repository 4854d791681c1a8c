// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine that stands still because somebody said so, as its guest sees it: not at all.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use busway_guest_agent::Blocks;
use busway_harness::{Control, Running};

use crate::case::{Case, Outcome, number, tests};

tests![a_paused_guest_does_nothing_and_sees_no_time];

/// For three seconds, or BUSWAY_PAUSE_SECONDS: beyond 20, Linux would speak of a processor that hangs.
fn a_paused_guest_does_nothing_and_sees_no_time(case: &Case) -> Outcome {
    let (disk, control) = (case.empty_disk(4), case.control());
    disk.write(&Blocks { seed: 5, block: 4096, count: 64, start: 0, stride: 4096 });
    let guest = case.guest().cpus(2).disk(&disk).flag("--grace").flag("1000");
    let mut guest = guest.flag("--control").flag(control.path()).start(
        "disk=$(disk 0)
        dmesg -c >/dev/null
        (while agent check $disk direct seed=5 count=64 >/dev/null; do usleep 100000; done) &
        echo step=ready
        while read line; do
            echo now=$(cut -d ' ' -f 1 /proc/uptime) $(date +%s) $(dmesg | grep -ciE 'BUG|stall|hung|unstable')
        done",
    );
    guest.wait_for("step=ready");
    let (asked, before) = (Instant::now(), ask(&mut guest));
    for _ in 0..2 {
        assert_eq!(control.ask(&["pause"])["done"]["paused"], true);
    }
    let paused = Instant::now();
    stands_still(&guest, &control);
    assert_eq!(control.ask(&["status"])["done"]["paused"], true);
    thread::sleep(Duration::from_secs(number("BUSWAY_PAUSE_SECONDS").unwrap_or(3).into()));
    let (paused, did) = (paused.elapsed(), requests(&control));
    assert_eq!(control.ask(&["resume"])["done"]["paused"], false);
    control.wait_until(&["counters"], |counters| count(counters) > did);
    let after = ask(&mut guest);
    let ran = (asked.elapsed() - paused).as_secs_f64();
    // However long anything took; half a second is more than two clocks differ by in that time.
    assert!(after.uptime - before.uptime < ran + 0.5, "{before:?} {after:?}, {ran} s");
    while ask(&mut guest).date + 1 < host_date() {
        guest.has_time();
    }
    assert_eq!(ask(&mut guest).complaints, 0);
    control.ask(&["pause"]);
    guest.terminate();
    assert_eq!(guest.end().status, 128 + 15, "a guest that stands still has no grace");
    Ok(())
}

/// What the guest says of itself.
#[derive(Debug)]
struct Now {
    uptime: f64,
    date: u64,
    complaints: u64,
}

fn ask(guest: &mut Running) -> Now {
    guest.type_in("\r");
    let line = guest.wait_for("now=");
    let words: Vec<_> = line.split(' ').collect();
    let whole = |word: &str| word.parse().unwrap();
    Now { uptime: words[0].parse().unwrap(), date: whole(words[1]), complaints: whole(words[2]) }
}

fn host_date() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Waits until the guest asks its disk for nothing any more: it asks again and again if it runs.
fn stands_still(guest: &Running, control: &Control) {
    let mut last = requests(control);
    loop {
        thread::sleep(Duration::from_secs(1));
        let now = requests(control);
        if now == last {
            return;
        }
        last = now;
        guest.has_time();
    }
}

/// What the guest has asked its disks for.
fn requests(control: &Control) -> u64 {
    count(&control.ask(&["counters"]))
}

fn count(counters: &serde_json::Value) -> u64 {
    let channels = counters["done"]["channels"].as_array().unwrap().iter();
    let storage = channels.filter(|channel| channel["device"] == "storage");
    storage.map(|channel| channel["packets_in"].as_u64().unwrap()).sum()
}
