// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands, parsed out of their descriptor blocks.

use std::fmt;

use zerocopy::{FromBytes, IntoBytes};

use super::{Cdb6, Cdb10, Cdb12, Cdb16, Opcode, PageCode, READ_CAPACITY_16, VpdPage};

/// A command of a guest, as far as a disk cares.
///
/// Lengths are the guest's and unchecked: `allocation` is how much data it has room for, `length`
/// how much it says that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Is the medium ready?
    TestUnitReady,
    /// The sense data that is pending.
    RequestSense {
        /// In descriptor format, not fixed.
        descriptor: bool,
        /// Bytes of room.
        allocation: u8,
    },
    /// What the device is.
    Inquiry {
        /// Bit 0 of byte 1: a page of vital product data, not the standard data.
        vital: bool,
        /// Which page; must be 0 without `vital`.
        page: VpdPage,
        /// Bytes of room.
        allocation: u16,
    },
    /// Mode pages.
    ModeSense(ModeSense),
    /// Start, stop, load or eject.
    StartStop {
        /// Start, else stop.
        start: bool,
        /// Load or eject the medium.
        load_eject: bool,
        /// A power condition instead of start and stop; 0 for none.
        power_condition: u8,
    },
    /// Lock the medium in the device, or unlock it.
    PreventRemoval {
        /// Lock, else unlock.
        prevent: bool,
    },
    /// The table of contents of a disc.
    ReadToc {
        /// Addresses as minutes, seconds and frames.
        msf: bool,
        /// 0 for the table, 1 for sessions.
        format: u8,
        /// Bytes of room.
        allocation: u16,
    },
    /// What a drive can do.
    GetConfiguration {
        /// Bytes of room.
        allocation: u16,
    },
    /// What has happened to a disc.
    GetEventStatus {
        /// Answer at once.
        polled: bool,
        /// A bit for each class of events.
        classes: u8,
        /// Bytes of room.
        allocation: u16,
    },
    /// Capacity in 32 bits.
    ReadCapacity10,
    /// Capacity in 64 bits, and what the disk can do.
    ReadCapacity16 {
        /// Bytes of room.
        allocation: u32,
    },
    /// Blocks to the guest.
    Read(Transfer),
    /// Blocks from the guest.
    Write(Transfer),
    /// Check blocks on the medium.
    Verify {
        /// Which blocks.
        transfer: Transfer,
        /// Compare with data from the guest: 0 for no.
        byte_check: u8,
    },
    /// Make what was written durable.
    SynchronizeCache {
        /// Complete at once and do it later.
        immediate: bool,
        /// First block.
        lba: u64,
        /// How many; 0 for all to the end.
        blocks: u32,
    },
    /// One block's data to many blocks.
    WriteSame(WriteSame),
    /// Give blocks up.
    Unmap {
        /// Keep the room reserved.
        anchor: bool,
        /// Bytes of the list that the guest sends.
        length: u16,
    },
    /// Which logical units there are.
    ReportLuns {
        /// Which kinds of them.
        select: u8,
        /// Bytes of room.
        allocation: u32,
    },
    /// Another command.
    Other(Opcode),
    /// Another service action of a command that has several.
    OtherAction(Opcode, u8),
}

/// MODE SENSE in either length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSense {
    /// The long header is wanted: MODE SENSE(10).
    pub long: bool,
    /// Leave block descriptors out.
    pub no_block_descriptors: bool,
    /// 0 for current values, 1 for what can be changed, 2 for defaults, 3 for saved ones.
    pub control: u8,
    /// Which page.
    pub page: PageCode,
    /// Which part of it.
    pub subpage: u8,
    /// Bytes of room.
    pub allocation: u16,
}

/// Which blocks a command reads, writes or checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Which command of its family.
    pub opcode: Opcode,
    /// First block.
    pub lba: u64,
    /// How many.
    pub blocks: u32,
    /// Not from or to a volatile cache.
    pub force_unit_access: bool,
    /// What to do with protection information; 0 for a disk that has none.
    pub protect: u8,
}

/// WRITE SAME in either length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteSame {
    /// Which of the two.
    pub opcode: Opcode,
    /// First block.
    pub lba: u64,
    /// How many.
    pub blocks: u32,
    /// The blocks may be given up if they then read as the data.
    pub unmap: bool,
    /// Keep the room reserved.
    pub anchor: bool,
    /// No data comes: zeroes are meant.
    pub no_data: bool,
    /// What to do with protection information; 0 for a disk that has none.
    pub protect: u8,
}

