// SPDX-License-Identifier: MIT OR Apache-2.0

//! guest/network: TCP between a stock guest and its host over a TAP, each way: how long a MiB takes,
//! and how many VM exits.
//!
//! A guest that moves twice as much has so many more exits; start and end drop out. Both ends make or
//! check every byte, which is part of the time that it takes; so does the host that talks to itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use busway_guest_agent::{check_noise, send_noise};

use super::guest::{Running, stock};
use super::tap::{PULL, PUSH, Tap};
use crate::report::Line;

const NAME: &str = "guest/network";
const MIB: u64 = 64;

/// A signal and an interrupt for each 64 KiB, which is the longest frame.
const LEAST: f64 = 2.0 * 16.0;

/// Of runs that do the same the one with the least counts.
const RUNS: usize = 3;

pub fn run(lines: &mut Vec<Line>) {
    let tap = Tap::new(false).expect("a TAP of the host");
    for (way, verb) in [("sent", "push"), ("received", "pull")] {
        let [(_, once), (seconds, twice)] =
            [MIB, 2 * MIB].map(|mib| least((0..RUNS).map(|_| guest(&tap, verb, mib))));
        let (seconds, exits) = (seconds / (2 * MIB) as f64, (twice - once) / MIB as f64);
        let limit = (0..RUNS).map(|_| host(verb, MIB)).fold(f64::INFINITY, f64::min) / MIB as f64;
        let line = |what: &str, value, unit, limit| {
            Line::less(NAME, format!("TCP {way}, 1 MiB: {what}"), value, unit, Some(limit))
        };
        lines.push(line("time, limit: the host to itself", seconds * 1e3, "ms", limit * 1e3));
        lines.push(line("VM exits", exits, "exits", LEAST));
    }
}

fn least(runs: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    runs.reduce(|a, b| (a.0.min(b.0), a.1.min(b.1))).expect("some runs")
}

/// Seconds that so many MiB take in a guest, and the exits of its whole life.
fn guest(tap: &Tap, verb: &str, mib: u64) -> (f64, f64) {
    let port = if verb == "push" { PUSH } else { PULL };
    let script = format!(
        "until card=$(ls /sys/class/net | grep eth); do usleep 20000; done
        ip link set $card up
        ip addr add {}/24 dev $card
        agent {verb} {}:{port} length=1k && echo it begins
        agent {verb} {}:{port} length={mib}m && echo all has passed",
        tap.guest(),
        tap.host(),
        tap.host(),
    );
    let mut command = stock(&script);
    let network = format!("tap={}", tap.name());
    let mut guest = Running::start(command.args(["--net", &network, "--stats", "stats"]));
    let begun = guest.line("it begins");
    let seconds = (guest.line("all has passed") - begun).as_secs_f64();
    guest.end();
    let stats = fs::read("stats").expect("--stats");
    let counters: BTreeMap<String, u64> = serde_json::from_slice(&stats).expect("counters");
    eprintln!("bench: {verb}: {mib} MiB, {seconds:.1} s, {} exits", counters["exits"]);
    (seconds, counters["exits"] as f64)
}

/// Seconds that so many MiB take from the host to itself.
fn host(verb: &str, mib: u64) -> f64 {
    let (port, length) = (if verb == "push" { PUSH } else { PULL }, mib << 20);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("who answers");
    let started = Instant::now();
    stream.write_all([1, length].map(u64::to_le_bytes).as_flattened()).expect("a connection");
    if verb == "push" {
        send_noise(&mut stream, 1, length).expect("a connection");
        stream.shutdown(Shutdown::Write).expect("a connection");
        stream.read_exact(&mut [0]).expect("an answer");
    } else {
        check_noise(&mut stream, 1, length).expect("what was asked for");
    }
    started.elapsed().as_secs_f64()
}
