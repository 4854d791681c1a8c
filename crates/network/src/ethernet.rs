// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can be seen in the first bytes of a frame.

use busway_wire::rndis::{PacketFilter, VlanTag};

use crate::settings::Mac;

/// Bytes of an Ethernet header.
pub(crate) const HEADER_LEN: usize = 14;

/// Bytes of a VLAN tag in a frame, its type counted.
pub(crate) const TAG_LEN: usize = 4;

/// Where the tag stands, or the type of what follows.
pub(crate) const TYPE_AT: usize = 12;

const VLAN: u16 = 0x8100;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Bytes that [`Frame::parse`] looks at: Ethernet, a tag, the longest IPv4 header or IPv6's, and
/// ports.
pub(crate) const LOOK_LEN: usize = HEADER_LEN + TAG_LEN + 60 + 4;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Other,
}

/// An IP packet's addresses, and its ports if it has whole ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow<'a> {
    /// Source and then destination: 8 bytes, or 32 of IPv6.
    pub(crate) addresses: &'a [u8],
    /// Source and then destination; of TCP and UDP alone, and not of a fragment.
    pub(crate) ports: Option<[u8; 4]>,
    /// What it carries; a fragment carries something else.
    pub(crate) transport: Transport,
    /// Where that starts in the frame.
    pub(crate) transport_at: usize,
}

/// A frame's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) to: Mac,
    pub(crate) vlan: Option<VlanTag>,
    pub(crate) flow: Option<Flow<'a>>,
}

