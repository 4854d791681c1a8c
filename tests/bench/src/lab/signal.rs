// SPDX-License-Identifier: MIT OR Apache-2.0

//! guest/signal: a fast HvSignalEvent on an open channel, as the guest waits for it, by each engine.
//!
//! The guest is our own (`busway_testkit::tiny_guest`), so nothing else happens on its processor. The
//! limit of busway's own engine is KVM's, and of a channel among 500 that are open, the same one alone.

use std::fs;
use std::path::Path;

use busway_testkit::tiny_guest::{DiskChannel, Program, VECTOR};

use super::guest::{busway, disk};
use crate::report::{Line, median};

const COUNT: u32 = 20_000;
const TIME_REF_COUNT: u32 = 0x4000_0020;

pub fn run(lines: &mut Vec<Line>) {
    let mut of_kvm = None;
    for engine in ["kvm", "userspace"] {
        let alone = measure(engine, 0);
        lines.push(Line::nanoseconds("guest/signal", engine, alone, of_kvm));
        let params = format!("{engine} channels=500");
        lines.push(Line::nanoseconds("guest/signal", params, measure(engine, 499), Some(alone)));
        of_kvm = Some(alone);
    }
}

/// Nanoseconds of a signal on a channel that was opened after `others`.
fn measure(engine: &str, others: u32) -> f64 {
    let kernel = Path::new("signals.elf");
    fs::write(kernel, program(others)).expect("room for a guest");
    median(|| nanoseconds(kernel, engine, others))
}

fn program(others: u32) -> Vec<u8> {
    let mut guest = Program::with_synic();
    guest.on_interrupt(VECTOR);
    let channel = DiskChannel::open_after(&mut guest, others);
    guest.read_msr(TIME_REF_COUNT);
    channel.signal_fast(&mut guest, COUNT);
    guest.read_msr(TIME_REF_COUNT);
    guest.finish()
}

fn nanoseconds(kernel: &Path, engine: &str, others: u32) -> f64 {
    let mut command = busway(kernel);
    command.args(["--hyperv", engine, "--integration", "none", "--serial", "file=signals"]);
    for number in 0..others {
        command.arg("--raw").arg(format!("ffffffff-6275-4000-8000-{number:012x}"));
    }
    let status = command.arg("--disk").arg(disk()).status().expect("busway runs");
    assert!(status.success(), "{engine}: {status}");
    let found = fs::read("signals").expect("the guest's results");
    let words: Vec<_> = found
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
        .collect();
    let &[before, status, after] = words.last_chunk().expect("three results");
    assert_eq!(status, 0, "the status of the last signal");
    (after - before) as f64 * 100.0 / f64::from(COUNT)
}
