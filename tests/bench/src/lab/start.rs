// SPDX-License-Identifier: MIT OR Apache-2.0

//! vmm/start: what busway costs before and besides its guest. Beside it, the least KVM program.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::guest::{Running, busway, stock};
use super::process::{Sleeps, private_kib, sleeps};
use crate::report::{Line, median_of};

const NAME: &str = "vmm/start";
const ROUNDS: usize = 11;

/// After its first word, an idle guest comes to rest within this time.
const REST: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);

pub fn run(lines: &mut Vec<Line>) {
    first_instruction(lines);
    idle(lines);
    let size = mib(length(&program("busway")) / 1024);
    let limit = mib(length(Path::new("empty-vm")) / 1024);
    lines.push(Line::less(NAME, "stripped binary", size, "MiB", Some(limit)));
}

/// Both are seen by a byte: the guest's comes out of its serial port, the limit's after its HLT.
fn first_instruction(lines: &mut Vec<Line>) {
    let kernel = PathBuf::from("first-word.elf");
    File::create(&kernel).and_then(|mut file| file.write_all(&first_word())).expect("a kernel");
    let milliseconds = |mut command| Running::start(&mut command).first_byte().as_secs_f64() * 1e3;
    let rounds = (0..ROUNDS)
        .map(|_| (milliseconds(busway(&kernel)), milliseconds(Command::new("./empty-vm"))));
    let (values, limits) = rounds.unzip();
    let (value, limit) = (median_of(values), median_of(limits));
    lines.push(Line::less(NAME, "exec to the first instruction", value, "ms", Some(limit)));
}

/// A stock guest of 512 MiB with a disk, which has nothing to do.
fn idle(lines: &mut Vec<Line>) {
    let disk = super::guest::disk();
    let script = "echo at rest; sleep 1000";
    let mut guest = Running::start(stock(script).arg("--disk").arg(disk));
    guest.line("at rest");
    thread::sleep(REST);
    let private = mib(private_kib(guest.pid()));
    let limit = mib(private_of_the_least());
    lines.push(Line::less(NAME, "private memory, 512 MiB guest", private, "MiB", Some(limit)));

    let before = sleeps(guest.pid());
    thread::sleep(IDLE);
    let after = sleeps(guest.pid());
    let rate = |of: fn(&Sleeps) -> u64| (of(&after) - of(&before)) as f64 / IDLE.as_secs_f64();
    let others = rate(|sleeps| sleeps.others);
    lines.push(Line::less(NAME, "wake-ups, idle guest", others, "/s", Some(0.0)));
    let vcpus = rate(|sleeps| sleeps.vcpus);
    lines.push(Line::less(NAME, "wake-ups of its vCPU, in KVM", vcpus, "/s", None));
}

fn private_of_the_least() -> u64 {
    let mut least = Running::start(&mut Command::new("./empty-vm"));
    least.first_byte();
    private_kib(least.pid())
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).expect("a program").len()
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|place| place.exists()).expect("busway is on the PATH")
}

/// An ELF kernel whose first act is a byte on the serial port, and its last to halt for ever.
///
/// Source: System V ABI, object files (ELF-64).
fn first_word() -> Vec<u8> {
    const ENTRY: u64 = 0x20_0000;
    const HEADERS: u64 = 64 + 56;
    // mov edx, 0x3f8; mov al, '!'; out dx, al; hlt; jmp to the hlt
    let code = [0xba, 0xf8, 0x03, 0, 0, 0xb0, b'!', 0xee, 0xf4, 0xeb, 0xfd];
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let mut put = |values: &[u64], bytes: usize| {
        values.iter().for_each(|value| file.extend(&value.to_le_bytes()[..bytes]));
    };
    // An executable for x86-64, version 1, one program header and no sections.
    put(&[2, 62], 2);
    put(&[1], 4);
    put(&[ENTRY, 64, 0], 8);
    put(&[0], 4);
    put(&[64, 56, 1, 0, 0, 0], 2);
    // To be loaded: readable and executable, where in the file, where in memory, how long.
    put(&[1, 5], 4);
    let length = code.len() as u64;
    put(&[HEADERS, ENTRY, ENTRY, length, length, 4096], 8);
    file.extend(code);
    file
}