impl<'a> Frame<'a> {
    /// Parses the first bytes of a frame; `None` if it is shorter than an Ethernet header.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let to = Mac(*bytes.first_chunk()?);
        let mut kind = word(bytes, TYPE_AT)?;
        let (mut at, mut vlan) = (HEADER_LEN, None);
        if kind == VLAN
            && let (Some(tag), Some(inner)) = (word(bytes, at), word(bytes, at + 2))
        {
            (vlan, kind) = (Some(VlanTag(tag)), inner);
            at += TAG_LEN;
        }
        let flow = match kind {
            IPV4 => flow_4(bytes, at),
            IPV6 => flow_6(bytes, at),
            _ => None,
        };
        Some(Self { to, vlan, flow })
    }

    /// Whether a guest wants it that has set `filter`, has the address `mac` and has named `groups`.
    ///
    /// A guest that has named none and asks for groups gets all: some set the bit and leave the
    /// choice to themselves.
    #[inline]
    pub(crate) fn passes(&self, filter: PacketFilter, mac: Mac, groups: Option<&[Mac]>) -> bool {
        if filter.contains(PacketFilter::PROMISCUOUS) {
            return true;
        }
        let wanted = match self.to {
            Mac([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => PacketFilter::BROADCAST,
            Mac([first, ..]) if first & 1 != 0 => {
                let named = groups.is_none_or(|groups| groups.contains(&self.to));
                let named = if named { PacketFilter::MULTICAST } else { PacketFilter::empty() };
                named | PacketFilter::ALL_MULTICAST
            }
            to if to == mac => PacketFilter::DIRECTED,
            _ => PacketFilter::empty(),
        };
        filter.intersects(wanted)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

fn flow_4(bytes: &[u8], at: usize) -> Option<Flow<'_>> {
    let packet = bytes.get(at..)?;
    let header: &[u8; 20] = packet.first_chunk()?;
    let [first, _, _, _, _, _, fragment_high, fragment_low, _, protocol, ..] = *header;
    let header_len = usize::from(first & 0xf) * 4;
    let is_fragment = u16::from_be_bytes([fragment_high, fragment_low]) & 0x3fff != 0;
    let protocol = if is_fragment { 0 } else { protocol };
    flow(bytes, packet.get(12..20)?, protocol, at + header_len.max(20))
}

fn flow_6(bytes: &[u8], at: usize) -> Option<Flow<'_>> {
    let packet = bytes.get(at..)?;
    let protocol = *packet.get(6)?;
    flow(bytes, packet.get(8..40)?, protocol, at + 40)
}

fn flow<'a>(
    bytes: &[u8],
    addresses: &'a [u8],
    protocol: u8,
    transport_at: usize,
) -> Option<Flow<'a>> {
    let transport = match protocol {
        TCP => Transport::Tcp,
        UDP => Transport::Udp,
        _ => Transport::Other,
    };
    let ports = bytes.get(transport_at..).and_then(|rest| rest.first_chunk().copied());
    let ports = ports.filter(|_| transport != Transport::Other);
    Some(Flow { addresses, ports, transport, transport_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: &[u8], packet: &[u8]) -> Vec<u8> {
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], kind, packet].concat()
    }

    fn ipv4(first: u8, fragment: u16, protocol: u8) -> Vec<u8> {
        let mut packet = vec![0; usize::from(first & 0xf) * 4];
        packet[0] = first;
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[9] = protocol;
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend([0x1f, 0x90, 0, 80]);
        packet
    }

    #[test]
    fn a_flow_is_found_behind_options_and_tags() {
        let bytes = frame(&[8, 0], &ipv4(0x45, 0x4000, 6));
        let flow = Frame::parse(&bytes).unwrap().flow.unwrap();
        assert_eq!(flow.addresses, [10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!((flow.ports, flow.transport_at), (Some([0x1f, 0x90, 0, 80]), 34));
        let bytes = frame(&[0x81, 0, 0x20, 5, 8, 0], &ipv4(0x46, 0, 17));
        let parsed = Frame::parse(&bytes).unwrap();
        assert_eq!(parsed.vlan, Some(VlanTag(0x2005)));
        let flow = parsed.flow.unwrap();
        assert_eq!((flow.transport, flow.transport_at), (Transport::Udp, 42));
        let mut ipv6 = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
        ipv6.extend([0xfd; 32]);
        ipv6.extend([1, 2, 3, 4]);
        let bytes = frame(&[0x86, 0xdd], &ipv6);
        let flow = Frame::parse(&bytes).unwrap().flow.unwrap();
        assert_eq!((flow.addresses.len(), flow.ports), (32, Some([1, 2, 3, 4])));
    }

    #[test]
    fn fragments_and_cut_frames_have_no_ports() {
        for fragment in [0x2000, 0x0010] {
            let bytes = frame(&[8, 0], &ipv4(0x45, fragment, 6));
            let flow = Frame::parse(&bytes).unwrap().flow.unwrap();
            assert_eq!((flow.ports, flow.transport), (None, Transport::Other));
        }
        let bytes = frame(&[8, 0], &ipv4(0x45, 0, 6));
        assert_eq!(Frame::parse(&bytes[..36]).unwrap().flow.unwrap().ports, None);
        assert_eq!(Frame::parse(&bytes[..33]).unwrap().flow, None);
        assert_eq!(Frame::parse(&bytes[..13]), None);
        let tagged = frame(&[0x81, 0, 0], &[]);
        assert_eq!(Frame::parse(&tagged).unwrap().vlan, None);
    }

    #[test]
    fn a_filter_is_obeyed() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let passes = |to, filter| {
            Frame { to: Mac(to), vlan: None, flow: None }.passes(
                PacketFilter::from_bits_retain(filter),
                mac,
                None,
            )
        };
        let cases = [
            (mac.0, 0x01),
            ([2, 0, 0, 0, 0, 2], 0x00),
            ([1, 0, 0x5e, 0, 0, 1], 0x06),
            ([0xff; 6], 0x08),
        ];
        for (to, wanted) in cases {
            for bit in [0x01, 0x02, 0x04, 0x08] {
                assert_eq!(passes(to, bit), wanted & bit != 0, "{to:x?} {bit:#x}");
            }
            assert!(passes(to, 0x20) && !passes(to, 0));
        }
    }
}
