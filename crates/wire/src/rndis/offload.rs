// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checksums and segmentation that the card does for its guest: what it can, what is switched on.

use bitflags::bitflags;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// What NDIS structures begin with (`struct ndis_object_header`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct ObjectHeader {
    pub(super) kind: u8,
    pub(super) revision: u8,
    pub(super) len: u16,
}

bitflags! {
    /// How frames may be wrapped (`NDIS_OFFLOAD_ENCAP_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Encapsulation: u32 {
        /// Plain Ethernet.
        const ETHERNET = 0x2;
        /// With a VLAN tag in the frame.
        const VLAN = 0x4;
        /// With a VLAN tag beside the frame.
        const VLAN_BESIDE = 0x8;
        const _ = !0;
    }
}

bitflags! {
    /// Checksums that the card computes or checks, of IPv4 or IPv6 (`NDIS_TXCSUM_CAP_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TxChecksum: u32 {
        /// In spite of IP options, or extension headers.
        const IP_OPTIONS = 0x001;
        /// In spite of TCP options.
        const TCP_OPTIONS = 0x004;
        /// TCP.
        const TCP = 0x010;
        /// UDP.
        const UDP = 0x040;
        /// The IPv4 header.
        const IP_HEADER = 0x100;
        const _ = !0;
    }
}

/// Checksums (`struct ndis_csum_offload`): to the network and from it, of IPv4 and of IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ChecksumOffload {
    /// [`Encapsulation`].
    pub ip4_tx_encapsulation: u32,
    /// [`TxChecksum`].
    pub ip4_tx: u32,
    /// [`Encapsulation`].
    pub ip4_rx_encapsulation: u32,
    /// [`TxChecksum`].
    pub ip4_rx: u32,
    /// [`Encapsulation`].
    pub ip6_tx_encapsulation: u32,
    /// [`TxChecksum`].
    pub ip6_tx: u32,
    /// [`Encapsulation`].
    pub ip6_rx_encapsulation: u32,
    /// [`TxChecksum`].
    pub ip6_rx: u32,
}

/// Segmentation (`struct ndis_lsov2_offload`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LargeSendV2Offload {
    /// [`Encapsulation`].
    pub ip4_encapsulation: u32,
    /// Bytes of the longest.
    pub ip4_max_len: u32,
    /// The fewest segments that are worth it.
    pub ip4_min_segments: u32,
    /// [`Encapsulation`].
    pub ip6_encapsulation: u32,
    /// Bytes of the longest.
    pub ip6_max_len: u32,
    /// The fewest segments that are worth it.
    pub ip6_min_segments: u32,
    /// [`EXTENSIONS`](Self::EXTENSIONS) and [`TCP_OPTIONS`](Self::TCP_OPTIONS).
    pub ip6_options: u32,
}

impl LargeSendV2Offload {
    /// In spite of extension headers.
    pub const EXTENSIONS: u32 = 0x1;
    /// In spite of TCP options.
    pub const TCP_OPTIONS: u32 = 0x4;
}

/// Segments coalesced for the guest (`struct ndis_rsc_offload`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RscOffload {
    /// Of IPv4: 0 or 1.
    pub ip4: u8,
    /// Of IPv6: 0 or 1.
    pub ip6: u8,
}

/// What a card can do, or does (`struct ndis_offload`).
///
/// Guests ask for the length that their version of NDIS has: 112 bytes up to and without IPsec's
/// second version, 144 with it, 156 in all. [`Offload::of_len`] is one that was cut.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Offload {
    header: ObjectHeader,
    /// Checksums.
    pub checksum: ChecksumOffload,
    large_send_v1: [u32; 4],
    ipsec_v1: [u32; 7],
    /// Segmentation.
    pub large_send: LargeSendV2Offload,
    flags: u32,
    ipsec_v2: [u32; 8],
    /// Coalescing.
    pub rsc: RscOffload,
    padding: [u8; 2],
    encapsulation_gre: [u32; 2],
}

const _: () = assert!(size_of::<Offload>() == 156);

impl Offload {
    const KIND: u8 = 0xa7;

    /// Lengths of it by revision: 1, 2, 3.
    const LENGTHS: [usize; 3] = [112, 144, 156];

    /// A card that does nothing for its guest.
    pub fn none() -> Self {
        Self::new_zeroed()
    }

    /// The longest form that has no more than `len` bytes; the shortest if all have.
    pub fn of_len(mut self, len: usize) -> Vec<u8> {
        let fits = Self::LENGTHS.iter().rposition(|known| *known <= len).unwrap_or(0);
        let (revision, len) = match fits {
            0 => (1, 112_u16),
            1 => (2, 144),
            _ => (3, 156),
        };
        self.header = ObjectHeader { kind: Self::KIND, revision, len };
        let bytes = self.as_bytes();
        bytes.get(..usize::from(len)).unwrap_or(bytes).to_vec()
    }
}

/// What becomes of something that can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Nothing.
    Unchanged,
    /// It is off from here on.
    Off,
    /// It is on.
    On,
}

