// SPDX-License-Identifier: MIT OR Apache-2.0

//! The key-value pair component.
//!
//! A pair is kept in a pool, in the guest. All text is UTF-16 and ends with a zero, which counts in
//! its size.
//!
//! Source: Linux `include/uapi/linux/hyperv.h` (`struct hv_kvp_msg` …), `drivers/hv/hv_kvp.c`.

use std::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Version;
use crate::open_enum::open_enum;
use crate::utf16::{self, TooLong};

/// Versions that guests are known to speak, oldest first.
pub const VERSIONS: [Version; 3] = [Version::new(1, 0), Version::new(3, 0), Version::new(4, 0)];

/// UTF-16 units of a key, with the zero.
pub const KEY_UNITS: usize = 256;
/// Bytes of a value; of text half as many units, with the zero.
pub const VALUE_LEN: usize = 2048;

open_enum! {
    /// What is asked.
    pub enum Operation: u8 {
        /// The value of a key.
        GET = 0,
        /// To keep a value.
        SET = 1,
        /// To forget a key.
        DELETE = 2,
        /// The pair of a number.
        ENUMERATE = 3,
        /// The addresses of a network card.
        GET_IP = 4,
        /// To give a network card addresses.
        SET_IP = 5,
    }
}

open_enum! {
    /// Where a pair is kept, and by whom it is written.
    pub enum Pool: u8 {
        /// By the host, for programs of the guest.
        EXTERNAL = 0,
        /// By programs of the guest, for the host.
        GUEST = 1,
        /// By the guest's daemon: its names, versions and addresses.
        AUTO = 2,
        /// By the host: its own names.
        AUTO_EXTERNAL = 3,
        /// By the guest, for itself.
        AUTO_INTERNAL = 4,
    }
}

open_enum! {
    /// What a value is.
    pub enum ValueType: u32 {
        /// Text.
        TEXT = 1,
        /// A number of 32 bits.
        U32 = 4,
        /// A number of 64 bits.
        U64 = 8,
    }
}

/// What each request begins with, but for those about addresses (`struct hv_kvp_hdr`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// What is asked.
    pub operation: Operation,
    /// Of which pool.
    pub pool: Pool,
    /// Zero.
    pub padding: u16,
}

/// A pair (`struct hv_kvp_exchg_msg_value`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Pair {
    /// What the value is.
    pub kind: ValueType,
    /// Bytes of the key.
    pub key_len: u32,
    /// Bytes of the value.
    pub value_len: u32,
    /// The key.
    pub key: [u16; KEY_UNITS],
    /// The value.
    pub value: [u16; VALUE_LEN / 2],
}

/// The body of [`Operation::GET`] and [`Operation::SET`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exchange {
    /// What is asked.
    pub header: Header,
    /// The pair; of a GET only the key.
    pub pair: Pair,
}

/// The body of [`Operation::DELETE`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Delete {
    /// What is asked.
    pub header: Header,
    /// Bytes of the key.
    pub key_len: u32,
    /// The key.
    pub key: [u16; KEY_UNITS],
}

/// The body of [`Operation::ENUMERATE`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Enumerate {
    /// What is asked.
    pub header: Header,
    /// Which pair, from 0 on.
    pub index: u32,
    /// In the answer, the pair.
    pub pair: Pair,
}

bitflags::bitflags! {
    /// Which addresses are meant.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Families: u8 {
        /// IPv4.
        const IPV4 = 1;
        /// IPv6.
        const IPV6 = 2;
        const _ = !0;
    }
}

/// The body of [`Operation::GET_IP`] and [`Operation::SET_IP`] (`struct hv_kvp_ip_msg`). Several of
/// a kind stand with a semicolon between them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IpAddresses {
    /// What is asked.
    pub operation: Operation,
    /// Of no meaning here.
    pub pool: Pool,
    /// Which card: its instance in braces, or, for Linux's GET_IP, its own address.
    pub adapter: [u16; 128],
    /// [`Families`].
    pub families: u8,
    /// 1 if the addresses come by DHCP.
    pub dhcp: u8,
    /// Addresses.
    pub addresses: [u16; 1024],
    /// A mask for each: dotted, or the length of a prefix.
    pub masks: [u16; 1024],
    /// Gateways.
    pub gateways: [u16; 512],
    /// Name servers.
    pub name_servers: [u16; 1024],
}

const _: () = assert!(size_of::<Header>() == 4);
const _: () = assert!(size_of::<Pair>() == 2572);
const _: () = assert!(size_of::<Exchange>() == 2576);
const _: () = assert!(size_of::<Delete>() == 520);
const _: () = assert!(size_of::<Enumerate>() == 2580);
const _: () = assert!(size_of::<IpAddresses>() == 7428);

/// The value of a pair, in what a message has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number of 32 bits.
    U32(u32),
    /// A number of 64 bits.
    U64(u64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::U32(number) => number.fmt(f),
            Self::U64(number) => number.fmt(f),
        }
    }
}

/// A pair that has no place in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// The key.
    #[error("the key has {0}")]
    Key(TooLong),
    /// The value.
    #[error("the value has {0}")]
    Value(TooLong),
    /// No key at all.
    #[error("the key is empty")]
    NoKey,
}

