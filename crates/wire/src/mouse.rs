// SPDX-License-Identifier: MIT OR Apache-2.0

//! The synthetic mouse: a HID device whose messages are those of a [pipe](crate::pipe).
//!
//! Source: Linux `drivers/hid/hid-hyperv.c`; the HID specification 1.11 for descriptors.

use std::fmt;

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;

/// The only version that guests are known to speak, 2.0 (`SYNTHHID_INPUT_VERSION`).
pub const VERSION: u32 = 0x0002_0000;

open_enum! {
    /// What a message is.
    pub enum MessageType: u32 {
        /// The guest asks for a version.
        PROTOCOL_REQUEST = 0,
        /// Whether the host speaks it.
        PROTOCOL_RESPONSE = 1,
        /// What the device is.
        INITIAL_DEVICE_INFO = 2,
        /// The guest has read that.
        INITIAL_DEVICE_INFO_ACK = 3,
        /// A report of the device.
        INPUT_REPORT = 4,
    }
}

/// What each message begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// What it is.
    pub kind: MessageType,
    /// Bytes that follow.
    pub len: u32,
}

/// The body of [`MessageType::PROTOCOL_RESPONSE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Response {
    /// The version that was asked for.
    pub version: [u8; 4],
    /// 1 if it is spoken.
    pub approved: u8,
}

/// The front of the body of [`MessageType::INITIAL_DEVICE_INFO`]; a [`HidDescriptor`] and the
/// report's descriptor follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DeviceInfo {
    /// Bytes of this.
    pub size: u32,
    /// Whose device it is.
    pub vendor: u16,
    /// Which device.
    pub product: u16,
    /// And of which version.
    pub version: u16,
    /// Zero.
    pub reserved: [u16; 11],
}

/// A HID descriptor (HID 1.11, 6.2.1) with one report descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HidDescriptor {
    /// Bytes of this.
    pub len: u8,
    /// 0x21.
    pub kind: u8,
    /// The specification's version, in BCD.
    pub hid_version: U16,
    /// 0 for none.
    pub country: u8,
    /// 1.
    pub descriptors: u8,
    /// 0x22.
    pub report_kind: u8,
    /// Bytes of the report descriptor.
    pub report_len: U16,
}

/// Prints a message of either side, without the pipe's header.
#[derive(Clone, Copy)]
pub struct Text<'a>(pub &'a [u8]);

impl Text<'_> {
    /// What it is.
    pub fn kind(&self) -> Option<MessageType> {
        MessageType::read_from_prefix(self.0).ok().map(|(kind, _)| kind)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok((Header { kind, len }, body)) = Header::read_from_prefix(self.0) else {
            return write!(f, "{} B, too few for a message", self.0.len());
        };
        write!(f, "{kind}")?;
        let version = |bytes: [u8; 4]| u32::from_le_bytes(bytes);
        match kind {
            MessageType::PROTOCOL_REQUEST => match body.first_chunk() {
                Some(bytes) => write!(f, " {}.{}", version(*bytes) >> 16, version(*bytes) & 0xffff),
                None => f.write_str(" (cut)"),
            },
            MessageType::PROTOCOL_RESPONSE => match Response::read_from_prefix(body) {
                Ok((response, _)) if response.approved != 0 => f.write_str(" accepted"),
                Ok(_) => f.write_str(" refused"),
                Err(_) => f.write_str(" (cut)"),
            },
            MessageType::INITIAL_DEVICE_INFO => match DeviceInfo::read_from_prefix(body) {
                Ok((info, _)) => write!(f, " {:04x}:{:04x}", info.vendor, info.product),
                Err(_) => f.write_str(" (cut)"),
            },
            MessageType::INPUT_REPORT => {
                write!(f, " {:02x?}", body.get(..len as usize).unwrap_or(body))
            }
            _ => Ok(()),
        }
    }
}

const _: () = assert!(size_of::<Header>() == 8);
const _: () = assert!(size_of::<Response>() == 5);
const _: () = assert!(size_of::<DeviceInfo>() == 32);
const _: () = assert!(size_of::<HidDescriptor>() == 9);

impl DeviceInfo {
    /// Hyper-V's own mouse, by which guests know it.
    pub const HYPERV: Self =
        Self { size: 32, vendor: 0x045e, product: 0x0621, version: 0x0101, reserved: [0; 11] };
}

impl HidDescriptor {
    /// One whose report descriptor has so many bytes.
    pub const fn with_report(len: u16) -> Self {
        Self {
            len: 9,
            kind: 0x21,
            hid_version: U16::new(0x0101),
            country: 0,
            descriptors: 1,
            report_kind: 0x22,
            report_len: U16::new(len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_printed() {
        let text = |bytes: &[u8]| Text(bytes).to_string();
        assert_eq!(text(&[0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 2, 0]), "PROTOCOL_REQUEST 2.0");
        assert_eq!(text(&[1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 2, 0, 1]), "PROTOCOL_RESPONSE accepted");
        assert_eq!(text(&[4, 0, 0, 0, 2, 0, 0, 0, 1, 0xff, 9]), "INPUT_REPORT [01, ff]");
        let mut info = vec![2, 0, 0, 0, 32, 0, 0, 0];
        info.extend(DeviceInfo::HYPERV.as_bytes());
        assert_eq!(text(&info), "INITIAL_DEVICE_INFO 045e:0621");
    }

    /// `struct hid_descriptor` of Linux's `include/linux/hid.h`, packed.
    #[test]
    fn the_descriptor_is_the_specifications() {
        let descriptor = HidDescriptor::with_report(0x0145);
        assert_eq!(descriptor.as_bytes(), [9, 0x21, 1, 1, 0, 1, 0x22, 0x45, 1]);
    }
}