impl Switch {
    /// Of a byte that is 1 for off and 2 for on.
    const fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Off,
            2 => Self::On,
            _ => Self::Unchanged,
        }
    }

    /// What was `before`, then.
    #[must_use]
    pub const fn apply(self, before: bool) -> bool {
        match self {
            Self::Unchanged => before,
            Self::Off => false,
            Self::On => true,
        }
    }
}

/// The value of [`Oid::TCP_OFFLOAD_PARAMETERS`](super::Oid::TCP_OFFLOAD_PARAMETERS) (`struct
/// ndis_offload_params`). A guest may send less of it, and what it leaves out does not change.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OffloadParameters {
    header: ObjectHeader,
    /// Checksums: 1 none, 2 to the network, 3 from it, 4 both; 0 as before.
    pub ip4_checksum: u8,
    /// The same, of TCP on IPv4.
    pub tcp4_checksum: u8,
    /// The same, of UDP on IPv4.
    pub udp4_checksum: u8,
    /// The same, of TCP on IPv6.
    pub tcp6_checksum: u8,
    /// The same, of UDP on IPv6.
    pub udp6_checksum: u8,
    large_send_v1: u8,
    ipsec_v1: u8,
    /// Segmentation: 1 off, 2 on; 0 as before.
    pub large_send_ip4: u8,
    /// The same, of IPv6.
    pub large_send_ip6: u8,
    tcp_connection_ip4: u8,
    tcp_connection_ip6: u8,
    padding: u8,
    flags: u32,
    ipsec_v2: u8,
    ipsec_v2_ip4: u8,
    /// Coalescing: 1 off, 2 on; 0 as before.
    pub rsc_ip4: u8,
    /// The same, of IPv6.
    pub rsc_ip6: u8,
    encapsulated: u8,
    encapsulation_kinds: u8,
    padding_2: [u8; 2],
}

const _: () = assert!(size_of::<OffloadParameters>() == 28);

impl OffloadParameters {
    /// Bytes without what not every guest sends: up to the flags.
    const SHORTEST: usize = 16;

    /// Parses the value of a set; `None` if it is too short for any version.
    pub fn parse(info: &[u8]) -> Option<Self> {
        let mut this = Self::new_zeroed();
        let bytes = this.as_mut_bytes();
        let len = info.len().min(bytes.len());
        if len < Self::SHORTEST {
            return None;
        }
        bytes.get_mut(..len)?.copy_from_slice(info.get(..len)?);
        Some(this)
    }

    /// What becomes of coalescing, of IPv4 and of IPv6.
    pub const fn rsc(&self) -> (Switch, Switch) {
        (Switch::of(self.rsc_ip4), Switch::of(self.rsc_ip6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offsets and sizes of `hyperv_net.h`: `NDIS_OFFLOAD_SIZE_6_0` is where ipsecv2 starts,
    /// `NDIS_OFFLOAD_SIZE_6_1` where rsc does.
    #[test]
    fn an_offload_has_the_length_that_a_guest_asks_for() {
        let mut offload = Offload::none();
        offload.checksum.ip4_tx = 0x54;
        offload.large_send.ip4_encapsulation = 2;
        offload.large_send.ip6_options = 5;
        offload.rsc = RscOffload { ip4: 1, ip6: 1 };
        let whole = offload.of_len(156);
        assert_eq!((whole.len(), &whole[..4]), (156, &[0xa7, 3, 156, 0][..]));
        assert_eq!(whole[8..12], 0x54_u32.to_le_bytes());
        assert_eq!((whole[80], whole[104]), (2, 5));
        assert_eq!(whole[144..148], [1, 1, 0, 0]);
        let older = offload.of_len(144);
        assert_eq!((older.len(), &older[..4]), (144, &[0xa7, 2, 144, 0][..]));
        for len in [112, 143, 0] {
            let oldest = offload.of_len(len);
            assert_eq!((oldest.len(), &oldest[..4]), (112, &[0xa7, 1, 112, 0][..]));
        }
        assert_eq!(offload.of_len(4000).len(), 156);
    }

    /// What `rndis_netdev_set_hwcaps` of Linux's rndis_filter.c switches on, and what a guest of
    /// version 4 sends: 22 bytes.
    #[test]
    fn parameters_may_be_short() {
        let mut info = [0; 28];
        info[..4].copy_from_slice(&[0x80, 3, 28, 0]);
        info[5] = 4;
        info[11] = 2;
        (info[22], info[23]) = (2, 1);
        let parameters = OffloadParameters::parse(&info).unwrap();
        assert_eq!((parameters.tcp4_checksum, parameters.large_send_ip4), (4, 2));
        assert_eq!(parameters.rsc(), (Switch::On, Switch::Off));
        let parameters = OffloadParameters::parse(&info[..22]).unwrap();
        assert_eq!(parameters.rsc(), (Switch::Unchanged, Switch::Unchanged));
        assert_eq!(OffloadParameters::parse(&info[..15]), None);
        assert!(Switch::Unchanged.apply(true) && Switch::On.apply(false));
        assert!(!Switch::Off.apply(true) && !Switch::Unchanged.apply(false));
    }
}
