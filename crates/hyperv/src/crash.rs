// SPDX-License-Identifier: MIT OR Apache-2.0

//! The crash MSRs: how a guest says that it dies, and of what.
//!
//! A guest fills P0 to P4 and writes CTL with [`NOTIFY`]. Without [`MESSAGE`] the five words are
//! its own (Linux: error, GUEST_OS_ID, RIP, RAX, RSP). With it, P3 and P4 are the address and the
//! length of a text, of which Linux gives the tail of its log; a guest that finds the bit when it
//! reads CTL prefers that.
//!
//! Source: TLFS, "Crash enlightenment" (HV_X64_MSR_CRASH_*); Linux `drivers/hv/hv_common.c`,
//! `arch/x86/hyperv/hv_init.c`.

use crate::msr::{CRASH_CTL, CRASH_P0, CRASH_P4};

/// CTL bit 63: the report is complete.
pub const NOTIFY: u64 = 1 << 63;

/// CTL bit 62: P3 and P4 describe a text.
pub const MESSAGE: u64 = 1 << 62;

/// The longest text, in bytes: a page.
pub const MAX_TEXT: usize = 4096;

/// The five words.
const WORDS: usize = (CRASH_P4 - CRASH_P0 + 1) as usize;

/// The crash MSRs of a machine.
#[derive(Debug, Default)]
pub struct CrashRegisters {
    words: [u64; WORDS],
}

/// A finished report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashReport {
    /// P0 to P4 as written.
    pub words: [u64; WORDS],
    /// Where the text is, if there is one.
    pub text: Option<TextLocation>,
}

/// A text in guest memory. The guest chose both numbers: nothing is known of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextLocation {
    /// Guest physical address.
    pub address: u64,
    /// Bytes, 1 to [`MAX_TEXT`].
    pub len: usize,
}

impl CrashRegisters {
    /// What the guest reads; `None` if `msr` is none of these.
    pub fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            CRASH_CTL => Some(NOTIFY | MESSAGE),
            _ => self.words.get(word(msr)?).copied(),
        }
    }

    /// What the guest writes; a report if that completes one. MSRs that are none of these are
    /// ignored.
    pub fn write(&mut self, msr: u32, value: u64) -> Option<CrashReport> {
        if msr != CRASH_CTL {
            *self.words.get_mut(word(msr)?)? = value;
            return None;
        }
        (value & NOTIFY != 0).then(|| CrashReport {
            words: self.words,
            text: (value & MESSAGE != 0).then(|| self.text()).flatten(),
        })
    }

    /// Linux 7.3 may send an empty text when it could not get one.
    fn text(&self) -> Option<TextLocation> {
        let [_, _, _, address, len] = self.words;
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_TEXT);
        (len > 0).then_some(TextLocation { address, len })
    }
}

/// The index of `msr` among the five words.
fn word(msr: u32) -> Option<usize> {
    let word = msr.checked_sub(CRASH_P0)? as usize;
    (word < WORDS).then_some(word)
}

/// The text of a dying guest, fit for a terminal: line breaks and tabs stay, anything else that
/// is no printable ASCII is escaped, so that a guest cannot steer the terminal of who reads it.
pub fn printable(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    let text = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    let mut printable = String::with_capacity(text.len());
    for &byte in text {
        match byte {
            b'\n' | b'\t' | b' '..=b'~' => printable.push(char::from(byte)),
            _ => printable.extend(byte.escape_ascii().map(char::from)),
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order of writes is that of Linux 6.1's `hyperv_report_panic`.
    #[test]
    fn registers_are_reported_when_ctl_says_so() {
        let mut crash = CrashRegisters::default();
        for (msr, value) in (0x4000_0100..).zip([1, 2, 3, 4, 5]) {
            assert_eq!(crash.write(msr, value), None);
        }
        let report = crash.write(0x4000_0105, 1 << 63).unwrap();
        assert_eq!(report.words, [1, 2, 3, 4, 5]);
        assert_eq!(report.text, None);
        assert_eq!(crash.read(0x4000_0104), Some(5));
    }

    #[test]
    fn a_text_is_where_p3_and_p4_say() {
        let mut crash = CrashRegisters::default();
        crash.write(0x4000_0103, 0x1234_5000);
        crash.write(0x4000_0104, 700);
        let report = crash.write(0x4000_0105, 1 << 63 | 1 << 62).unwrap();
        let text = TextLocation { address: 0x1234_5000, len: 700 };
        assert_eq!(report.text, Some(text));
    }

    #[test]
    fn a_text_has_a_bound_and_may_be_empty() {
        let mut crash = CrashRegisters::default();
        assert_eq!(crash.write(CRASH_CTL, NOTIFY | MESSAGE).unwrap().text, None);
        crash.write(CRASH_P4, u64::MAX);
        let text = crash.write(CRASH_CTL, NOTIFY | MESSAGE).unwrap().text;
        assert_eq!(text.unwrap().len, 4096);
    }

    #[test]
    fn ctl_says_that_texts_are_welcome_and_keeps_nothing() {
        let mut crash = CrashRegisters::default();
        assert_eq!(crash.write(CRASH_CTL, MESSAGE), None);
        assert_eq!(crash.read(CRASH_CTL), Some(1 << 63 | 1 << 62));
    }

    #[test]
    fn other_msrs_are_not_ours() {
        let mut crash = CrashRegisters::default();
        for msr in [0x4000_00ff, 0x4000_0106, 0, u32::MAX] {
            assert_eq!(crash.read(msr), None);
            assert_eq!(crash.write(msr, u64::MAX), None);
        }
    }

    #[test]
    fn a_guest_cannot_steer_the_terminal() {
        let text = b"Kernel panic\n\t\x1b[2J\xc2\x9b\r after \x7f\0never";
        assert_eq!(printable(text), "Kernel panic\n\t\\x1b[2J\\xc2\\x9b\\r after \\x7f");
    }
}
