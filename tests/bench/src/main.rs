// SPDX-License-Identifier: MIT OR Apache-2.0

//! Takes measurements and prints them as a JSON array; `cargo xtask bench` makes the table. With
//! names, only the lines whose name contains one of them.
//!
//! ```text
//! busway-bench [NAME]...              those that need no guest
//! busway-bench --lab FILE [NAME]...   those that need KVM, into a file (see `lab`)
//! busway-bench --turns                what callgrind can count (see `turns`)
//! busway-bench --turns NUMBER TIMES   does one of them so often, and prints nothing
//! ```

mod churn;
mod lab;
#[expect(dead_code, clippy::unwrap_used, reason = "the driver of the conformance tests, in part")]
#[path = "../../conformance/netvsc.rs"]
mod netvsc;
mod network_frames;
mod network_tap;
mod report;
mod ring_packet;
mod rings;
mod storage_file;
mod storage_ram;
mod storage_watched;
mod storvsc;
mod turns;
mod two_threads;
mod virtio;

use std::fs;

use report::Line;

type Bench = fn(&mut Vec<Line>);

const BENCHES: &[(&str, Bench)] = &[
    ("ring/packet", ring_packet::run),
    ("ring/two-threads", two_threads::run),
    ("storage/ram", storage_ram::run),
    ("storage/virtio", virtio::run),
    ("storage/watched", storage_watched::run),
    ("storage/file", storage_file::run),
    ("network/frames", network_frames::run),
    ("bus/churn", churn::run),
];

fn main() {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if_eq("--turns").is_some() {
        return turns::main(words);
    }
    let lab = words.next_if_eq("--lab").map(|_| words.next().expect("--lab FILE"));
    let wanted: Vec<String> = words.collect();
    let mut lines = Vec::new();
    for (name, run) in if lab.is_some() { lab::BENCHES } else { BENCHES } {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            eprintln!("bench: {name}");
            run(&mut lines);
        }
    }
    let json = serde_json::to_string_pretty(&lines).expect("lines are plain") + "\n";
    match lab {
        Some(file) => fs::write(file, json).expect("--lab FILE can be written"),
        None => print!("{json}"),
    }
}
