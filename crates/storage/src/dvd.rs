// SPDX-License-Identifier: MIT OR Apache-2.0

//! A drive of optical discs: a disk that is only read, and can be taken out.
//!
//! Sources: T10's MMC-6; Linux `drivers/scsi/sr.c` and `drivers/cdrom/cdrom.c` for what guests ask.

use std::sync::atomic::{AtomicBool, Ordering};

use busway_block::{Disk, Identity};
use busway_memory::GuestSlices;
use busway_wire::scsi::{
    AdditionalSense, Capabilities, Command, EventStatus, MediaEvent, ModeHeader6, ModeHeader10,
    ModeSense, PageCode, Profile, Sense, SenseKey, TocHeader, TocTrack, minutes_seconds_frames,
};
use zerocopy::IntoBytes;

use crate::Reply;
use crate::inquiry;
use crate::target::{Extent, INVALID_FIELD, Step, Unit, put, put_sense};

/// A drive's tray, which all channels share.
#[derive(Debug)]
pub struct Tray {
    /// The drive's own names: those of its first disc.
    pub(crate) identity: Identity,
    open: AtomicBool,
    /// There is no disc in it.
    empty: AtomicBool,
    locked: AtomicBool,
    /// The user wants the disc, and no event has said so.
    requested: AtomicBool,
    /// The disc has come or gone, and no event has said so.
    moved: AtomicBool,
    /// The disc has come, and no command has failed because of it.
    changed: AtomicBool,
}

const NO_DISC: Sense = Sense::new(SenseKey::NOT_READY, AdditionalSense::MEDIUM_NOT_PRESENT);
const OTHER_DISC: Sense =
    Sense::new(SenseKey::UNIT_ATTENTION, AdditionalSense::MEDIUM_MAY_HAVE_CHANGED);

impl Tray {
    /// That of a drive with a disc in it.
    pub(crate) fn new(identity: Identity) -> Self {
        let no = || AtomicBool::new(false);
        let (open, empty, locked) = (no(), no(), no());
        Self { identity, open, empty, locked, requested: no(), moved: no(), changed: no() }
    }

    /// Whether a command that needs a disc can have it. The first after a change cannot: the guest is
    /// to look what disc it is.
    pub(crate) fn ready(&self) -> Result<(), Sense> {
        if !self.has_disc() {
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
            self.changed.store(self.has_disc(), Ordering::Release);
        }
        Ok(())
    }

    /// Whether the guest has locked the disc in.
    pub(crate) fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Acquire)
    }

    /// Tells the guest that the user wants the disc.
    pub(crate) fn ask_for_disc(&self) {
        self.requested.store(true, Ordering::Release);
    }

    /// The user takes the disc out, locked or not.
    pub(crate) fn take_out(&self) {
        self.open.store(true, Ordering::Release);
        self.empty.store(true, Ordering::Release);
        for flag in [&self.changed, &self.requested, &self.locked] {
            flag.store(false, Ordering::Release);
        }
        self.moved.store(true, Ordering::Release);
    }

    /// The user puts a disc in.
    pub(crate) fn put_in(&self) {
        self.changed.store(true, Ordering::Release);
        self.moved.store(true, Ordering::Release);
        self.empty.store(false, Ordering::Release);
        self.open.store(false, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn has_disc(&self) -> bool {
        !self.is_open() && !self.empty.load(Ordering::Acquire)
    }

    /// What GET EVENT STATUS NOTIFICATION returns.
    pub(crate) fn event(&self, classes: u8) -> EventStatus {
        let (open, present) = (self.is_open(), self.has_disc());
        let status = match (open, present) {
            (true, _) => EventStatus::TRAY_OPEN,
            (false, true) => EventStatus::PRESENT,
            (false, false) => 0,
        };
        let wanted = classes & EventStatus::MEDIA_BIT != 0;
        let event = match wanted && self.moved.swap(false, Ordering::AcqRel) {
            true if open => MediaEvent::Removal,
            true if present => MediaEvent::NewMedium,
            false if wanted && self.requested.swap(false, Ordering::AcqRel) => {
                MediaEvent::EjectRequest
            }
            _ => MediaEvent::NoChange,
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
        let current = if self.has_disc() { Profile::DVD_ROM } else { 0 };
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

/// A drive, the disc in it, and what a command on it works with.
pub(crate) struct Drive<'a> {
    pub(crate) tray: &'a Tray,
    pub(crate) disc: Option<&'a Disk>,
    pub(crate) index: usize,
    pub(crate) data: &'a mut GuestSlices,
    pub(crate) more: &'a mut Vec<Extent>,
}

impl Drive<'_> {
    /// A command for a drive: its own, those that need its disc, and those of any unit.
    pub(crate) fn execute(&mut self, command: &Command) -> Result<Step, Sense> {
        let tray = self.tray;
        match *command {
            Command::Inquiry { vital, page, allocation } => {
                let bytes = inquiry::of_drive(&tray.identity, vital, page)?;
                Ok(put(self.data, allocation.into(), &bytes))
            }
            Command::RequestSense { descriptor, allocation } => {
                Ok(put_sense(self.data, Sense::NONE, descriptor, allocation.into()))
            }
            Command::PreventRemoval { prevent } => {
                tray.lock(prevent);
                Ok(Step::Done(Reply::good(0)))
            }
            Command::StartStop { start, load_eject, .. } => {
                if load_eject {
                    tray.operate(!start)?;
                }
                Ok(Step::Done(Reply::good(0)))
            }
            Command::ModeSense(mode) => {
                Ok(put(self.data, mode.allocation.into(), &tray.mode(&mode)?))
            }
            Command::GetConfiguration { allocation } => {
                Ok(put(self.data, allocation.into(), tray.profile().as_bytes()))
            }
            Command::GetEventStatus { polled: true, classes, allocation } => {
                Ok(put(self.data, allocation.into(), tray.event(classes).as_bytes()))
            }
            // Nothing is ever announced by itself.
            Command::GetEventStatus { polled: false, .. } => Err(INVALID_FIELD),
            Command::ReadToc { msf, format, allocation } => {
                let blocks = self.disc()?.last_lba() + 1;
                Ok(put(self.data, allocation.into(), &contents(msf, format, blocks)?))
            }
            Command::TestUnitReady
            | Command::Read(_)
            | Command::Verify { .. }
            | Command::ReadCapacity10
            | Command::ReadCapacity16 { .. } => self.disc()?.execute(command),
            Command::Write(_)
            | Command::SynchronizeCache { .. }
            | Command::WriteSame(_)
            | Command::Unmap { .. }
            | Command::ReportLuns { .. }
            | Command::Other(_) => {
                Err(Sense::illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE))
            }
            Command::OtherAction(..) => Err(INVALID_FIELD),
        }
    }

    fn disc(&mut self) -> Result<Unit<'_>, Sense> {
        self.tray.ready()?;
        let disk = self.disc.ok_or(NO_DISC)?;
        Ok(Unit { disk, index: self.index, data: self.data, more: self.more })
    }
}

/// What READ TOC returns of a disc of `blocks` blocks: one track, in one session.
fn contents(msf: bool, format: u8, blocks: u64) -> Result<Vec<u8>, Sense> {
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
