// SPDX-License-Identifier: MIT OR Apache-2.0

//! The synthetic screen: messages in the packets of a [pipe](crate::pipe), in which nothing is
//! aligned.
//!
//! Source: Linux `drivers/gpu/drm/hyperv/hyperv_drm_proto.c` and `drivers/video/fbdev/hyperv_fb.c`
//! (`struct synthvid_msg`).

use std::fmt;

use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::open_enum::open_enum;

/// A version of the protocol, the minor number in the upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// Windows 8.
    pub const V3_2: Self = Self(0x0002_0003);
    /// Windows 10.
    pub const V3_5: Self = Self(0x0005_0003);

    /// Every version that is spoken, oldest first.
    pub const ALL: [Self; 2] = [Self::V3_2, Self::V3_5];
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 & 0xffff, self.0 >> 16)
    }
}

/// The most resolutions that a [`ResolutionResponse`] can name.
pub const MAX_RESOLUTIONS: usize = 64;

open_enum! {
    /// What a message is.
    pub enum MessageType: u32 {
        /// The guest asks for a version.
        VERSION_REQUEST = 1,
        /// Whether the host speaks it.
        VERSION_RESPONSE = 2,
        /// Where the guest keeps its pictures.
        VRAM_LOCATION = 3,
        /// The host knows.
        VRAM_LOCATION_ACK = 4,
        /// What is shown of that.
        SITUATION_UPDATE = 5,
        /// The host knows.
        SITUATION_UPDATE_ACK = 6,
        /// Where the pointer is.
        POINTER_POSITION = 7,
        /// What it looks like.
        POINTER_SHAPE = 8,
        /// What the host wants to be told.
        FEATURE_CHANGE = 9,
        /// What has changed in the picture.
        DIRT = 10,
        /// The guest asks how large it may be.
        RESOLUTION_REQUEST = 13,
        /// So large.
        RESOLUTION_RESPONSE = 14,
    }
}

/// What each message begins with.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct Header {
    /// What it is: a [`MessageType`].
    pub kind: U32,
    /// Bytes of the message, this counted.
    pub len: U32,
}

/// The body of [`MessageType::VERSION_RESPONSE`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct VersionResponse {
    /// The version that was asked for.
    pub version: U32,
    /// 1 if it is spoken.
    pub accepted: u8,
    /// Screens.
    pub max_outputs: u8,
}

/// The body of [`MessageType::VRAM_LOCATION`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct VramLocation {
    /// The guest's own number, which the answer repeats.
    pub context: U64,
    /// 0 if it keeps no pictures.
    pub has_address: u8,
    /// The guest physical address of the first byte.
    pub address: U64,
}

/// One screen in the body of [`MessageType::SITUATION_UPDATE`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct Output {
    /// 0 if it is dark.
    pub active: u8,
    /// Bytes from the start of the guest's pictures to this one.
    pub vram_offset: U32,
    /// Bits of a pixel.
    pub depth: u8,
    /// Pixels of a line.
    pub width: U32,
    /// Lines.
    pub height: U32,
    /// Bytes from a line to the next.
    pub pitch: U32,
}

/// The body of [`MessageType::SITUATION_UPDATE`], of a guest with one screen.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct SituationUpdate {
    /// The guest's own number, which the answer repeats.
    pub context: U64,
    /// Screens that follow.
    pub count: u8,
    /// The first.
    pub output: Output,
}

/// The body of [`MessageType::FEATURE_CHANGE`]: 1 for each that the guest should tell.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct FeatureChange {
    /// [`MessageType::DIRT`].
    pub dirt: u8,
    /// [`MessageType::POINTER_POSITION`].
    pub pointer_position: u8,
    /// [`MessageType::POINTER_SHAPE`].
    pub pointer_shape: u8,
    /// [`MessageType::SITUATION_UPDATE`].
    pub situation: u8,
}

/// The front of the body of [`MessageType::DIRT`]; so many [`Rectangle`]s follow.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct Dirt {
    /// Which screen.
    pub output: u8,
    /// How many rectangles.
    pub count: u8,
}

/// A part of a picture, in pixels.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct Rectangle {
    /// The first column.
    pub left: I32,
    /// The first line.
    pub top: I32,
    /// The first column beyond it.
    pub right: I32,
    /// The first line beyond it.
    pub bottom: I32,
}

/// The front of the body of [`MessageType::RESOLUTION_RESPONSE`]; the [`Resolution`]s follow, and
/// the message is as long as they need.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct ResolutionResponse {
    /// What the monitor says of itself (EDID); zeros for one that says nothing.
    pub edid: [u8; 128],
    /// How many resolutions follow, 1 to [`MAX_RESOLUTIONS`].
    pub count: u8,
    /// Which of them the guest should take.
    pub preferred: u8,
    /// 1 if they are a standard's.
    pub is_standard: u8,
}

