// SPDX-License-Identifier: MIT OR Apache-2.0

//! SCSI as disks speak it: commands, sense data, and the data that commands return.
//!
//! Sources: T10's SPC-4 (commands of every device), SBC-3 (commands of disks) and SAM-5 (status);
//! what guests make of it: Linux `drivers/scsi/sd.c`, `drivers/scsi/scsi_scan.c`. Integers are
//! big-endian here, unlike everywhere else on the wire.

mod cdb;
mod command;
mod data;
mod inquiry;
mod mode;
mod multimedia;
mod sense;

pub use cdb::{Cdb6, Cdb10, Cdb12, Cdb16};
pub use command::{CdbError, Command, ModeSense, Transfer, WriteSame};
pub use data::{
    Capacity10, Capacity16, LunEntry, LunListHeader, UnmapDescriptor, UnmapHeader, capacity16,
};
pub use inquiry::{
    BlockCharacteristics, BlockLimits, Inquiry, Peripheral, Provisioning, VendorName, VpdHeader,
    VpdPage, provisioning, virtual_disk_name, world_wide_name,
};
pub use mode::{CachingPage, ControlPage, DeviceSpecific, ModeHeader6, ModeHeader10, PageCode};
pub use multimedia::{
    Capabilities, EventStatus, MediaEvent, Profile, TocHeader, TocTrack, minutes_seconds_frames,
};
pub use sense::{AdditionalSense, FixedSense, Sense, SenseKey};

use crate::open_enum::open_enum;

open_enum! {
    /// The first byte of a command (SPC-4 and SBC-3, "Operation codes").
    pub enum Opcode: u8 {
        /// Is the medium ready?
        TEST_UNIT_READY = 0x00,
        /// The sense data that is pending.
        REQUEST_SENSE = 0x03,
        /// Read with 21 bits of address.
        READ_6 = 0x08,
        /// Write with 21 bits of address.
        WRITE_6 = 0x0a,
        /// What the device is.
        INQUIRY = 0x12,
        /// Set mode pages.
        MODE_SELECT_6 = 0x15,
        /// Reserve the unit (old).
        RESERVE_6 = 0x16,
        /// Release the unit (old).
        RELEASE_6 = 0x17,
        /// Read mode pages.
        MODE_SENSE_6 = 0x1a,
        /// Start, stop, load, eject.
        START_STOP_UNIT = 0x1b,
        /// Self-test.
        SEND_DIAGNOSTIC = 0x1d,
        /// Lock the medium in the device.
        PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1e,
        /// Capacity, in 32 bits.
        READ_CAPACITY_10 = 0x25,
        /// Read with 32 bits of address.
        READ_10 = 0x28,
        /// Write with 32 bits of address.
        WRITE_10 = 0x2a,
        /// Check blocks on the medium.
        VERIFY_10 = 0x2f,
        /// Make the cache durable.
        SYNCHRONIZE_CACHE_10 = 0x35,
        /// One block's data to many blocks.
        WRITE_SAME_10 = 0x41,
        /// Give blocks up.
        UNMAP = 0x42,
        /// Table of contents of a disc.
        READ_TOC = 0x43,
        /// Features of a disc drive.
        GET_CONFIGURATION = 0x46,
        /// Events of a disc drive.
        GET_EVENT_STATUS_NOTIFICATION = 0x4a,
        /// Statistics.
        LOG_SENSE = 0x4d,
        /// A disc's state.
        READ_DISC_INFORMATION = 0x51,
        /// Set mode pages, long header.
        MODE_SELECT_10 = 0x55,
        /// Read mode pages, long header.
        MODE_SENSE_10 = 0x5a,
        /// Who holds a reservation.
        PERSISTENT_RESERVE_IN = 0x5e,
        /// Take, give up, preempt a reservation.
        PERSISTENT_RESERVE_OUT = 0x5f,
        /// ATA command in 16 bytes.
        ATA_PASS_THROUGH_16 = 0x85,
        /// Read with 64 bits of address.
        READ_16 = 0x88,
        /// Write with 64 bits of address.
        WRITE_16 = 0x8a,
        /// Check blocks on the medium, 64 bits of address.
        VERIFY_16 = 0x8f,
        /// Make the cache durable, 64 bits of address.
        SYNCHRONIZE_CACHE_16 = 0x91,
        /// One block's data to many blocks, 64 bits of address.
        WRITE_SAME_16 = 0x93,
        /// Several commands that return data; a service action says which.
        SERVICE_ACTION_IN_16 = 0x9e,
        /// Which logical units there are.
        REPORT_LUNS = 0xa0,
        /// ATA command in 12 bytes.
        ATA_PASS_THROUGH_12 = 0xa1,
        /// Several commands about the target; a service action says which.
        MAINTENANCE_IN = 0xa3,
        /// Read with 32 bits of address and of length.
        READ_12 = 0xa8,
        /// Write with 32 bits of address and of length.
        WRITE_12 = 0xaa,
        /// Check blocks on the medium, 32 bits of length.
        VERIFY_12 = 0xaf,
    }
}

open_enum! {
    /// How a command ended (SAM-5, "Status codes").
    pub enum Status: u8 {
        /// Done.
        GOOD = 0x00,
        /// Not done; the sense data says why.
        CHECK_CONDITION = 0x02,
        /// Try again later.
        BUSY = 0x08,
        /// Another initiator holds a reservation.
        RESERVATION_CONFLICT = 0x18,
        /// Too many commands wait.
        TASK_SET_FULL = 0x28,
        /// Aborted by another initiator.
        TASK_ABORTED = 0x40,
    }
}

/// The service action of [`Opcode::SERVICE_ACTION_IN_16`] that is READ CAPACITY(16).
pub const READ_CAPACITY_16: u8 = 0x10;
