// SPDX-License-Identifier: MIT OR Apache-2.0

//! Data of the commands that drives of optical discs have beside those of disks.
//!
//! Sources: T10's MMC-6, and MMC-3 for the mode page; what guests make of it: Linux
//! `drivers/scsi/sr.c`, `drivers/cdrom/cdrom.c`.

use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The start of what READ TOC returns.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TocHeader {
    /// Bytes that follow this field.
    pub length: U16,
    /// The first track, or session.
    pub first: u8,
    /// The last one.
    pub last: u8,
}

/// A track of a table of contents.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TocTrack {
    /// Zero.
    pub reserved: u8,
    /// [`DATA`](Self::DATA).
    pub control: u8,
    /// Its number, or [`LEAD_OUT`](Self::LEAD_OUT).
    pub number: u8,
    /// Zero.
    pub reserved2: u8,
    /// Its first block, or that as minutes, seconds and frames.
    pub address: U32,
}

impl TocTrack {
    /// A track of data, described where addresses are.
    pub const DATA: u8 = 0x14;

    /// What is behind the last track.
    pub const LEAD_OUT: u8 = 0xaa;
}

/// A block's address as minutes, seconds and frames, each in a byte: 75 blocks are a second, and two
/// seconds come before the first block. Discs longer than that can say have the longest address.
pub const fn minutes_seconds_frames(lba: u32) -> u32 {
    let frames = lba.saturating_add(150);
    let (minutes, seconds) = (frames / (60 * 75), frames / 75 % 60);
    if minutes > 0xff { 0x00ff_3b4a } else { minutes << 16 | seconds << 8 | (frames % 75) }
}

/// What GET CONFIGURATION returns of a drive without features to speak of.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Profile {
    /// Bytes that follow this field.
    pub length: U32,
    /// Zero.
    pub reserved: U16,
    /// What the disc is: [`DVD_ROM`](Self::DVD_ROM), or 0 for none.
    pub current: U16,
}

impl Profile {
    /// A DVD that is read.
    pub const DVD_ROM: u16 = 0x10;
}

/// What GET EVENT STATUS NOTIFICATION returns.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EventStatus {
    /// Bytes that follow this field.
    pub length: U16,
    /// The class of the event, or [`NONE_OF_THESE`](Self::NONE_OF_THESE).
    pub class: u8,
    /// A bit for each class that there is.
    pub supported: u8,
    /// What has happened.
    pub event: u8,
    /// [`TRAY_OPEN`](Self::TRAY_OPEN), [`PRESENT`](Self::PRESENT).
    pub status: u8,
    /// Zero.
    pub slots: [u8; 2],
}

/// What has happened to a medium: [`EventStatus::event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MediaEvent {
    /// Nothing.
    NoChange = 0,
    /// The user wants it out.
    EjectRequest = 1,
    /// There is a new one.
    NewMedium = 2,
    /// It is gone.
    Removal = 3,
}

impl EventStatus {
    /// The class of events of media.
    pub const MEDIA: u8 = 4;
    /// Its bit.
    pub const MEDIA_BIT: u8 = 1 << Self::MEDIA;
    /// None of the classes that were asked for is supported.
    pub const NONE_OF_THESE: u8 = 0x80;
    /// Bit of `status`: the tray is open.
    pub const TRAY_OPEN: u8 = 1;
    /// Bit of `status`: there is a disc.
    pub const PRESENT: u8 = 2;
}

/// The mode page of what a drive can do, as long as Linux looks at it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Capabilities {
    /// [`PageCode::CD_CAPABILITIES`](super::PageCode::CD_CAPABILITIES).
    pub page: u8,
    /// Bytes that follow this field.
    pub length: u8,
    /// What it reads: bit 3 DVD-ROM.
    pub reads: u8,
    /// What it writes: nothing.
    pub writes: u8,
    /// Bit 6: several sessions.
    pub sessions: u8,
    /// Zero.
    pub audio: u8,
    /// Bit 0: it can be locked; bit 1: it is; bit 3: it ejects; bits 7:5: 1 for a tray.
    pub mechanism: u8,
    /// Zero.
    pub other: u8,
    /// Obsolete speeds, kilobytes a second, and the like.
    pub speeds: [U16; 6],
}

const _: () = assert!(size_of::<TocTrack>() == 8);
const _: () = assert!(size_of::<Profile>() == 8);
const _: () = assert!(size_of::<EventStatus>() == 8);
const _: () = assert!(size_of::<Capabilities>() == 20);

#[cfg(test)]
mod tests {
    use super::*;

    /// The first block is at 00:02:00 (MMC-6, "LBA to MSF translation").
    #[test]
    fn blocks_have_times() {
        assert_eq!(minutes_seconds_frames(0), 0x0000_0200);
        assert_eq!(minutes_seconds_frames(4350), 0x0001_0000);
        assert_eq!(minutes_seconds_frames(4349), 0x0000_3b4a);
        assert_eq!(minutes_seconds_frames(u32::MAX), 0x00ff_3b4a);
    }
}
