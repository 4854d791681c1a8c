// SPDX-License-Identifier: MIT OR Apache-2.0

//! The snapshot component (volume shadow copy).
//!
//! Source: Linux `include/uapi/linux/hyperv.h` (`struct hv_vss_msg`),
//! `drivers/hv/hv_snapshot.c`.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Version;
use crate::open_enum::open_enum;

/// Versions that guests are known to speak.
pub const VERSIONS: [Version; 1] = [Version::new(5, 0)];

open_enum! {
    /// What is asked.
    pub enum Operation: u8 {
        /// Make a snapshot.
        CREATE = 0,
        /// Forget it.
        DELETE = 1,
        /// Is anybody there who can freeze?
        CHECK_HOT_BACKUP = 2,
        /// Which disks has the guest that a snapshot leaves out?
        GET_DIRECT_MAPPED_DISKS = 3,
        /// The backup is over.
        BACKUP_COMPLETE = 4,
        /// Write everything down, and nothing more until the thaw.
        FREEZE = 5,
        /// Go on.
        THAW = 6,
        /// Repair a snapshot.
        AUTO_RECOVER = 7,
    }
}

bitflags::bitflags! {
    /// What the guest answers to [`Operation::CHECK_HOT_BACKUP`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct HotBackup: u32 {
        /// It can be done.
        const SUPPORTED = 1;
        /// The copy needs no repair by the guest.
        const NO_AUTO_RECOVERY = 4;
        const _ = !0;
    }
}

/// The body of a request and its answer. Linux looks at 12 bytes of it; a FREEZE of other hosts goes
/// on with a list of disks.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Vss {
    /// What is asked.
    pub operation: Operation,
    /// Zero.
    pub reserved: [u8; 7],
    /// Depends on the operation.
    pub flags: u32,
    /// Zero.
    pub rest: [u32; 5],
}

const _: () = assert!(size_of::<Vss>() == 32);

impl Vss {
    /// A request.
    pub const fn request(operation: Operation) -> Self {
        Self { operation, reserved: [0; 7], flags: 0, rest: [0; 5] }
    }
}

impl fmt::Display for Vss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Operation::CHECK_HOT_BACKUP => {
                let flags = HotBackup::from_bits_retain(self.flags);
                write!(f, "{} {flags:?}", self.operation)
            }
            operation => operation.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct hv_vss_hdr` is 8 bytes, and `struct hv_vss_check_feature` follows it.
    #[test]
    fn flags_stand_where_linux_writes_them() {
        let mut message = Vss::request(Operation::CHECK_HOT_BACKUP);
        message.flags = 5;
        assert_eq!(message.as_bytes()[..12], [2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]);
        let text = message.to_string();
        assert_eq!(text, "CHECK_HOT_BACKUP HotBackup(SUPPORTED | NO_AUTO_RECOVERY)");
    }
}
