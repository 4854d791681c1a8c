// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a device offers to the guest.

use busway_wire::Guid;
use busway_wire::control::layout::OfferFlags;

/// A channel as its device describes it; relid and connection id are the bus's to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which driver is meant; see [`busway_wire::class`].
    pub interface_type: Guid,
    /// Which device; the same in every run, or the guest takes it for a new one.
    pub instance: Guid,
    /// How the guest should treat it.
    pub flags: OfferFlags,
    /// MMIO that the device needs, in MiB.
    pub mmio_megabytes: u16,
    /// The device's own data; a pipe's type comes first.
    pub user_defined: [u8; 120],
}

impl Offer {
    /// An offer without flags, MMIO or data of the device's own: most devices need no more.
    pub const fn new(interface_type: Guid, instance: Guid) -> Self {
        let flags = OfferFlags::empty();
        Self { interface_type, instance, flags, mmio_megabytes: 0, user_defined: [0; 120] }
    }
}
