// SPDX-License-Identifier: MIT OR Apache-2.0

//! Versions of the VMBus protocol and the features of 6.0.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A version of the VMBus protocol: major in the upper, minor in the lower half.
///
/// Source: Linux `include/linux/hyperv.h` (`VERSION_WS2008` …).
#[repr(transparent)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
pub struct Version(pub u32);

impl Version {
    /// Windows Server 2008: one event connection, the interrupt page.
    pub const V0_13: Self = Self::new(0, 13);
    /// Windows 7: a signal connection of each channel's own.
    pub const V1_1: Self = Self::new(1, 1);
    /// Windows 8: channel interrupts by SynIC event flags on any VP.
    pub const V2_4: Self = Self::new(2, 4);
    /// Windows 8.1: the guest names the VP for messages; UNLOAD.
    pub const V3_0: Self = Self::new(3, 0);
    /// Windows 10: sockets.
    pub const V4_0: Self = Self::new(4, 0);
    /// Windows 10, release 3: MODIFY_CHANNEL.
    pub const V4_1: Self = Self::new(4, 1);
    /// Windows 10, release 4: the message connection is negotiated.
    pub const V5_0: Self = Self::new(5, 0);
    /// Windows 10, release 5: VTLs in the contact.
    pub const V5_1: Self = Self::new(5, 1);
    /// Windows Server 2019: silos in socket requests.
    pub const V5_2: Self = Self::new(5, 2);
    /// Windows Server 2022: MODIFY_CHANNEL is answered.
    pub const V5_3: Self = Self::new(5, 3);
    /// Windows Server 2025: feature flags.
    pub const V6_0: Self = Self::new(6, 0);

    /// Every version that guests are known to ask for, oldest first.
    pub const ALL: [Self; 11] = [
        Self::V0_13,
        Self::V1_1,
        Self::V2_4,
        Self::V3_0,
        Self::V4_0,
        Self::V4_1,
        Self::V5_0,
        Self::V5_1,
        Self::V5_2,
        Self::V5_3,
        Self::V6_0,
    ];

    /// The version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self((major as u32) << 16 | minor as u32)
    }

    /// The part before the dot.
    pub const fn major(self) -> u32 {
        self.0 >> 16
    }

    /// The part after the dot.
    pub const fn minor(self) -> u32 {
        self.0 & 0xffff
    }

    /// Whether this is one of [`Version::ALL`].
    pub fn is_known(self) -> bool {
        Self::ALL.contains(&self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

bitflags::bitflags! {
    /// What both ends may agree on from version 6.0 (INITIATE_CONTACT and VERSION_RESPONSE).
    ///
    /// Source: Linux `include/linux/hyperv.h`, OpenVMM's published protocol documentation.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct FeatureFlags: u32 {
        /// OPEN carries the guest's own event flag and connection id.
        const GUEST_SPECIFIED_SIGNAL_PARAMETERS = 0x1;
        /// A channel may ask to have its interrupts redirected.
        const CHANNEL_INTERRUPT_REDIRECTION = 0x2;
        /// MODIFY_CONNECTION changes the monitor pages of a living connection.
        const MODIFY_CONNECTION = 0x4;
        /// INITIATE_CONTACT ends with the client's GUID.
        const CLIENT_ID = 0x8;
        /// Rings and pages in encrypted memory.
        const CONFIDENTIAL_CHANNELS = 0x10;
        /// PAUSE and RESUME.
        const PAUSE_RESUME = 0x20;
        /// The host allocates the monitor pages.
        const SERVER_SPECIFIED_MONITOR_PAGES = 0x40;
        /// Guest pages can be pinned.
        const GPA_PINNING = 0x80;
        const _ = !0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_and_print_as_linux_does() {
        assert_eq!(Version::V5_3.0, 0x50003);
        assert_eq!(Version::V0_13.to_string(), "0.13");
        assert!(Version::V0_13 < Version::V1_1 && Version::V5_3 < Version::V6_0);
        assert!(!Version::new(5, 4).is_known());
    }
}