/// A command descriptor block is no whole command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CdbError {
    /// No bytes at all.
    #[error("the command descriptor block is empty")]
    Empty,
    /// Fewer bytes than a command of that group has.
    #[error("{opcode} needs a command descriptor block of {need} B, this one has {have}")]
    Short {
        /// Which command.
        opcode: Opcode,
        /// Bytes needed.
        need: usize,
        /// Bytes present.
        have: usize,
    },
}

impl Command {
    /// Parses the command in `cdb`, whose length is the one that the guest gave.
    pub fn parse(cdb: &[u8]) -> Result<Self, CdbError> {
        let opcode = Opcode(*cdb.first().ok_or(CdbError::Empty)?);
        Ok(match opcode.0 >> 5 {
            0 => Self::group_6(&block(opcode, cdb)?),
            1 | 2 => Self::group_10(&block(opcode, cdb)?),
            4 => Self::group_16(&block(opcode, cdb)?),
            5 => Self::group_12(&block(opcode, cdb)?),
            _ => Self::Other(opcode),
        })
    }

    fn group_6(cdb: &Cdb6) -> Self {
        let [byte2, byte3] = cdb.middle.get().to_be_bytes();
        match cdb.opcode {
            Opcode::TEST_UNIT_READY => Self::TestUnitReady,
            Opcode::REQUEST_SENSE => {
                Self::RequestSense { descriptor: cdb.flags & 1 != 0, allocation: cdb.length }
            }
            Opcode::READ_6 => Self::Read(Transfer::from_6(cdb)),
            Opcode::WRITE_6 => Self::Write(Transfer::from_6(cdb)),
            Opcode::INQUIRY => Self::Inquiry {
                vital: cdb.flags & 1 != 0,
                page: VpdPage(byte2),
                allocation: u16::from_be_bytes([byte3, cdb.length]),
            },
            Opcode::MODE_SENSE_6 => Self::ModeSense(ModeSense {
                long: false,
                no_block_descriptors: cdb.flags & 8 != 0,
                control: byte2 >> 6,
                page: PageCode(byte2 & 0x3f),
                subpage: byte3,
                allocation: cdb.length.into(),
            }),
            Opcode::START_STOP_UNIT => Self::StartStop {
                start: cdb.length & 1 != 0,
                load_eject: cdb.length & 2 != 0,
                power_condition: cdb.length >> 4,
            },
            Opcode::PREVENT_ALLOW_MEDIUM_REMOVAL => {
                Self::PreventRemoval { prevent: cdb.length & 1 != 0 }
            }
            other => Self::Other(other),
        }
    }

    fn group_10(cdb: &Cdb10) -> Self {
        let [byte2, byte3, ..] = cdb.lba.get().to_be_bytes();
        match cdb.opcode {
            Opcode::READ_CAPACITY_10 => Self::ReadCapacity10,
            Opcode::READ_10 => Self::Read(Transfer::from_10(cdb)),
            Opcode::WRITE_10 => Self::Write(Transfer::from_10(cdb)),
            Opcode::VERIFY_10 => Self::verify(Transfer::from_10(cdb), cdb.flags),
            Opcode::SYNCHRONIZE_CACHE_10 => Self::SynchronizeCache {
                immediate: cdb.flags & 2 != 0,
                lba: cdb.lba.get().into(),
                blocks: cdb.length.get().into(),
            },
            Opcode::WRITE_SAME_10 => Self::WriteSame(WriteSame::new(
                cdb.opcode,
                cdb.lba.get().into(),
                cdb.length.get().into(),
                cdb.flags & !1,
            )),
            Opcode::UNMAP => Self::Unmap { anchor: cdb.flags & 1 != 0, length: cdb.length.get() },
            Opcode::MODE_SENSE_10 => Self::ModeSense(ModeSense {
                long: true,
                no_block_descriptors: cdb.flags & 8 != 0,
                control: byte2 >> 6,
                page: PageCode(byte2 & 0x3f),
                subpage: byte3,
                allocation: cdb.length.get(),
            }),
            Opcode::READ_TOC => Self::ReadToc {
                msf: cdb.flags & 2 != 0,
                format: byte2 & 0xf,
                allocation: cdb.length.get(),
            },
            Opcode::GET_CONFIGURATION => Self::GetConfiguration { allocation: cdb.length.get() },
            Opcode::GET_EVENT_STATUS_NOTIFICATION => {
                let [_, _, classes, _] = cdb.lba.get().to_be_bytes();
                let polled = cdb.flags & 1 != 0;
                Self::GetEventStatus { polled, classes, allocation: cdb.length.get() }
            }
            other => Self::Other(other),
        }
    }

