// SPDX-License-Identifier: MIT OR Apache-2.0

//! Receive-side scaling: which of a card's channels a frame comes in by.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::offload::ObjectHeader;

bitflags! {
    /// What is hashed, and how (`NDIS_HASH_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct HashTypes: u32 {
        /// By Toeplitz' function.
        const TOEPLITZ = 0x0001;
        /// IPv4 addresses.
        const IPV4 = 0x0100;
        /// IPv4 addresses and TCP ports.
        const TCP_IPV4 = 0x0200;
        /// IPv6 addresses.
        const IPV6 = 0x0400;
        /// IPv6 addresses and TCP ports.
        const TCP_IPV6 = 0x1000;
        const _ = !0;
    }
}

bitflags! {
    /// What a guest says about its parameters (`NDIS_RSS_PARAM_FLAG_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RssFlags: u16 {
        /// What is hashed stays as it was.
        const HASH_UNCHANGED = 0x02;
        /// The table stays as it was.
        const TABLE_UNCHANGED = 0x04;
        /// The key stays as it was.
        const KEY_UNCHANGED = 0x08;
        /// All frames on the first channel.
        const DISABLE = 0x10;
        const _ = !0;
    }
}

/// The value of
/// [`Oid::GEN_RECEIVE_SCALE_CAPABILITIES`](super::Oid::GEN_RECEIVE_SCALE_CAPABILITIES) (`struct
/// ndis_recv_scale_cap`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RssCapabilities {
    header: ObjectHeader,
    flags: u32,
    interrupt_messages: u32,
    /// Channels, the first counted.
    pub receive_queues: u32,
    /// Entries of the table.
    pub table_entries: u16,
    padding: [u8; 2],
}

impl RssCapabilities {
    const KIND: u8 = 0x88;
    const REVISION: u8 = 2;
    /// Bytes of the value: the structure is packed.
    const LEN: usize = 18;
    /// Message-signalled interrupts, classification in an interrupt and after it; TCP on IPv4 and
    /// on IPv6.
    const FLAGS: u32 = 0x0700_0300;

    /// The value for a card of so many channels.
    pub fn value(receive_queues: u32, table_entries: u16) -> Vec<u8> {
        let header = ObjectHeader { kind: Self::KIND, revision: Self::REVISION, len: 18 };
        let this = Self {
            header,
            flags: Self::FLAGS,
            interrupt_messages: receive_queues,
            receive_queues,
            table_entries,
            padding: [0; 2],
        };
        this.as_bytes().get(..Self::LEN).unwrap_or_default().to_vec()
    }
}

/// The start of the value of
/// [`Oid::GEN_RECEIVE_SCALE_PARAMETERS`](super::Oid::GEN_RECEIVE_SCALE_PARAMETERS) (`struct
/// ndis_recv_scale_param`); table and key follow, where it says.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RssParameters {
    header: ObjectHeader,
    /// [`RssFlags`].
    pub flags: u16,
    base_cpu: u16,
    /// [`HashTypes`].
    pub hash: u32,
    /// Bytes of the table.
    pub table_len: u16,
    padding: [u8; 2],
    /// Where it starts.
    pub table_offset: u32,
    /// Bytes of the key.
    pub key_len: u16,
    padding_2: [u8; 2],
    /// Where it starts.
    pub key_offset: u32,
}

const _: () = {
    assert!(size_of::<RssCapabilities>() == 20);
    assert!(size_of::<RssParameters>() == 28);
};

/// Parameters that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RssError {
    /// Shorter than their own start.
    #[error("{have} B are too short for RSS parameters")]
    Short {
        /// Bytes present.
        have: usize,
    },
    /// A table or a key outside of the value.
    #[error("{len} B at {offset} lie outside of RSS parameters of {have} B")]
    Outside {
        /// Where it would start.
        offset: u32,
        /// Bytes.
        len: u16,
        /// Bytes of the value.
        have: usize,
    },
}

/// What a guest wants of RSS, parsed; what it does not change is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RssSettings<'a> {
    /// Whether all frames are to come by the first channel.
    pub disabled: bool,
    /// What is hashed.
    pub hash: Option<HashTypes>,
    /// The key.
    pub key: Option<&'a [u8]>,
    table: Option<&'a [u8]>,
}

