// SPDX-License-Identifier: MIT OR Apache-2.0

//! The heartbeat component.
//!
//! Source: Linux `include/linux/hyperv.h` (`struct heartbeat_msg_data`), `drivers/hv/hv_util.c`.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Version;

/// Versions that guests are known to speak, oldest first.
pub const VERSIONS: [Version; 2] = [Version::new(1, 0), Version::new(3, 0)];

/// The body of a request and its answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Heartbeat {
    /// Which beat; the guest answers with the next number.
    pub sequence: u64,
    /// Zero.
    pub reserved: [u32; 8],
}

const _: () = assert!(size_of::<Heartbeat>() == 40);

impl fmt::Display for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "beat {}", self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct heartbeat_msg_data`: the number comes first.
    #[test]
    fn the_number_is_where_linux_adds_one_to_it() {
        let beat = Heartbeat { sequence: 0x0102, reserved: [0; 8] };
        assert_eq!(beat.as_bytes()[..8], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(beat.to_string(), "beat 258");
    }
}
