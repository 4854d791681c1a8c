// SPDX-License-Identifier: MIT OR Apache-2.0

//! The shutdown component.
//!
//! Source: Linux `include/linux/hyperv.h` (`struct shutdown_msg_data`), `drivers/hv/hv_util.c`.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Version;
use crate::open_enum::open_enum;

/// Versions that guests are known to speak, oldest first.
pub const VERSIONS: [Version; 4] =
    [Version::new(1, 0), Version::new(3, 0), Version::new(3, 1), Version::new(3, 2)];

open_enum! {
    /// What the guest shall do. With bit 0, programs that object are not asked; Linux always acts
    /// so.
    pub enum Action: u32 {
        /// Switch off.
        POWER_OFF = 0,
        /// Switch off, whatever objects.
        POWER_OFF_BY_FORCE = 1,
        /// Start over.
        REBOOT = 2,
        /// Start over, whatever objects.
        REBOOT_BY_FORCE = 3,
        /// Save everything on a disk and switch off.
        HIBERNATE = 4,
        /// Hibernate, whatever objects.
        HIBERNATE_BY_FORCE = 5,
    }
}

/// The reason that the guest notes down: planned, of the system itself
/// (`SHTDN_REASON_FLAG_PLANNED` of the Windows API).
pub const REASON_PLANNED: u32 = 0x8000_0000;

/// The body of a request. Guests drop one that is not complete.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Shutdown {
    /// Why, for the guest's records.
    pub reason: u32,
    /// Seconds that programs have.
    pub timeout: u32,
    /// What to do.
    pub action: Action,
    /// What users are told; nothing that Linux shows.
    pub message: [u16; 1024],
}

const _: () = assert!(size_of::<Shutdown>() == 2060);

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} within {} s, reason {:#x}", self.action, self.timeout, self.reason)
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    /// `struct shutdown_msg_data`: reason, timeout, flags, then the text.
    #[test]
    fn a_request_is_laid_out_as_linux_reads_it() {
        let mut request = Shutdown::new_zeroed();
        (request.reason, request.timeout, request.action) = (REASON_PLANNED, 60, Action::REBOOT);
        request.message[0] = b'x'.into();
        let bytes = request.as_bytes();
        assert_eq!(bytes[..14], [0, 0, 0, 0x80, 60, 0, 0, 0, 2, 0, 0, 0, b'x', 0]);
        assert_eq!(request.to_string(), "REBOOT within 60 s, reason 0x80000000");
    }
}