/// How large a picture is, in pixels.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct Resolution {
    /// Pixels of a line.
    pub width: U16,
    /// Lines.
    pub height: U16,
}

const _: () = assert!(size_of::<Header>() == 8);
const _: () = assert!(size_of::<VersionResponse>() == 6);
const _: () = assert!(size_of::<VramLocation>() == 17);
const _: () = assert!(size_of::<Output>() == 18);
const _: () = assert!(size_of::<SituationUpdate>() == 27);
const _: () = assert!(size_of::<FeatureChange>() == 4);
const _: () = assert!(size_of::<Dirt>() == 2);
const _: () = assert!(size_of::<Rectangle>() == 16);
const _: () = assert!(size_of::<ResolutionResponse>() == 131);
const _: () = assert!(size_of::<Resolution>() == 4);

impl Header {
    /// The header of a message whose body has `len` bytes.
    pub const fn new(kind: MessageType, len: u32) -> Self {
        Self { kind: U32::new(kind.0), len: U32::new(len.saturating_add(8)) }
    }

    /// What the message is.
    pub const fn kind(self) -> MessageType {
        MessageType(self.kind.get())
    }
}

/// Prints a message of either side, without the pipe's header.
#[derive(Clone, Copy)]
pub struct Text<'a>(pub &'a [u8]);

impl Text<'_> {
    /// What it is.
    pub fn kind(&self) -> Option<MessageType> {
        Header::read_from_prefix(self.0).ok().map(|(header, _)| header.kind())
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok((header, body)) = Header::read_from_prefix(self.0) else {
            return write!(f, "{} B, too few for a message", self.0.len());
        };
        write!(f, "{}", header.kind())?;
        let details = match header.kind() {
            MessageType::VERSION_REQUEST => U32::read_from_prefix(body)
                .map(|(version, _)| Version(version.get()).to_string())
                .ok(),
            MessageType::VERSION_RESPONSE => VersionResponse::read_from_prefix(body)
                .map(|(to, _)| if to.accepted != 0 { "accepted" } else { "refused" }.to_owned())
                .ok(),
            MessageType::VRAM_LOCATION => VramLocation::read_from_prefix(body)
                .map(|(at, _)| match at.has_address {
                    0 => "nowhere".to_owned(),
                    _ => format!("{:#x}", at.address.get()),
                })
                .ok(),
            MessageType::SITUATION_UPDATE => SituationUpdate::read_from_prefix(body)
                .map(|(situation, _)| situation.output.to_string())
                .ok(),
            MessageType::DIRT => Dirt::read_from_prefix(body)
                .map(|(dirt, _)| format!("{} rectangles", dirt.count))
                .ok(),
            MessageType::RESOLUTION_RESPONSE => ResolutionResponse::read_from_prefix(body)
                .map(|(said, _)| format!("{} resolutions, number {}", said.count, said.preferred))
                .ok(),
            _ => return Ok(()),
        };
        write!(f, " {}", details.as_deref().unwrap_or("(cut)"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.active == 0 {
            return f.write_str("dark");
        }
        let (width, height, depth) = (self.width.get(), self.height.get(), self.depth);
        write!(f, "{width}x{height} of {depth} bits at +{:#x}", self.vram_offset.get())
    }
}

impl Resolution {
    /// Such a picture.
    pub const fn new(width: u16, height: u16) -> Self {
        Self { width: U16::new(width), height: U16::new(height) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: MessageType, body: &[u8]) -> String {
        let header = Header::new(kind, body.len() as u32);
        Text(&[header.as_bytes(), body].concat()).to_string()
    }

    #[test]
    fn messages_are_printed() {
        assert_eq!(text(MessageType::VERSION_REQUEST, &[3, 0, 5, 0]), "VERSION_REQUEST 3.5");
        assert_eq!(text(MessageType::DIRT, &[0, 2]), "DIRT 2 rectangles");
        assert_eq!(text(MessageType::DIRT, &[0]), "DIRT (cut)");
        let mut body = [0; 27];
        (body[8], body[9]) = (1, 1);
        body[14..].copy_from_slice(&[32, 0, 4, 0, 0, 0, 3, 0, 0, 0, 16, 0, 0]);
        let wanted = "SITUATION_UPDATE 1024x768 of 32 bits at +0x0";
        assert_eq!(text(MessageType::SITUATION_UPDATE, &body), wanted);
        body[9] = 0;
        assert_eq!(text(MessageType::SITUATION_UPDATE, &body), "SITUATION_UPDATE dark");
        assert_eq!(text(MessageType::RESOLUTION_REQUEST, &[]), "RESOLUTION_REQUEST");
        assert_eq!(Text(&[1]).to_string(), "1 B, too few for a message");
    }
}
