// SPDX-License-Identifier: MIT OR Apache-2.0

//! A drive of optical discs: a disk that is only read, and can be taken out.
//!
//! Sources: T10's MMC-6; Linux `drivers/scsi/sr.c` and `drivers/cdrom/cdrom.c` for what guests ask.

use std::sync::atomic::{AtomicBool, Ordering};

use busway_wire::scsi::{
    AdditionalSense, Capabilities, EventStatus, MediaEvent, ModeHeader6, ModeHeader10, ModeSense,
    PageCode, Profile, Sense, SenseKey, TocHeader, TocTrack, minutes_seconds_frames,
};
use zerocopy::IntoBytes;

/// A drive's tray, which all channels share.
#[derive(Debug, Default)]
pub struct Tray {
    open: AtomicBool,
    locked: AtomicBool,
    /// The disc has come or gone, and no event has said so.
    moved: AtomicBool,
    /// The disc has come, and no command has failed because of it.
    changed: AtomicBool,
}

const NO_DISC: Sense = Sense::new(SenseKey::NOT_READY, AdditionalSense::MEDIUM_NOT_PRESENT);
const OTHER_DISC: Sense =
    Sense::new(SenseKey::UNIT_ATTENTION, AdditionalSense::MEDIUM_MAY_HAVE_CHANGED);

impl Tray {
    /// Whether a command that needs a disc can have it. The first after a change cannot: the guest is
    /// to look what disc it is.
    pub(crate) fn ready(&self) -> Result<(), Sense> {
        if self.open.load(Ordering::Acquire) {
            Err(NO_DISC)
        } else if self.changed.load(Ordering::Relaxed) && self.changed.swap(false, Ordering::AcqRel)
        {
            Err(OTHER_DISC)
        } else {
            Ok(())
        }
    }

    /// Locks the disc in, or no more.
    pub(crate) fn lock(&self, locked: bool) {
        self.locked.store(locked, Ordering::Release);
    }

    /// Opens or closes the tray, for the guest.
    pub(crate) fn operate(&self, open: bool) -> Result<(), Sense> {
        if open && self.locked.load(Ordering::Acquire) {
            return Err(Sense::illegal(AdditionalSense::MEDIUM_REMOVAL_PREVENTED));
        }
        if self.open.swap(open, Ordering::AcqRel) != open {
            self.moved.store(true, Ordering::Release);
            self.changed.store(!open, Ordering::Release);
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// What GET EVENT STATUS NOTIFICATION returns.
    pub(crate) fn event(&self, classes: u8) -> EventStatus {
        let open = self.is_open();
        let status = if open { EventStatus::TRAY_OPEN } else { EventStatus::PRESENT };
        let wanted = classes & EventStatus::MEDIA_BIT != 0;
        let event = match wanted && self.moved.swap(false, Ordering::AcqRel) {
            true if open => MediaEvent::Removal,
            true => MediaEvent::NewMedium,
            false => MediaEvent::NoChange,
        };
        // Without an event there is but the header.
        let (length, class) = if wanted {
            (size_of::<EventStatus>() as u16 - 2, EventStatus::MEDIA)
        } else {
            (2, EventStatus::NONE_OF_THESE)
        };
        let supported = EventStatus::MEDIA_BIT;
        let (event, slots) = (event as u8, [0; 2]);
        EventStatus { length: length.into(), class, supported, event, status, slots }
    }

    /// What GET CONFIGURATION returns.
    pub(crate) fn profile(&self) -> Profile {
        let current = if self.is_open() { 0 } else { Profile::DVD_ROM };
        let length = size_of::<Profile>() as u32 - 4;
        Profile { length: length.into(), reserved: 0.into(), current: current.into() }
    }

    /// What MODE SENSE returns.
    pub(crate) fn mode(&self, mode: &ModeSense) -> Result<Vec<u8>, Sense> {
        if !matches!(mode.page, PageCode::CD_CAPABILITIES | PageCode::ALL) || mode.control == 3 {
            return Err(Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB));
        }
        let locked = u8::from(self.locked.load(Ordering::Acquire)) << 1;
        let page = Capabilities {
            page: PageCode::CD_CAPABILITIES.0,
            length: size_of::<Capabilities>() as u8 - 2,
            reads: 0x08,
            writes: 0,
            sessions: 0,
            audio: 0,
            mechanism: 0x29 | locked,
            other: 0,
            speeds: [0.into(); 6],
        };
        let len = size_of::<Capabilities>();
        let mut bytes = if mode.long {
            let length = (size_of::<ModeHeader10>() - 2 + len) as u16;
            ModeHeader10 {
                length: length.into(),
                medium: 0,
                device_specific: 0,
                long_lba: 0,
                reserved: 0,
                block_descriptors_length: 0.into(),
            }
            .as_bytes()
            .to_vec()
        } else {
            let length = (size_of::<ModeHeader6>() - 1 + len) as u8;
            let (medium, device_specific, block_descriptors_length) = (0, 0, 0);
            ModeHeader6 { length, medium, device_specific, block_descriptors_length }
                .as_bytes()
                .to_vec()
        };
        bytes.extend_from_slice(page.as_bytes());
        Ok(bytes)
    }
}

/// What READ TOC returns of a disc of `blocks` blocks: one track, in one session.
pub(crate) fn contents(msf: bool, format: u8, blocks: u64) -> Result<Vec<u8>, Sense> {
    let address = |lba: u32| if msf { minutes_seconds_frames(lba) } else { lba };
    let track = |number, lba| TocTrack {
        reserved: 0,
        control: TocTrack::DATA,
        number,
        reserved2: 0,
        address: address(lba).into(),
    };
    let end = u32::try_from(blocks).unwrap_or(u32::MAX);
    let tracks = match format {
        0 => vec![track(1, 0), track(TocTrack::LEAD_OUT, end)],
        // The first track of the last session.
        1 => vec![track(1, 0)],
        _ => return Err(Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB)),
    };
    let length = (2 + size_of::<TocTrack>() * tracks.len()) as u16;
    let mut bytes = TocHeader { length: length.into(), first: 1, last: 1 }.as_bytes().to_vec();
    bytes.extend_from_slice(tracks.as_bytes());
    Ok(bytes)
}
