// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bus from end to end: contact, offer, rings, packets, their answers, signals both ways.

use std::fs;

use busway_testkit::tiny_guest::{DiskChannel, Program, VECTOR};
use tempfile::NamedTempFile;

use crate::{boot, run};

fn small_disk() -> NamedTempFile {
    let disk = NamedTempFile::new().unwrap();
    fs::write(disk.path(), [0; 4096]).unwrap();
    disk
}

/// Hears its SynIC.
fn listening() -> Program {
    let mut guest = Program::with_synic();
    guest.on_interrupt(VECTOR);
    guest.allow_interrupts();
    guest
}

pub(crate) fn a_disk_answers_on_its_rings() {
    let disk = small_disk();

    let mut guest = listening();
    let mut channel = DiskChannel::open(&mut guest);
    // BEGIN_INITIALIZATION.
    channel.send(&mut guest, &[7, 1]);
    channel.signal(&mut guest);
    channel.receive(&mut guest);
    // Nobody clears the flag, so that no second interrupt comes; the fast signal does not leave the
    // kernel.
    channel.wait_for_flag(&mut guest);
    // QUERY_PROTOCOL_VERSION, 6.0.
    channel.send(&mut guest, &[9, 1, 0, 0x0600]);
    channel.signal_fast(&mut guest, 1);
    channel.receive(&mut guest);
    guest.read_faults();

    let argument = disk.path().display().to_string();
    let mut found = boot(guest, &["--integration", "none", "--strict=fail", "--disk", &argument]);
    for (index, word) in found.iter_mut().enumerate() {
        if index != 2 {
            *word &= 0xffff_ffff;
        }
    }
    let (opened, packets) = found.split_at(DiskChannel::OPENED.len());
    assert_eq!(opened, DiskChannel::OPENED);
    // Each: status of the signal; a completion at 16 bytes; transaction; operation; status.
    let answer = |number: u64| [0, 2 << 16 | 11, 0x1234 + number, 1, 0];
    assert_eq!(packets[..5], answer(0));
    assert_eq!(packets[5..], [&answer(1)[..], &[0]].concat(), "and no fault");
}

/// All are open, each with a thread and an eventfd of its own; the disk's is the last that is connected.
pub(crate) fn a_signal_finds_its_channel_among_500() {
    let disk = small_disk();

    let mut guest = listening();
    let mut channel = DiskChannel::open_after(&mut guest, 499);
    channel.send(&mut guest, &[7, 1]);
    channel.signal_fast(&mut guest, 1);
    channel.receive(&mut guest);

    let mut words = vec!["--integration".to_owned(), "none".to_owned(), "--disk".to_owned()];
    words.push(disk.path().display().to_string());
    for number in 0..499 {
        words.extend(["--raw".to_owned(), format!("ffffffff-6275-4000-8000-{number:012x}")]);
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let found: Vec<_> = boot(guest, &words).iter().map(|word| word & 0xffff_ffff).collect();
    let (opened, answer) = found.split_at(DiskChannel::OPENED.len() + 6);
    let expected = DiskChannel::OPENED.map(|word| word & 0xffff_ffff);
    assert_eq!(opened[..6], expected[..6]);
    assert_eq!(opened[6..12], expected[6..], "the last of the others");
    assert_eq!(opened[12..], expected[6..], "the disk");
    assert_eq!(*answer, [0, 2 << 16 | 11, 0x1234, 1, 0]);
}

/// It gets its answer all the same, and fails at its end only.
pub(crate) fn a_guest_that_breaks_a_rule_has_failed() {
    let disk = small_disk();
    let argument = disk.path().display().to_string();
    for (strict, status) in [("--strict", 0), ("--strict=warn", 0), ("--strict=fail", 1)] {
        let mut guest = listening();
        let mut channel = DiskChannel::open(&mut guest);
        // BEGIN_INITIALIZATION with a flag that is none.
        channel.send(&mut guest, &[7, 3]);
        channel.signal(&mut guest);
        channel.receive(&mut guest);
        let more = ["--integration", "none", strict, "--disk", &argument];
        let (output, serial) = run(&guest.finish(), &more);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(serial.len() > 8 * DiskChannel::OPENED.len(), "it was answered");
        let finding = "vstor-flags: storage, channel 1: DATA_IN_BAND id=0x1234: flags is 0x3, expected 0 or 1";
        assert!(stderr.contains(finding), "{stderr}");
        assert!(stderr.contains("and 1 packets of the guest's\n  vstor-flags "), "{stderr}");
    }
}
