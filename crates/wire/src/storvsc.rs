// SPDX-License-Identifier: MIT OR Apache-2.0

//! Packets between storvsc, the guest's storage driver, and its host.
//!
//! Every packet holds one [`Packet`], of 64 bytes, or of 48 when the guest has not (yet) agreed on
//! a version that has the longer form. The guest's requests are in-band packets, or GPA-direct ones
//! whose external pages are the command's data; the host answers each with a completion that holds
//! a packet of the same size, operation [`COMPLETE_IO`](Operation::COMPLETE_IO).
//!
//! Source: Linux `drivers/scsi/storvsc_drv.c`.

use std::fmt;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::open_enum::open_enum;
use crate::scsi;

open_enum! {
    /// What a packet asks or says (`enum vstor_packet_operation`).
    pub enum Operation: u32 {
        /// The answer to any request.
        COMPLETE_IO = 1,
        /// Host to guest: a unit is gone.
        REMOVE_DEVICE = 2,
        /// A SCSI command.
        EXECUTE_SRB = 3,
        /// Abort what a unit does.
        RESET_LUN = 4,
        /// Abort what the adapter does.
        RESET_ADAPTER = 5,
        /// Abort what the bus does.
        RESET_BUS = 6,
        /// The handshake begins.
        BEGIN_INITIALIZATION = 7,
        /// The handshake is over.
        END_INITIALIZATION = 8,
        /// Does the host speak this version?
        QUERY_PROTOCOL_VERSION = 9,
        /// What can the adapter do?
        QUERY_PROPERTIES = 10,
        /// Host to guest: units came or went.
        ENUMERATE_BUS = 11,
        /// Names of a Fibre Channel adapter.
        FCHBA_DATA = 12,
        /// More channels, please.
        CREATE_SUB_CHANNELS = 13,
    }
}

open_enum! {
    /// How a request went, as an NTSTATUS.
    ///
    /// Guests only compare with 0; the others are the codes that fit (MS-ERREF, "NTSTATUS").
    pub enum NtStatus: u32 {
        /// Done.
        SUCCESS = 0,
        /// Did not go well.
        UNSUCCESSFUL = 0xc000_0001,
        /// A field is out of its range.
        INVALID_PARAMETER = 0xc000_000d,
        /// No such request.
        INVALID_DEVICE_REQUEST = 0xc000_0010,
        /// That version is not spoken.
        REVISION_MISMATCH = 0xc000_0059,
        /// No such unit.
        DEVICE_DOES_NOT_EXIST = 0xc000_00c0,
        /// Given up.
        CANCELLED = 0xc000_0120,
        /// Not now.
        INVALID_DEVICE_STATE = 0xc000_0184,
        /// The unit failed.
        IO_DEVICE_ERROR = 0xc000_0185,
    }
}

/// A version of the protocol: major in the upper, minor in the lower byte.
#[repr(transparent)]
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Version(pub u16);

impl Version {
    /// Windows Server 2008.
    pub const V2_0: Self = Self::new(2, 0);
    /// Windows 7.
    pub const V4_2: Self = Self::new(4, 2);
    /// Windows 8: the longer [`Srb`], and subchannels.
    pub const V5_1: Self = Self::new(5, 1);
    /// Windows 8.1.
    pub const V6_0: Self = Self::new(6, 0);
    /// Windows 10: guests allow themselves WRITE SAME.
    pub const V6_2: Self = Self::new(6, 2);

    /// Every version that guests are known to ask for, oldest first.
    pub const ALL: [Self; 5] = [Self::V2_0, Self::V4_2, Self::V5_1, Self::V6_0, Self::V6_2];

    /// The version `major.minor`.
    pub const fn new(major: u8, minor: u8) -> Self {
        Self(u16::from_be_bytes([major, minor]))
    }

    /// Whether this is one of [`Version::ALL`].
    pub fn is_known(self) -> bool {
        Self::ALL.contains(&self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor] = self.0.to_be_bytes();
        write!(f, "{major}.{minor}")
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The flag of [`Packet::flags`] by which a guest says that it waits for an answer.
pub const REQUEST_COMPLETION: u32 = 1;

/// Bytes of a packet's body: as many as its largest member has.
pub const BODY_LEN: usize = 52;

/// A packet (`struct vstor_packet`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Packet {
    /// What it asks or says.
    pub operation: Operation,
    /// [`REQUEST_COMPLETION`] or 0.
    pub flags: u32,
    /// In an answer: how it went.
    pub status: NtStatus,
    /// Depends on the operation.
    pub body: [u8; BODY_LEN],
}

const _: () = assert!(size_of::<Packet>() == Packet::LEN);

impl Packet {
    /// Bytes of a packet.
    pub const LEN: usize = 64;

    /// Bytes of a packet before version 5.1, and of any packet of a guest that has not agreed on a
    /// version yet: its body ends with the sense data of an [`Srb`].
    pub const SHORT_LEN: usize = 48;

