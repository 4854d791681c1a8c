// SPDX-License-Identifier: MIT OR Apache-2.0

//! Takes the in-process measurements and prints them as a JSON array; `cargo xtask bench` makes the
//! table. With arguments, only the lines whose name contains one of them.

mod churn;
mod report;
mod ring_packet;
mod rings;
mod storage_file;
mod storage_ram;
mod storvsc;
mod two_threads;

use report::Line;

type Bench = fn(&mut Vec<Line>);

const BENCHES: &[(&str, Bench)] = &[
    ("ring/packet", ring_packet::run),
    ("ring/two-threads", two_threads::run),
    ("storage/ram", storage_ram::run),
    ("storage/file", storage_file::run),
    ("bus/churn", churn::run),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut lines = Vec::new();
    for (name, run) in BENCHES {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            eprintln!("bench: {name}");
            run(&mut lines);
        }
    }
    match serde_json::to_string_pretty(&lines) {
        Ok(json) => println!("{json}"),
        Err(error) => eprintln!("bench: {error}"),
    }
}