    fn group_12(cdb: &Cdb12) -> Self {
        match cdb.opcode {
            Opcode::READ_12 => Self::Read(Transfer::from_12(cdb)),
            Opcode::WRITE_12 => Self::Write(Transfer::from_12(cdb)),
            Opcode::VERIFY_12 => Self::verify(Transfer::from_12(cdb), cdb.flags),
            Opcode::REPORT_LUNS => {
                let [select, ..] = cdb.lba.get().to_be_bytes();
                Self::ReportLuns { select, allocation: cdb.length.get() }
            }
            other => Self::Other(other),
        }
    }

    fn group_16(cdb: &Cdb16) -> Self {
        match cdb.opcode {
            Opcode::READ_16 => Self::Read(Transfer::from_16(cdb)),
            Opcode::WRITE_16 => Self::Write(Transfer::from_16(cdb)),
            Opcode::VERIFY_16 => Self::verify(Transfer::from_16(cdb), cdb.flags),
            Opcode::SYNCHRONIZE_CACHE_16 => Self::SynchronizeCache {
                immediate: cdb.flags & 2 != 0,
                lba: cdb.lba.get(),
                blocks: cdb.length.get(),
            },
            Opcode::WRITE_SAME_16 => Self::WriteSame(WriteSame::new(
                cdb.opcode,
                cdb.lba.get(),
                cdb.length.get(),
                cdb.flags,
            )),
            Opcode::SERVICE_ACTION_IN_16 => match cdb.flags & 0x1f {
                READ_CAPACITY_16 => Self::ReadCapacity16 { allocation: cdb.length.get() },
                other => Self::OtherAction(cdb.opcode, other),
            },
            other => Self::Other(other),
        }
    }

    const fn verify(transfer: Transfer, flags: u8) -> Self {
        let transfer = Transfer { force_unit_access: false, ..transfer };
        Self::Verify { transfer, byte_check: flags >> 1 & 3 }
    }
}

/// The first bytes of `cdb` as a block of the size of `T`.
fn block<T: FromBytes + IntoBytes>(opcode: Opcode, cdb: &[u8]) -> Result<T, CdbError> {
    let short = CdbError::Short { opcode, need: size_of::<T>(), have: cdb.len() };
    T::read_from_prefix(cdb).map(|(block, _)| block).map_err(|_| short)
}

impl Transfer {
    fn from_6(cdb: &Cdb6) -> Self {
        let lba = u64::from(cdb.flags & 0x1f) << 16 | u64::from(cdb.middle.get());
        // A length of 0 means 256 in this form, and nothing in the others.
        let blocks = if cdb.length == 0 { 256 } else { cdb.length.into() };
        Self { opcode: cdb.opcode, lba, blocks, force_unit_access: false, protect: 0 }
    }

    fn from_10(cdb: &Cdb10) -> Self {
        Self::long(cdb.opcode, cdb.flags, cdb.lba.get().into(), cdb.length.get().into())
    }

    fn from_12(cdb: &Cdb12) -> Self {
        Self::long(cdb.opcode, cdb.flags, cdb.lba.get().into(), cdb.length.get())
    }

    fn from_16(cdb: &Cdb16) -> Self {
        Self::long(cdb.opcode, cdb.flags, cdb.lba.get(), cdb.length.get())
    }

    const fn long(opcode: Opcode, flags: u8, lba: u64, blocks: u32) -> Self {
        Self { opcode, lba, blocks, force_unit_access: flags & 8 != 0, protect: flags >> 5 }
    }
}

