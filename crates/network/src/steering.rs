// SPDX-License-Identifier: MIT OR Apache-2.0

//! Receive-side scaling: the channel that a frame goes in by.
//!
//! Source: the Windows driver kit's NDIS reference, "RSS Hashing Functions" and "Verifying the RSS
//! Hash Calculation", which has the numbers that the tests use.

use std::fmt;

use busway_wire::rndis::{HashTypes, RssSettings};

use crate::ethernet::{Flow, Transport};

/// Entries of the table, as guests are told.
pub(crate) const TABLE_ENTRIES: u16 = 128;

/// Entries that a guest may give at most.
const MOST_ENTRIES: usize = 256;

/// Bytes of the longest input: two IPv6 addresses and two ports.
const LONGEST_INPUT: usize = 36;

/// Bytes of a key.
const KEY_LEN: usize = LONGEST_INPUT + 4;

/// What a guest has said, in one message or several.
#[derive(Clone, Debug)]
pub(crate) struct Rss {
    types: HashTypes,
    key: [u8; KEY_LEN],
    table: Vec<u16>,
}

impl Default for Rss {
    fn default() -> Self {
        Self { types: HashTypes::empty(), key: [0; KEY_LEN], table: Vec::new() }
    }
}

impl Rss {
    /// Takes what is new; false if it makes no sense, and then nothing is taken.
    pub(crate) fn update(&mut self, settings: &RssSettings<'_>, channels: u16) -> bool {
        let table = settings.table();
        if table.as_ref().is_some_and(|table| table.len() == 0 || table.len() > MOST_ENTRIES) {
            return false;
        }
        let table: Option<Vec<u32>> = table.map(Iterator::collect);
        if table.iter().flatten().any(|channel| *channel >= u32::from(channels)) {
            return false;
        }
        if let Some(table) = table {
            self.table = table.into_iter().map(|channel| channel as u16).collect();
        }
        if let Some(key) = settings.key {
            self.key = [0; KEY_LEN];
            self.key.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        }
        if let Some(types) = settings.hash {
            self.types = types;
        }
        true
    }

    /// What follows from it; `None` if frames are not to be spread.
    pub(crate) fn steering(&self) -> Option<Steering> {
        let usable = self.types.contains(HashTypes::TOEPLITZ) && !self.table.is_empty();
        usable.then(|| Steering::new(self.types, &self.key, self.table.clone()))
    }
}

/// The hash function, prepared for one key, and the table.
pub(crate) struct Steering {
    types: HashTypes,
    /// For each byte of the input and each value of it, what it adds.
    parts: Box<[[u32; 256]]>,
    table: Vec<u16>,
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Steering({:?}, {:?})", self.types, self.table)
    }
}

impl Steering {
    fn new(types: HashTypes, key: &[u8; KEY_LEN], table: Vec<u16>) -> Self {
        let windows = key.windows(5).take(LONGEST_INPUT);
        let parts = windows.map(|window| {
            // The 32 bits of the key from each of the byte's bits on.
            let bits = window.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            std::array::from_fn(|value| {
                let set = (0..8).filter(|bit| value & (0x80 >> bit) != 0);
                set.fold(0, |hash, bit| hash ^ (bits >> (8 - bit)) as u32)
            })
        });
        Self { types, parts: parts.collect(), table }
    }

    /// The hash of a flow; `None` if it is of no kind that is hashed.
    #[inline]
    pub(crate) fn hash(&self, flow: &Flow<'_>) -> Option<u32> {
        let (with_ports, without) = match flow.addresses.len() {
            8 => (HashTypes::TCP_IPV4, HashTypes::IPV4),
            _ => (HashTypes::TCP_IPV6, HashTypes::IPV6),
        };
        let ports = flow.ports.filter(|_| flow.transport == Transport::Tcp);
        match ports {
            Some(ports) if self.types.contains(with_ports) => {
                Some(self.toeplitz(flow.addresses.iter().chain(&ports)))
            }
            _ if self.types.contains(without) => Some(self.toeplitz(flow.addresses.iter())),
            _ => None,
        }
    }

    #[inline]
    fn toeplitz<'a>(&self, input: impl Iterator<Item = &'a u8>) -> u32 {
        let pairs = self.parts.iter().zip(input);
        pairs.fold(0, |hash, (part, byte)| hash ^ part.get(usize::from(*byte)).unwrap_or(&0))
    }

    /// The channel for a hash.
    #[inline]
    pub(crate) fn channel(&self, hash: u32) -> u16 {
        let index = hash as usize % self.table.len().max(1);
        self.table.get(index).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn flow(addresses: &[u8], ports: [u16; 2], transport: Transport) -> Flow<'_> {
        let [[a, b], [c, d]] = ports.map(u16::to_be_bytes);
        Flow { addresses, ports: Some([a, b, c, d]), transport, transport_at: 34 }
    }

    /// Three rows of the table in "Verifying the RSS Hash Calculation".
    #[test]
    fn hashes_are_those_of_the_reference() {
        let types = HashTypes::from_bits_retain(0x1701);
        let steering = Steering::new(types, &KEY, vec![0]);
        let hash = |addresses: &[u8], ports, transport| {
            steering.hash(&flow(addresses, ports, transport)).unwrap()
        };
        let ipv4 = [66, 9, 149, 187, 161, 142, 100, 80];
        assert_eq!(hash(&ipv4, [2794, 1766], Transport::Tcp), 0x51cc_c178);
        assert_eq!(hash(&ipv4, [2794, 1766], Transport::Udp), 0x323e_8fc2);
        let ipv4 = [199, 92, 111, 2, 65, 69, 140, 83];
        assert_eq!(hash(&ipv4, [14230, 4739], Transport::Tcp), 0xc626_b0ea);
        let source = [0x3f, 0xfe, 0x25, 1, 2, 0, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 7];
        let target = [0x3f, 0xfe, 0x25, 1, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1];
        let ipv6 = [source, target].concat();
        assert_eq!(hash(&ipv6, [2794, 1766], Transport::Tcp), 0x4020_7d3d);
        assert_eq!(hash(&ipv6, [2794, 1766], Transport::Other), 0x2cc1_8cd5);
    }

    #[test]
    fn what_is_not_hashed_has_no_hash() {
        let steering = Steering::new(HashTypes::TCP_IPV4, &KEY, vec![0, 1]);
        let ipv4 = [66, 9, 149, 187, 161, 142, 100, 80];
        assert!(steering.hash(&flow(&ipv4, [1, 2], Transport::Tcp)).is_some());
        assert_eq!(steering.hash(&flow(&ipv4, [1, 2], Transport::Udp)), None);
        assert_eq!(steering.hash(&flow(&[0; 32], [1, 2], Transport::Tcp)), None);
        assert_eq!((steering.channel(4), steering.channel(7)), (0, 1));
    }
}
