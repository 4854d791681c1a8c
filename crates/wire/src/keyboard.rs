// SPDX-License-Identifier: MIT OR Apache-2.0

//! The synthetic keyboard.
//!
//! Source: Linux `drivers/input/serio/hyperv-keyboard.c`.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

/// The only version that guests are known to speak, 1.0 (`SYNTH_KBD_VERSION`).
pub const VERSION: u32 = 0x0001_0000;

open_enum! {
    /// What a message is.
    pub enum MessageType: u32 {
        /// The guest asks for a version.
        PROTOCOL_REQUEST = 1,
        /// Whether the host speaks it.
        PROTOCOL_RESPONSE = 2,
        /// A key has gone down or up.
        EVENT = 3,
        /// The guest sets the keyboard's lights.
        LED_INDICATORS = 4,
    }
}

/// [`MessageType::PROTOCOL_REQUEST`], and with lights for a version
/// [`MessageType::LED_INDICATORS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Request {
    /// What it is.
    pub kind: MessageType,
    /// The version, or the lights.
    pub value: u32,
}

/// [`MessageType::PROTOCOL_RESPONSE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Response {
    /// What it is.
    pub kind: MessageType,
    /// Bit 0: accepted.
    pub status: u32,
}

bitflags::bitflags! {
    /// What is said of a key beside its code.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct KeyFlags: u32 {
        /// The code is a UTF-16 unit.
        const UNICODE = 1;
        /// The key has gone up.
        const BREAK = 2;
        /// The code follows E0.
        const E0 = 4;
        /// The code follows E1.
        const E1 = 8;
        const _ = !0;
    }
}

/// [`MessageType::EVENT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// What it is.
    pub kind: MessageType,
    /// The key's scan code, of set 1.
    pub make_code: u16,
    /// Zero.
    pub reserved: u16,
    /// [`KeyFlags`].
    pub flags: u32,
}

/// Prints a message of either side.
#[derive(Clone, Copy)]
pub struct Text<'a>(pub &'a [u8]);

impl Text<'_> {
    /// What it is.
    pub fn kind(&self) -> Option<MessageType> {
        MessageType::read_from_prefix(self.0).ok().map(|(kind, _)| kind)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(kind), Ok((Request { value, .. }, _))) =
            (self.kind(), Request::read_from_prefix(self.0))
        else {
            return write!(f, "{} B, too few for a message", self.0.len());
        };
        match kind {
            MessageType::PROTOCOL_REQUEST => {
                write!(f, "{kind} {}.{}", value >> 16, value & 0xffff)
            }
            MessageType::PROTOCOL_RESPONSE if value & 1 != 0 => write!(f, "{kind} accepted"),
            MessageType::PROTOCOL_RESPONSE => write!(f, "{kind} refused"),
            MessageType::EVENT => {
                let Ok((event, _)) = Event::read_from_prefix(self.0) else {
                    return write!(f, "{kind} (cut)");
                };
                let flags = KeyFlags::from_bits_retain(event.flags);
                write!(f, "{kind} {:#x} {flags:?}", event.make_code)
            }
            kind => write!(f, "{kind} {value:#x}"),
        }
    }
}

const _: () = assert!(size_of::<Request>() == 8);
const _: () = assert!(size_of::<Event>() == 12);

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct synth_kbd_keystroke`.
    #[test]
    fn a_key_is_laid_out_as_linux_reads_it() {
        let flags = (KeyFlags::BREAK | KeyFlags::E0).bits();
        let event = Event { kind: MessageType::EVENT, make_code: 0x1c, reserved: 0, flags };
        assert_eq!(Text(event.as_bytes()).to_string(), "EVENT 0x1c KeyFlags(BREAK | E0)");
        assert_eq!(Text(&[1, 0, 0, 0, 0, 0, 1, 0]).to_string(), "PROTOCOL_REQUEST 1.0");
        assert_eq!(event.as_bytes(), [3, 0, 0, 0, 0x1c, 0, 0, 0, 6, 0, 0, 0]);
    }
}
