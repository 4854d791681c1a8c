// SPDX-License-Identifier: MIT OR Apache-2.0

//! Busway's own Hyper-V on this machine's real KVM, whatever that can do, with a guest of our own:
//! stock kernels ask for more than some KVMs have, a tiny guest does not. Where there is no KVM at
//! all, these tests are skipped.
//!
//! Numbers of MSRs, hypercalls and messages are spelled out as the TLFS and Linux have them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bus;
mod entry;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, ExitCode, Output};

use busway_testkit::tiny_guest::{
    EVENTS, FAST, HYPERCALL_PAGE, MESSAGES, PAGES, Program, SIGNAL_EVENT as SIGNAL, VECTOR,
};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// A test, and what it is called.
type Test = (&'static str, fn());

const TESTS: [Test; 15] = [
    ("registers_read_back_what_was_written", registers_read_back_what_was_written),
    ("what_is_no_msr_is_refused", what_is_no_msr_is_refused),
    ("time_by_the_page_is_time_by_the_msr", time_by_the_page_is_time_by_the_msr),
    ("calls_return_their_status", calls_return_their_status),
    ("calls_from_32_bit_code_return_their_status", calls_from_32_bit_code_return_their_status),
    ("an_ipi_is_an_interrupt", an_ipi_is_an_interrupt),
    ("a_timer_is_an_interrupt", a_timer_is_an_interrupt),
    ("a_timer_is_a_message", a_timer_is_a_message),
    ("an_interrupt_ends_itself", an_interrupt_ends_itself),
    ("machines_of_16_and_64_processors_work", machines_of_16_and_64_processors_work),
    ("a_pvh_entry_is_taken", entry::a_pvh_entry_is_taken),
    ("a_32_bit_linux_is_entered_as_such", entry::a_32_bit_linux_is_entered_as_such),
    ("a_disk_answers_on_its_rings", bus::a_disk_answers_on_its_rings),
    ("a_signal_finds_its_channel_among_500", bus::a_signal_finds_its_channel_among_500),
    ("a_guest_that_breaks_a_rule_has_failed", bus::a_guest_that_breaks_a_rule_has_failed),
];

fn main() -> ExitCode {
    let missing = what_is_missing();
    let trial = |(name, test): Test| {
        let missing = missing.clone();
        Trial::ignorable_test(name, move || match missing {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => run_test(test),
        })
    };
    let trials = TESTS.into_iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn run_test(test: fn()) -> Result<Completion, Failed> {
    panic::catch_unwind(AssertUnwindSafe(test))
        .map(|()| Completion::Completed)
        .map_err(|_| "see above".into())
}

/// Why no guest can run here, in one line.
fn what_is_missing() -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_busway")).arg("check").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (!output.status.success()).then(|| text.lines().take(3).collect::<Vec<_>>().join(" "))
}

/// Boots `program`; returns its results. `more` is added to busway's command line.
fn boot(program: Program, more: &[&str]) -> Vec<u64> {
    let bytes = boot_file(&program.finish(), more);
    bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

/// Boots the kernel in these bytes; returns what it wrote to its serial port.
fn boot_file(bytes: &[u8], more: &[&str]) -> Vec<u8> {
    let (output, serial) = run(bytes, more);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serial
}

/// As `boot_file`, but the machine may end as it likes.
fn run(bytes: &[u8], more: &[&str]) -> (Output, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let (kernel, serial) = (directory.path().join("kernel"), directory.path().join("serial"));
    fs::write(&kernel, bytes).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_busway"))
        .args(["run", "--hyperv", "userspace", "--memory", "64M", "--timeout", "60", "--kernel"])
        .arg(&kernel)
        .arg("--serial")
        .arg(format!("file={}", serial.display()))
        .args(more)
        .output()
        .unwrap();
    (output, fs::read(serial).unwrap())
}

const INPUT: u64 = PAGES.start + 0x3000;
const TSC_PAGE: u64 = PAGES.start + 0x4000;

fn registers_read_back_what_was_written() {
    let mut guest = Program::new();
    guest.write_msr(0x4000_0001, HYPERCALL_PAGE | 1);
    guest.read_msr(0x4000_0001);
    guest.write_msr(0x4000_0000, 0x8100_0006_0001_0000);
    guest.write_msr(0x4000_0001, HYPERCALL_PAGE | 1);
    guest.read_msr(0x4000_0001);
    // ENDBR64.
    guest.read(HYPERCALL_PAGE);
    let values = [
        (0x4000_0000, 0x8100_0006_0001_0000),
        (0x4000_0083, MESSAGES | 0xff1),
        (0x4000_0082, EVENTS | 0xff1),
        (0x4000_0092, 0xffff_ffff_fffe_0051),
        (0x4000_0080, 0xffff_ffff_ffff_fff1),
        (0x4000_0100, 77),
    ];
    for (msr, value) in values {
        guest.write_msr(msr, value);
        guest.read_msr(msr);
    }
    guest.read_msr(0x4000_0002);
    guest.read_msr(0x4000_0090);
    guest.read_faults();
    let found = boot(guest, &[]);
    assert_eq!(found[0], HYPERCALL_PAGE, "no hypercalls for nobody");
    assert_eq!(found[1], HYPERCALL_PAGE | 1);
    assert_eq!(found[2] & 0xffff_ffff, 0xfa1e_0ff3);
    assert_eq!(found[3..9], values.map(|(_, value)| value));
    assert_eq!(found[9..], [0, 1 << 16, 0], "VP index, a masked SINT, no fault");
}

fn what_is_no_msr_is_refused() {
    let mut guest = Program::new();
    for msr in [0x4000_0085, 0x4000_00f0, 0x4000_0118, 0x4000_01ff] {
        guest.read_msr(msr);
        guest.write_msr(msr, 0);
    }
    // VP_INDEX, SVERSION, TIME_REF_COUNT and TSC_FREQUENCY are read-only.
    for msr in [0x4000_0002, 0x4000_0081, 0x4000_0020, 0x4000_0022] {
        guest.write_msr(msr, 0);
    }
    // A SINT has no exception's vector.
    guest.write_msr(0x4000_0093, 0x0f);
    guest.read_faults();
    let found = boot(guest, &[]);
    assert_eq!(found.last(), Some(&13));
}

/// `hv_read_tsc_page` of Linux `include/clocksource/hyperv_timer.h`.
fn time_by_the_page_is_time_by_the_msr() {
    let mut guest = Program::new();
    guest.write_msr(0x4000_0021, TSC_PAGE | 1);
    guest.read_msr(0x4000_0020);
    guest.read_tsc();
    guest.read_msr(0x4000_0020);
    for offset in [0, 8, 16] {
        guest.read(TSC_PAGE + offset);
    }
    guest.read_msr(0x4000_0022);
    guest.read_faults();
    let found = boot(guest, &[]);
    let [before, tsc, after, sequence, scale, offset, frequency, faults] = found[..] else {
        panic!("{found:x?}");
    };
    assert!(before <= after);
    assert!(frequency > 100_000_000);
    if faults == 1 {
        // No page where the host's own clock is not its TSC; the MSR works all the same.
        return;
    }
    assert_eq!(sequence as u32, 1);
    let by_page = ((u128::from(tsc) * u128::from(scale)) >> 64) as u64;
    let by_page = by_page.wrapping_add(offset);
    assert!((before..=after).contains(&by_page), "{before} {by_page} {after}");
}

/// Control words and inputs, and what they return.
fn calls() -> Vec<([u64; 3], u64)> {
    vec![
        // Fast signals: no such connection; a flag number, of which there is none.
        ([SIGNAL | FAST, 0x2001, 0], 0x12),
        ([SIGNAL | FAST, 1 << 32 | 0x2001, 0], 5),
        // Slow ones: the same; not aligned; no RAM.
        ([SIGNAL, INPUT, 0], 0x12),
        ([SIGNAL, INPUT + 4, 0], 4),
        ([SIGNAL, 0x7000_0000, 0], 4),
        // A message for nobody.
        ([0x5c, INPUT, 0], 0x12),
        // No such call; reserved bits.
        ([0x8002, INPUT, 0], 2),
        ([SIGNAL | FAST | 1 << 63, 0x2001, 0], 3),
        // Flushes: by mask, of a list of two, by a sparse set, in XMM registers, which are zero.
        ([2, INPUT + 0x100, 0], 0),
        ([3 | 2 << 32, INPUT + 0x100, 0], 2 << 32),
        ([0x13 | 1 << 17, INPUT + 0x200, 0], 0),
        ([2 | FAST, 0, 0], 0),
        // An IPI for nobody, with an exception's vector.
        ([0xb | FAST, 0x60, 0], 0),
        ([0xb | FAST, 0x0d, 1], 5),
        ([8 | FAST, 0, 0], 0),
    ]
}

fn put_inputs(guest: &mut Program) {
    guest.put_words(INPUT, &[0x2001, 1 | 8 << 32, 3]);
    guest.put_words(INPUT + 0x100, &[0x1000, 2, 1, 0x7000, 0x8000]);
    guest.put_words(INPUT + 0x200, &[0x1000, 2, 0, 1, 1]);
}

fn calls_return_their_status() {
    let mut guest = Program::with_hypercalls();
    put_inputs(&mut guest);
    for ([control, input, output], _) in calls() {
        guest.call_64(HYPERCALL_PAGE, control, input, output);
    }
    let found = boot(guest, &[]);
    assert_eq!(found, calls().into_iter().map(|(_, result)| result).collect::<Vec<_>>());
}

fn calls_from_32_bit_code_return_their_status() {
    let mut guest = Program::with_hypercalls();
    put_inputs(&mut guest);
    for ([control, input, output], _) in calls() {
        guest.call_32(HYPERCALL_PAGE, control, input, output);
    }
    let found = boot(guest, &[]);
    assert_eq!(found, calls().into_iter().map(|(_, result)| result).collect::<Vec<_>>());
}

fn an_ipi_is_an_interrupt() {
    let mut guest = Program::with_hypercalls();
    guest.on_interrupt(VECTOR);
    guest.allow_interrupts();
    for count in 1..=3 {
        guest.call_64(HYPERCALL_PAGE, 0xb | FAST, VECTOR.into(), 1);
        guest.wait_for_interrupts(count);
    }
    guest.read_interrupts();
    guest.read_faults();
    assert_eq!(boot(guest, &[]), [0, 0, 0, 3, 0], "each is ended, and lets the next one in");
}

fn a_timer_is_an_interrupt() {
    let mut guest = Program::new();
    guest.on_interrupt(VECTOR);
    guest.allow_interrupts();
    // Direct mode, auto-enable; 1 ms from now, twice.
    guest.write_msr(0x4000_00b0, 1 << 12 | u64::from(VECTOR) << 4 | 1 << 3);
    for count in 1..=2 {
        guest.write_count(0x4000_00b1, 10_000);
        guest.wait_for_interrupts(count);
    }
    guest.read_msr(0x4000_00b0);
    // Periodic: 1 ms.
    guest.write_msr(0x4000_00b3, 10_000);
    guest.write_msr(0x4000_00b2, 1 << 12 | u64::from(VECTOR) << 4 | 1 << 1 | 1);
    guest.wait_for_interrupts(5);
    guest.write_msr(0x4000_00b2, 0);
    guest.read_faults();
    let config = 1 << 12 | u64::from(VECTOR) << 4 | 1 << 3;
    assert_eq!(boot(guest, &[]), [config, 0], "a one-shot disables itself");
}

fn a_timer_is_a_message() {
    const SLOT: u64 = MESSAGES + 0x200;
    let mut guest = Program::with_synic();
    guest.on_interrupt(VECTOR);
    guest.allow_interrupts();
    // On SINT 2, auto-enable.
    guest.write_msr(0x4000_00b6, 2 << 16 | 1 << 3);
    guest.write_count(0x4000_00b7, 10_000);
    guest.wait(SLOT, !0, 0x8000_0010);
    for offset in [0, 0x10] {
        guest.read(SLOT + offset);
    }
    guest.wait_for_interrupts(1);
    // The slot is full: the second message waits for EOM.
    guest.write_count(0x4000_00b7, 10_000);
    guest.wait(SLOT + 4, 0x100, 0x100);
    guest.store(SLOT, 0);
    guest.write_msr(0x4000_0084, 0);
    guest.wait(SLOT, !0, 0x8000_0010);
    guest.wait_for_interrupts(2);
    guest.read_faults();
    let found = boot(guest, &[]);
    assert_eq!(found, [24 << 32 | 0x8000_0010, 3, 0], "timer 3, 24 bytes of payload");
}

/// As FreeBSD and iPXE have it of every SINT; one that is not ended by anybody would be the last.
fn an_interrupt_ends_itself() {
    const SLOT: u64 = MESSAGES + 0x200;
    let mut guest = Program::with_synic();
    guest.write_msr(0x4000_0092, 1 << 17 | u64::from(VECTOR));
    guest.on_interrupt_that_ends_itself(VECTOR);
    guest.allow_interrupts();
    let due_soon = |guest: &mut Program| {
        guest.store(SLOT, 0);
        guest.write_msr(0x4000_0084, 0);
        guest.write_count(0x4000_00b1, 10_000);
    };
    guest.write_msr(0x4000_00b0, 2 << 16 | 1 << 3);
    for count in 1..=2 {
        due_soon(&mut guest);
        guest.wait_for_interrupts(count);
    }
    // One comes while it takes none.
    guest.hold_interrupts();
    due_soon(&mut guest);
    guest.wait(SLOT, !0, 0x8000_0010);
    guest.read_interrupts();
    guest.take_interrupts();
    guest.wait_for_interrupts(3);
    // One wakes it.
    guest.hold_interrupts();
    due_soon(&mut guest);
    guest.halt();
    guest.read_interrupts();
    // In service in the APIC is none.
    guest.copy(0xfee0_0100 + 0x10 * u64::from(VECTOR / 32), PAGES.start + 0x5000);
    guest.read(PAGES.start + 0x5000);
    guest.read_faults();
    assert_eq!(boot(guest, &[]), [2, 4, 0, 0]);
}

/// The first processor speaks to all others, which nobody has started: neither call waits for them.
fn machines_of_16_and_64_processors_work() {
    for (cpus, all) in [("16", 0xffff), ("64", u64::MAX)] {
        let mut guest = Program::with_hypercalls();
        guest.on_interrupt(VECTOR);
        guest.allow_interrupts();
        // All translations of some address space, of these processors: by mask, and by a sparse set.
        guest.put_words(INPUT, &[0x1000, 0, all]);
        guest.put_words(INPUT + 0x100, &[0x1000, 0, 0, 1, all]);
        guest.call_64(HYPERCALL_PAGE, 2, INPUT, 0);
        guest.call_64(HYPERCALL_PAGE, 0x13 | 1 << 17, INPUT + 0x100, 0);
        // An IPI for all of them, this one too.
        guest.call_64(HYPERCALL_PAGE, 0xb | FAST, VECTOR.into(), all);
        guest.wait_for_interrupts(1);
        guest.read_interrupts();
        guest.read_faults();
        assert_eq!(boot(guest, &["--cpus", cpus]), [0, 0, 0, 1, 0], "{cpus} processors");
    }
}