    /// Bytes before the body.
    pub const HEADER_LEN: usize = Self::LEN - BODY_LEN;

    /// Parses the payload of a ring packet and says how long the answer must be.
    ///
    /// What a shorter packet does not have is zero; what stands behind 64 bytes is ignored.
    pub fn parse(payload: &[u8]) -> Result<(Self, usize), PacketError> {
        if let Ok((packet, _)) = Self::read_from_prefix(payload) {
            return Ok((packet, Self::LEN));
        }
        let short = payload.get(..Self::SHORT_LEN).ok_or(PacketError { have: payload.len() })?;
        let mut packet = Self::new_zeroed();
        if let Some(start) = packet.as_mut_bytes().get_mut(..Self::SHORT_LEN) {
            start.copy_from_slice(short);
        }
        Ok((packet, Self::SHORT_LEN))
    }

    /// The answer with `status` and an empty body.
    pub const fn answer(status: NtStatus) -> Self {
        Self { operation: Operation::COMPLETE_IO, flags: 0, status, body: [0; BODY_LEN] }
    }

    /// The body as `T`, one of the bodies of this module.
    pub fn body<T: FromBytes>(&self) -> T {
        T::read_from_prefix(&self.body).map_or_else(|_| T::new_zeroed(), |(body, _)| body)
    }

    /// The same packet with `body` in front of its body's bytes.
    #[must_use]
    pub fn with_body<T: IntoBytes + Immutable>(mut self, body: &T) -> Self {
        if let Some(start) = self.body.get_mut(..size_of::<T>()) {
            start.copy_from_slice(body.as_bytes());
        }
        self
    }
}

/// A ring packet's payload is no packet of storvsc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payload of {have} B holds no storvsc packet, which has 48 or 64 B")]
pub struct PacketError {
    /// Bytes present.
    pub have: usize,
}

/// The body of [`Operation::QUERY_PROTOCOL_VERSION`] (`struct vmstorage_protocol_version`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ProtocolVersion {
    /// Which version.
    pub version: Version,
    /// Ignored.
    pub revision: u16,
}

/// The body of the answer to [`Operation::QUERY_PROPERTIES`]
/// (`struct vmstorage_channel_properties`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Properties {
    /// Zero.
    pub protocol: u16,
    /// The bus number that old guests use.
    pub path: u8,
    /// The initiator's target number that old guests use.
    pub target: u8,
    /// Subchannels that the guest may ask for.
    pub max_channel_count: u16,
    /// Zero.
    pub port: u16,
    /// [`MULTI_CHANNEL`](Self::MULTI_CHANNEL) or 0.
    pub flags: u32,
    /// Bytes of one command's data; a multiple of the page size.
    pub max_transfer_bytes: u32,
    /// Zero.
    pub reserved: [u32; 2],
}

impl Properties {
    /// The flag that there may be subchannels.
    pub const MULTI_CHANNEL: u32 = 1;
}

/// The body of [`Operation::CREATE_SUB_CHANNELS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SubChannels {
    /// How many.
    pub count: u16,
}

const _: () = assert!(size_of::<ProtocolVersion>() == 4);
const _: () = assert!(size_of::<Properties>() == 24);

open_enum! {
    /// Which way a command's data goes (`enum storvsc_request_type`).
    pub enum Direction: u8 {
        /// From the guest.
        WRITE = 0,
        /// To the guest.
        READ = 1,
        /// Nowhere, or not said.
        NONE = 2,
    }
}

open_enum! {
    /// How a request ended on its way to the unit and back: bits 5:0 of an SRB's status.
    pub enum SrbCode: u8 {
        /// No answer yet.
        PENDING = 0x00,
        /// Done.
        SUCCESS = 0x01,
        /// Given up.
        ABORTED = 0x02,
        /// Not done; the SCSI status and the sense data say why.
        ERROR = 0x04,
        /// Makes no sense.
        INVALID_REQUEST = 0x06,
        /// The unit was too slow.
        TIMEOUT = 0x09,
        /// There is no such target.
        SELECTION_TIMEOUT = 0x0a,
        /// A reset of the bus ended it.
        BUS_RESET = 0x0e,
        /// More or less data than there was room for.
        DATA_OVERRUN = 0x12,
        /// There is no such unit; the guest removes its own.
        INVALID_LUN = 0x20,
        /// The host failed.
        INTERNAL_ERROR = 0x30,
    }
}

/// An SRB's status: a code and two flags.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SrbStatus(pub u8);

impl SrbStatus {
    /// The flag that the sense data counts.
    pub const AUTOSENSE_VALID: u8 = 0x80;
    /// The flag that the queue waits for the guest; a host never sets it.
    pub const QUEUE_FROZEN: u8 = 0x40;

    /// `code` without sense data.
    pub const fn new(code: SrbCode) -> Self {
        Self(code.0)
    }

