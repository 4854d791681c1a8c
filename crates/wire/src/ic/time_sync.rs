// SPDX-License-Identifier: MIT OR Apache-2.0

//! The time synchronisation component.
//!
//! Source: Linux `include/linux/hyperv.h` (`struct ictimesync_data`,
//! `struct ictimesync_ref_data`), `drivers/hv/hv_util.c`.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Version;

/// The version whose samples name the guest's own clock, [`Sample`].
pub const V4_0: Version = Version::new(4, 0);

/// Versions that guests are known to speak, oldest first.
pub const VERSIONS: [Version; 3] = [Version::new(1, 0), Version::new(3, 0), V4_0];

/// Units of 100 ns between the year 1601, from which Windows counts, and 1970.
pub const UNIX_EPOCH: u64 = 116_444_736_000_000_000;

bitflags::bitflags! {
    /// What the guest shall do with a sample.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Flags: u8 {
        /// Set its clock: the machine has been started, or went on after a pause.
        const SYNC = 1;
        /// Note it.
        const SAMPLE = 2;
        const _ = !0;
    }
}

/// The body of a request from version 4.0 on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sample {
    /// The host's time (UTC), in units of 100 ns since 1601.
    pub host_time: u64,
    /// The partition's reference counter at that time, in units of 100 ns.
    pub reference_time: u64,
    /// [`Flags`].
    pub flags: u8,
    /// As in NTP: 0 for no leap second, 3 for a clock that is not synchronised.
    pub leap: u8,
    /// As in NTP: how far from a reference clock; 0 if not known.
    pub stratum: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

const _: () = assert!(size_of::<Sample>() == 24);

/// The body of a request before version 4.0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OldSample {
    /// The host's time (UTC), in units of 100 ns since 1601.
    pub host_time: u64,
    /// The guest's time; 0 if not known.
    pub guest_time: u64,
    /// How long it took to ask for that; 0 if nobody did.
    pub round_trip: u64,
    /// [`Flags`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

const _: () = assert!(size_of::<OldSample>() == 32);

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = Flags::from_bits_retain(self.flags);
        write!(f, "{flags:?}: {} at reference time {}", self.host_time, self.reference_time)
    }
}

impl fmt::Display for OldSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", Flags::from_bits_retain(self.flags), self.host_time)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// `struct ictimesync_ref_data` (parenttime, vmreferencetime, flags, leapflags, stratum) and
    /// `struct ictimesync_data` (parenttime, childtime, roundtriptime, flags), both packed.
    #[test]
    fn fields_stand_where_linux_reads_them() {
        let new = [
            offset_of!(Sample, host_time),
            offset_of!(Sample, reference_time),
            offset_of!(Sample, flags),
            offset_of!(Sample, leap),
            offset_of!(Sample, stratum),
        ];
        assert_eq!(new, [0, 8, 16, 17, 18]);
        let old = [
            offset_of!(OldSample, host_time),
            offset_of!(OldSample, guest_time),
            offset_of!(OldSample, round_trip),
            offset_of!(OldSample, flags),
        ];
        assert_eq!(old, [0, 8, 16, 24]);
    }

    /// `WLTIMEDELTA` of `drivers/hv/hv_util.c`.
    #[test]
    fn the_epochs_are_134774_days_apart() {
        assert_eq!(UNIX_EPOCH, 134_774 * 86_400 * 10_000_000);
    }
}