/// The key in its field, and its bytes with the zero.
pub fn key_field(key: &str) -> Result<([u16; KEY_UNITS], u32), PairError> {
    if key.is_empty() {
        return Err(PairError::NoKey);
    }
    let field = utf16::field(key).map_err(PairError::Key)?;
    Ok((field, text_len(key)))
}

/// Bytes of a text in UTF-16, with the zero.
fn text_len(text: &str) -> u32 {
    u32::try_from(2 * (text.encode_utf16().count() + 1)).unwrap_or(u32::MAX)
}

impl Pair {
    /// The pair of `key` and `value`.
    pub fn new(key: &str, value: &Value) -> Result<Self, PairError> {
        let (key, key_len) = key_field(key)?;
        let mut field = [0; VALUE_LEN / 2];
        let (kind, value_len) = match value {
            Value::Text(text) => {
                field = utf16::field(text).map_err(PairError::Value)?;
                (ValueType::TEXT, text_len(text))
            }
            Value::U32(number) => {
                put(&mut field, &number.to_le_bytes());
                (ValueType::U32, 4)
            }
            Value::U64(number) => {
                put(&mut field, &number.to_le_bytes());
                (ValueType::U64, 8)
            }
        };
        Ok(Self { kind, key_len, value_len, key, value: field })
    }

    /// The key.
    pub fn key(&self) -> String {
        utf16::text(&self.key)
    }

    /// The value. One of an unknown kind is taken for text.
    pub fn value(&self) -> Value {
        let bytes = self.value.as_bytes();
        match self.kind {
            ValueType::U32 => Value::U32(u32::read_from_prefix(bytes).map_or(0, |(n, _)| n)),
            ValueType::U64 => Value::U64(u64::read_from_prefix(bytes).map_or(0, |(n, _)| n)),
            _ => Value::Text(utf16::text(&self.value)),
        }
    }
}

fn put(field: &mut [u16], bytes: &[u8]) {
    for (to, from) in field.as_mut_bytes().iter_mut().zip(bytes) {
        *to = *from;
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} = {:?}", self.key(), self.value().to_string())
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.pool)
    }
}

impl fmt::Display for IpAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = utf16::text;
        write!(f, "{} {}", self.operation, text(&self.adapter))?;
        let fields =
            [&self.addresses[..], &self.masks[..], &self.gateways[..], &self.name_servers[..]];
        for (name, field) in ["addresses", "masks", "gateways", "name servers"].iter().zip(fields) {
            write!(f, ", {name} {:?}", text(field))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets of `struct hv_kvp_msg` with `kvp_set`.
    #[test]
    fn a_pair_is_laid_out_as_linux_reads_it() {
        let pair = Pair::new("ab", &Value::Text("ü".to_owned())).unwrap();
        let header = Header { operation: Operation::SET, pool: Pool::GUEST, padding: 0 };
        let body = Exchange { header, pair };
        let bytes = body.as_bytes();
        assert_eq!(bytes[..16], [1, 1, 0, 0, 1, 0, 0, 0, 6, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(bytes[16..22], [b'a', 0, b'b', 0, 0, 0]);
        assert_eq!(bytes[528..532], [0xfc, 0, 0, 0]);
        assert_eq!(pair.to_string(), r#""ab" = "ü""#);
    }

    #[test]
    fn numbers_stand_in_the_value_as_they_are() {
        for value in [Value::U32(0x1234_5678), Value::U64(1 << 40), Value::Text("x".repeat(1023))] {
            assert_eq!(Pair::new("k", &value).unwrap().value(), value);
        }
        let pair = Pair::new("k", &Value::U32(0x1234_5678)).unwrap();
        assert_eq!((pair.kind, pair.value_len), (ValueType::U32, 4));
        assert_eq!(pair.value[..2], [0x5678, 0x1234]);
    }

    #[test]
    fn what_is_too_long_is_refused_with_both_numbers() {
        let long = Value::Text("x".repeat(1024));
        let error = Pair::new("k", &long).unwrap_err();
        assert_eq!(error.to_string(), "the value has 1024 UTF-16 units, where 1023 are the most");
        let error = Pair::new(&"k".repeat(256), &Value::U32(0)).unwrap_err();
        assert_eq!(error.to_string(), "the key has 256 UTF-16 units, where 255 are the most");
        assert_eq!(Pair::new("", &Value::U32(0)), Err(PairError::NoKey));
    }

    /// Offsets of `struct hv_kvp_ip_msg`: no padding behind the two bytes.
    #[test]
    fn addresses_follow_the_adapter_at_once() {
        let offsets = [
            std::mem::offset_of!(IpAddresses, adapter),
            std::mem::offset_of!(IpAddresses, families),
            std::mem::offset_of!(IpAddresses, addresses),
            std::mem::offset_of!(IpAddresses, masks),
            std::mem::offset_of!(IpAddresses, gateways),
            std::mem::offset_of!(IpAddresses, name_servers),
        ];
        assert_eq!(offsets, [2, 258, 260, 2308, 4356, 5380]);
    }
}