    /// `code` with sense data.
    pub const fn with_sense(code: SrbCode) -> Self {
        Self(code.0 | Self::AUTOSENSE_VALID)
    }

    /// The code.
    pub const fn code(self) -> SrbCode {
        SrbCode(self.0 & 0x3f)
    }

    /// Whether the sense data counts.
    pub const fn has_sense(self) -> bool {
        self.0 & Self::AUTOSENSE_VALID != 0
    }
}

impl fmt::Display for SrbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code())?;
        if self.has_sense() {
            f.write_str("+sense")?;
        }
        if self.0 & Self::QUEUE_FROZEN != 0 {
            f.write_str("+frozen")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SrbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Longest command descriptor block.
pub const MAX_CDB_LEN: usize = 16;

/// Room for a command descriptor block on the way to the host and for sense data on the way back.
pub const CDB_OR_SENSE_LEN: usize = 20;

/// A SCSI request, the body of [`Operation::EXECUTE_SRB`] and of its answer
/// (`struct vmscsi_request`).
///
/// Before version 5.1 it ended with the first 18 or 20 bytes of `cdb_or_sense`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Srb {
    /// Bytes of this structure, by the guest's word; ignored.
    pub length: u16,
    /// In the answer: how it went on its way.
    pub srb_status: SrbStatus,
    /// In the answer: how the command ended.
    pub scsi_status: scsi::Status,
    /// Which adapter, by the guest's count.
    pub port: u8,
    /// Which bus.
    pub path: u8,
    /// Which target on it.
    pub target: u8,
    /// Which unit of that.
    pub lun: u8,
    /// Bytes of the command descriptor block.
    pub cdb_len: u8,
    /// Room for, or bytes of, sense data.
    pub sense_len: u8,
    /// Which way data goes.
    pub direction: Direction,
    /// Zero.
    pub reserved: u8,
    /// Bytes of data to be moved; in the answer, of data that was moved.
    pub data_transfer_length: u32,
    /// The command descriptor block; in the answer, sense data.
    pub cdb_or_sense: [u8; CDB_OR_SENSE_LEN],
    /// Zero.
    pub reserved2: u16,
    /// 0xff: none.
    pub queue_tag: u8,
    /// How the command may be ordered.
    pub queue_action: u8,
    /// Flags of Windows's SRBs.
    pub srb_flags: u32,
    /// Seconds after which the guest would give up.
    pub timeout: u32,
    /// Zero.
    pub queue_sort_key: u32,
}

const _: () = assert!(size_of::<Srb>() == BODY_LEN);

impl Srb {
    /// The command descriptor block, or `None` if its length is out of range.
    pub fn cdb(&self) -> Option<&[u8]> {
        let len = usize::from(self.cdb_len);
        self.cdb_or_sense.get(..len).filter(|_| len <= MAX_CDB_LEN)
    }
}

impl fmt::Display for Srb {
    /// As a request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{} ", self.path, self.target, self.lun)?;
        match self.cdb().map(scsi::Command::parse) {
            Some(Ok(command)) => write!(f, "{command}")?,
            Some(Err(error)) => write!(f, "({error})")?,
            None => write!(f, "(cdb of {} B)", self.cdb_len)?,
        }
        write!(f, " {} len={}", self.direction, self.data_transfer_length)
    }
}

impl fmt::Debug for Srb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        match self.operation {
            Operation::EXECUTE_SRB => write!(f, " {}", self.body::<Srb>()),
            Operation::QUERY_PROTOCOL_VERSION => {
                write!(f, " {}", self.body::<ProtocolVersion>().version)
            }
            Operation::CREATE_SUB_CHANNELS => {
                write!(f, " count={}", self.body::<SubChannels>().count)
            }
            Operation::COMPLETE_IO => write!(f, " {}", self.status),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Prints an answer, whose body can be understood only with the request's operation.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The answer.
    pub packet: &'a Packet,
    /// What was asked.
    pub to: Operation,
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.packet, self.to)?;
        match self.to {
            Operation::EXECUTE_SRB => print_srb_answer(f, &self.packet.body()),
            Operation::QUERY_PROPERTIES => {
                let properties: Properties = self.packet.body();
                write!(
                    f,
                    " channels={} flags={:#x} max-transfer={}",
                    properties.max_channel_count, properties.flags, properties.max_transfer_bytes
                )
            }
            _ => Ok(()),
        }
    }
}

fn print_srb_answer(f: &mut fmt::Formatter<'_>, srb: &Srb) -> fmt::Result {
    write!(f, " srb={} scsi={}", srb.srb_status, srb.scsi_status)?;
    write!(f, " moved={}", srb.data_transfer_length)?;
    if srb.srb_status.has_sense()
        && let Ok((sense, _)) = scsi::FixedSense::read_from_prefix(&srb.cdb_or_sense)
    {
        write!(f, " {sense}")?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "storvsc_tests.rs"]
mod tests;