impl WriteSame {
    const fn new(opcode: Opcode, lba: u64, blocks: u32, flags: u8) -> Self {
        Self {
            opcode,
            lba,
            blocks,
            unmap: flags & 0x08 != 0,
            anchor: flags & 0x10 != 0,
            no_data: flags & 0x01 != 0,
            protect: flags >> 5,
        }
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lba={} blocks={}", self.opcode, self.lba, self.blocks)?;
        print_flags(f, &[(self.force_unit_access, "fua")])?;
        if self.protect != 0 {
            write!(f, " protect={}", self.protect)?;
        }
        Ok(())
    }
}

impl fmt::Display for WriteSame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lba={} blocks={}", self.opcode, self.lba, self.blocks)?;
        print_flags(
            f,
            &[(self.unmap, "unmap"), (self.anchor, "anchor"), (self.no_data, "no-data")],
        )?;
        if self.protect != 0 {
            write!(f, " protect={}", self.protect)?;
        }
        Ok(())
    }
}

impl fmt::Display for ModeSense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opcode = if self.long { Opcode::MODE_SENSE_10 } else { Opcode::MODE_SENSE_6 };
        write!(f, "{opcode} page={}", self.page)?;
        if self.subpage != 0 {
            write!(f, "/{:#x}", self.subpage)?;
        }
        if self.control != 0 {
            write!(f, " control={}", self.control)?;
        }
        write!(f, " room={}", self.allocation)?;
        print_flags(f, &[(self.no_block_descriptors, "no-block-descriptors")])
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TestUnitReady => f.write_str("TEST_UNIT_READY"),
            Self::RequestSense { descriptor, allocation } => {
                write!(f, "REQUEST_SENSE room={allocation}")?;
                print_flags(f, &[(descriptor, "descriptor")])
            }
            Self::Inquiry { vital: true, page, allocation } => {
                write!(f, "INQUIRY page={page} room={allocation}")
            }
            Self::Inquiry { allocation, .. } => write!(f, "INQUIRY room={allocation}"),
            Self::ModeSense(mode) => mode.fmt(f),
            Self::StartStop { start, load_eject, power_condition } => {
                f.write_str("START_STOP_UNIT")?;
                print_flags(f, &[(start, "start"), (!start, "stop"), (load_eject, "load-eject")])?;
                match power_condition {
                    0 => Ok(()),
                    condition => write!(f, " power-condition={condition}"),
                }
            }
            Self::PreventRemoval { prevent } => {
                write!(
                    f,
                    "PREVENT_ALLOW_MEDIUM_REMOVAL {}",
                    if prevent { "lock" } else { "unlock" }
                )
            }
            Self::ReadToc { msf, format, allocation } => {
                let msf = if msf { " msf" } else { "" };
                write!(f, "READ_TOC format {format}{msf}, room for {allocation} B")
            }
            Self::GetConfiguration { allocation } => {
                write!(f, "GET_CONFIGURATION, room for {allocation} B")
            }
            Self::GetEventStatus { polled, classes, allocation } => {
                let polled = if polled { " polled" } else { "" };
                write!(
                    f,
                    "GET_EVENT_STATUS_NOTIFICATION{polled} classes {classes:#04x}, \
                     room for {allocation} B"
                )
            }
            Self::ReadCapacity10 => f.write_str("READ_CAPACITY_10"),
            Self::ReadCapacity16 { allocation } => write!(f, "READ_CAPACITY_16 room={allocation}"),
            Self::Read(transfer) | Self::Write(transfer) => transfer.fmt(f),
            Self::Verify { transfer, byte_check } => write!(f, "{transfer} check={byte_check}"),
            Self::SynchronizeCache { immediate, lba, blocks } => {
                write!(f, "SYNCHRONIZE_CACHE lba={lba} blocks={blocks}")?;
                print_flags(f, &[(immediate, "immediate")])
            }
            Self::WriteSame(same) => same.fmt(f),
            Self::Unmap { anchor, length } => {
                write!(f, "UNMAP len={length}")?;
                print_flags(f, &[(anchor, "anchor")])
            }
            Self::ReportLuns { select, allocation } => {
                write!(f, "REPORT_LUNS select={select} room={allocation}")
            }
            Self::Other(opcode) => opcode.fmt(f),
            Self::OtherAction(opcode, action) => write!(f, "{opcode} action={action:#x}"),
        }
    }
}

fn print_flags(f: &mut fmt::Formatter<'_>, flags: &[(bool, &str)]) -> fmt::Result {
    flags.iter().filter(|(set, _)| *set).try_for_each(|(_, name)| write!(f, " {name}"))
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
