// SPDX-License-Identifier: MIT OR Apache-2.0

//! The keys that are busway's and not the guest's: Ctrl-A, then one more.

use super::Received;

const CTRL_A: u8 = 1;

/// What the user can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ctrl-A X: end the machine as if its power failed.
    Quit,
    /// Ctrl-A S: ask the guest to switch itself off.
    PowerOff,
    /// Ctrl-A H: say which keys there are.
    Help,
}

/// What the terminal shows for [`Command::Help`].
pub const HELP: &str = "\r\n\
    Ctrl-A X       ends the machine, as if its power failed\r\n\
    Ctrl-A S       asks the guest to switch itself off\r\n\
    Ctrl-A Ctrl-A  is one Ctrl-A for the guest\r\n\
    Ctrl-A H       shows this\r\n";

/// Finds them in a stream of input.
#[derive(Debug, Default)]
pub struct Escape {
    after_ctrl_a: bool,
}

impl Escape {
    /// The guest's part of `bytes`, or the first command in them, which drops the rest.
    pub fn filter(&mut self, bytes: &[u8]) -> Received {
        let mut guest = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if !std::mem::take(&mut self.after_ctrl_a) {
                match byte {
                    CTRL_A => self.after_ctrl_a = true,
                    _ => guest.push(byte),
                }
                continue;
            }
            match byte {
                b'x' | b'X' => return Received::Command(Command::Quit),
                b's' | b'S' => return Received::Command(Command::PowerOff),
                b'h' | b'H' | b'?' => return Received::Command(Command::Help),
                CTRL_A => guest.push(CTRL_A),
                // No key of ours: the guest gets both.
                _ => guest.extend([CTRL_A, byte]),
            }
        }
        Received::Bytes(guest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(escape: &mut Escape, bytes: &[u8]) -> Vec<u8> {
        match escape.filter(bytes) {
            Received::Bytes(bytes) => bytes,
            _ => panic!("no command was typed"),
        }
    }

    #[test]
    fn the_guest_gets_everything_else() {
        let mut escape = Escape::default();
        assert_eq!(guest(&mut escape, b"ls x\r"), b"ls x\r");
        assert_eq!(guest(&mut escape, b"a\x01\x01b\x01q"), b"a\x01b\x01q");
    }

    #[test]
    fn commands_may_come_in_two_reads() {
        let mut escape = Escape::default();
        assert_eq!(guest(&mut escape, b"\x01"), b"");
        assert!(matches!(escape.filter(b"x"), Received::Command(Command::Quit)));
        assert!(matches!(escape.filter(b"\x01s"), Received::Command(Command::PowerOff)));
        assert!(matches!(escape.filter(b"\x01h"), Received::Command(Command::Help)));
        assert_eq!(guest(&mut escape, b"x"), b"x", "the command is over");
    }
}
