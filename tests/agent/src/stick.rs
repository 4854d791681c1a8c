// SPDX-License-Identifier: MIT OR Apache-2.0

//! A processor that takes no interrupt for a while, whatever comes.
//!
//! A task that is bound to it raises its priority above all vectors by the register that Hyper-V has for that,
//! and then does not call the kernel any more, which therefore never gets to run there.

use std::fs::{File, OpenOptions};
use std::hint;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::words::Words;

/// HV_X64_MSR_TPR (TLFS, "Virtual processor assist"): bits 7 to 4 are the class up to which interrupts wait.
const TASK_PRIORITY: u64 = 0x4000_0072;
const NO_INTERRUPTS: u64 = 0xf0;

/// How far it is.
const READY: u8 = 0;
const STUCK: u8 = 1;
const FREE: u8 = 2;

/// Runs on another processor than the one that is to be stuck. Says `stuck` when it is, and frees it when a
/// file `until` is there.
pub(crate) fn run(cpu: &str, mut words: Words) -> Result<(), String> {
    let until = words.text("until", "free");
    words.end()?;
    let cpu: usize = cpu.parse().map_err(|_| format!("{cpu}: not a processor"))?;
    let path = format!("/dev/cpu/{cpu}/msr");
    let registers = OpenOptions::new().write(true).open(&path);
    let registers = registers.map_err(|error| format!("{path}: {error}"))?;
    let state = AtomicU8::new(READY);
    let result = thread::scope(|scope| {
        let stuck = scope.spawn(|| stick(cpu, &registers, &state));
        while state.load(Ordering::SeqCst) == READY && !stuck.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
        if state.load(Ordering::SeqCst) == STUCK {
            println!("stuck");
        }
        while !Path::new(&until).exists() && !stuck.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
        state.store(FREE, Ordering::SeqCst);
        stuck.join()
    });
    let result = result.map_err(|_| "the stuck thread panicked".to_owned())?;
    result.map_err(|error| format!("{path}: {error}"))
}

fn stick(cpu: usize, registers: &File, state: &AtomicU8) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only)?;
    registers.write_all_at(&NO_INTERRUPTS.to_le_bytes(), TASK_PRIORITY)?;
    state.store(STUCK, Ordering::SeqCst);
    while state.load(Ordering::SeqCst) == STUCK {
        hint::spin_loop();
    }
    registers.write_all_at(&0_u64.to_le_bytes(), TASK_PRIORITY)
}