impl<'a> RssSettings<'a> {
    /// Parses the value of a set.
    pub fn parse(info: &'a [u8]) -> Result<Self, RssError> {
        let have = info.len();
        let (start, _) =
            RssParameters::read_from_prefix(info).map_err(|_| RssError::Short { have })?;
        let flags = RssFlags::from_bits_retain(start.flags);
        let disabled = flags.contains(RssFlags::DISABLE);
        let part = |offset: u32, len: u16| {
            let part = info.get(offset as usize..).and_then(|rest| rest.get(..len.into()));
            part.ok_or(RssError::Outside { offset, len, have })
        };
        let unless = |flag: RssFlags| (!flags.contains(flag) && !disabled).then_some(());
        let table = unless(RssFlags::TABLE_UNCHANGED);
        let table = table.map(|()| part(start.table_offset, start.table_len)).transpose()?;
        let key = unless(RssFlags::KEY_UNCHANGED);
        let key = key.map(|()| part(start.key_offset, start.key_len)).transpose()?;
        let hash = unless(RssFlags::HASH_UNCHANGED);
        let hash = hash.map(|()| HashTypes::from_bits_retain(start.hash));
        Ok(Self { disabled, hash, key, table })
    }

    /// The table: a channel's index for each value of the hash's low bits.
    pub fn table(&self) -> Option<impl ExactSizeIterator<Item = u32> + 'a> {
        let (entries, _) = self.table?.as_chunks::<4>();
        Some(entries.iter().map(|entry| u32::from_le_bytes(*entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_18_bytes() {
        let value = RssCapabilities::value(4, 128);
        assert_eq!(value.len(), 18);
        assert_eq!(value[..4], [0x88, 2, 18, 0]);
        assert_eq!(value[8..], [4, 0, 0, 0, 4, 0, 0, 0, 128, 0]);
    }

    /// As `rndis_set_rss_param_msg` of Linux's rndis_filter.c makes it, with a table of four.
    fn linux(flag: u16) -> Vec<u8> {
        let mut info = vec![0x89, 2, 40, 0];
        info.extend(flag.to_le_bytes());
        info.extend([0, 0]);
        info.extend(0x1701_u32.to_le_bytes());
        info.extend([16, 0, 0, 0]);
        info.extend(40_u32.to_le_bytes());
        info.extend([40, 0, 0, 0]);
        info.extend(56_u32.to_le_bytes());
        info.extend([0; 12]);
        info.extend([0_u32, 1, 2, 3].iter().flat_map(|entry| entry.to_le_bytes()));
        info.extend([0x6d; 40]);
        info
    }

    #[test]
    fn what_linux_sets() {
        let info = linux(0);
        let settings = RssSettings::parse(&info).unwrap();
        assert!(!settings.disabled);
        assert!(settings.hash.unwrap().contains(HashTypes::TOEPLITZ | HashTypes::TCP_IPV6));
        assert_eq!(settings.table().unwrap().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(settings.key, Some(&[0x6d; 40][..]));
        let info = linux(0x10);
        let settings = RssSettings::parse(&info).unwrap();
        assert!(settings.disabled && settings.table().is_none() && settings.key.is_none());
        let info = linux(0xc);
        let settings = RssSettings::parse(&info).unwrap();
        assert!(settings.hash.is_some() && settings.table().is_none() && settings.key.is_none());
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let info = linux(0);
        let have = info.len();
        assert_eq!(RssSettings::parse(&info[..27]), Err(RssError::Short { have: 27 }));
        let mut far = info.clone();
        far[24..28].fill(0xff);
        let expected = RssError::Outside { offset: u32::MAX, len: 40, have };
        assert_eq!(RssSettings::parse(&far), Err(expected));
        let mut long = info;
        (long[12], long[13]) = (0xff, 0xff);
        let expected = RssError::Outside { offset: 40, len: 0xffff, have };
        assert_eq!(RssSettings::parse(&long), Err(expected));
    }
}
