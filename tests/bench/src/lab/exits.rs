// SPDX-License-Identifier: MIT OR Apache-2.0

//! guest/exits: VM exits for each O_DIRECT read of 4 KiB, by KVM's own count.
//!
//! A guest that reads twice as often costs so many more exits; start and end drop out. Of runs that do
//! the same the one with fewer exits counts: time that others take from the host adds clock ticks.

use std::collections::BTreeMap;
use std::fs;

use super::guest::{Running, disk, stock};
use crate::report::Line;

type Counters = BTreeMap<String, u64>;

/// The signal and the interrupt, for as many requests as go together.
const LEAST: f64 = 2.0;

const RUNS: usize = 2;

pub fn run(lines: &mut Vec<Line>) {
    for (depth, count) in [(1, 5_000), (32, 50_000)] {
        let [once, twice] = [count, 2 * count].map(|count| {
            let runs = (0..RUNS).map(|_| counters(depth, count));
            runs.min_by_key(|counters| counters["exits"]).expect("at least one run")
        });
        let a_read = |name: &str| {
            let [less, more] = [&once, &twice].map(|counters| counters[name] as f64);
            (more - less) / count as f64
        };
        for name in once.keys().filter(|name| name.ends_with("_exits") && a_read(name) >= 0.005) {
            eprintln!("bench: depth {depth}: {:.3} {name} a read", a_read(name));
        }
        let value = a_read("exits");
        let params = format!("4 KiB read depth={depth}");
        let limit = LEAST / f64::from(depth);
        lines.push(Line::less("guest/exits", params, value, "exits", Some(limit)));
    }
}

fn counters(depth: u32, count: u64) -> Counters {
    let script = format!(
        "until [ -b /dev/sda ]; do usleep 20000; done
        agent load /dev/sda depth={depth} count={count} && echo all was read"
    );
    let mut command = stock(&script);
    let mut guest = Running::start(command.arg("--disk").arg(disk()).args(["--stats", "stats"]));
    let seconds = guest.line("all was read").as_secs_f64();
    guest.end();
    eprintln!("bench: depth {depth}: {count} reads, {seconds:.1} s with the start");
    serde_json::from_slice(&fs::read("stats").expect("--stats")).expect("counters")
}
