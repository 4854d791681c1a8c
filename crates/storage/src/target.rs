// SPDX-License-Identifier: MIT OR Apache-2.0

//! The SCSI target: a command and its data in, a reply or a request to the disk out.

use busway_block::{Disk, Operation};
use busway_memory::GuestSlices;
use busway_wire::scsi::{
    AdditionalSense, Capacity10, Capacity16, Command, LunEntry, LunListHeader, Sense, SenseKey,
    Transfer, VpdPage, WriteSame, capacity16,
};
use busway_wire::storvsc::Direction;
use zerocopy::IntoBytes;

use crate::dvd::Drive;
use crate::luns::{Address, LogicalUnit, Luns};
use crate::{Reply, inquiry, mode, unmap};

/// Most bytes of one WRITE SAME, as guests are told: with a pattern each of them is written.
pub(crate) const MAX_WRITE_SAME_BYTES: u64 = 1 << 30;

/// A command on its way to a unit.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// For which unit.
    pub address: Address,
    /// The command descriptor block, of the length that the guest gave.
    pub cdb: &'a [u8],
    /// Which way the guest says that data goes.
    pub direction: Direction,
}

/// What a command needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it has ended.
    Done(Reply),
    /// Its disk.
    Io(Io),
}

/// A command's work on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// The number of the unit whose disk, or disc, it is.
    pub disk: usize,
    /// What is to be done, with the data of the command.
    pub operation: Operation,
    /// The first byte of the disk.
    pub offset: u64,
    /// Bytes of the guest's data that are moved when it is done.
    pub moved: u32,
}

/// A part of a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Executes a command on the units `luns`.
///
/// `data` is the guest's memory for the command, as much as the guest says that it wants moved: the
/// answer is written there, and what [`Step::Io`] moves goes through what is left in it. What an
/// UNMAP still has to do after the first extent is left in `more`, the last one first.
pub fn execute(
    luns: &Luns,
    request: &Request<'_>,
    data: &mut GuestSlices,
    more: &mut Vec<Extent>,
) -> Step {
    more.clear();
    let command = match Command::parse(request.cdb) {
        Ok(command) => command,
        Err(_) => return Step::Done(Reply::invalid()),
    };
    if contradicts(&command, request.direction, data) {
        return Step::Done(Reply::invalid());
    }
    let result = match (luns.find(request.address), command) {
        (_, Command::ReportLuns { select, allocation }) => {
            report_luns(luns, request.address, select).map(|list| put(data, allocation, &list))
        }
        (Some((index, LogicalUnit::Disk(disk, attention))), command) => {
            let told = if is_heard_through(&command) { None } else { attention.take() };
            match (told, &command) {
                (Some(sense), Command::RequestSense { descriptor, allocation }) => {
                    Ok(put_sense(data, sense, *descriptor, (*allocation).into()))
                }
                (Some(sense), _) => Err(sense),
                (None, command) => Unit { disk, index, data, more }.execute(command),
            }
        }
        (Some((index, LogicalUnit::Drive(disc, tray))), command) => {
            Drive { tray, disc: disc.as_ref(), index, data, more }.execute(&command)
        }
        (None, Command::Inquiry { vital, page, allocation }) => {
            Ok(put(data, allocation.into(), &inquiry::of_nothing(vital, page)))
        }
        (None, _) => Ok(Step::Done(Reply::no_unit())),
    };
    result.unwrap_or_else(|sense| Step::Done(Reply::check(sense)))
}

/// Whether the guest moves data the other way than the command does.
fn contradicts(command: &Command, direction: Direction, data: &GuestSlices) -> bool {
    let to_guest = match command {
        Command::Write(_) | Command::WriteSame(_) | Command::Unmap { .. } => false,
        Command::Read(_)
        | Command::Inquiry { .. }
        | Command::ModeSense(_)
        | Command::RequestSense { .. }
        | Command::ReadCapacity10
        | Command::ReadCapacity16 { .. }
        | Command::ReadToc { .. }
        | Command::GetConfiguration { .. }
        | Command::GetEventStatus { .. }
        | Command::ReportLuns { .. } => true,
        _ => return false,
    };
    let wrong = if to_guest { Direction::WRITE } else { Direction::READ };
    !data.is_empty() && direction == wrong
}

/// Whether a command is done even if there is something to be told first (SPC-4, section 5.14).
const fn is_heard_through(command: &Command) -> bool {
    matches!(command, Command::Inquiry { .. } | Command::ReportLuns { .. })
}

/// Gives the guest `sense` as data.
pub(crate) fn put_sense(
    data: &GuestSlices,
    sense: Sense,
    descriptor: bool,
    allocation: u32,
) -> Step {
    if descriptor {
        put(data, allocation, &sense.descriptor())
    } else {
        put(data, allocation, sense.fixed().as_bytes())
    }
}

/// Gives the guest `bytes`, as far as it has room for them.
pub(crate) fn put(data: &GuestSlices, allocation: u32, bytes: &[u8]) -> Step {
    let room = usize::try_from(allocation).unwrap_or(usize::MAX);
    let moved = data.write(bytes.get(..room).unwrap_or(bytes));
    Step::Done(Reply::good(moved as u32))
}

const fn illegal(additional: AdditionalSense) -> Sense {
    Sense::illegal(additional)
}

pub(crate) const INVALID_FIELD: Sense = illegal(AdditionalSense::INVALID_FIELD_IN_CDB);

/// REPORT LUNS works at every address: a guest that gets no list tries all numbers one by one.
fn report_luns(luns: &Luns, address: Address, select: u8) -> Result<Vec<u8>, Sense> {
    // Well-known units, which select 1 asks for alone, do not exist here.
    let numbers: Vec<u8> = match select {
        0 | 2 => luns.numbers(address).collect(),
        1 => Vec::new(),
        _ => return Err(INVALID_FIELD),
    };
    let length = (numbers.len() * size_of::<LunEntry>()) as u32;
    let mut list = LunListHeader { length: length.into(), reserved: 0.into() }.as_bytes().to_vec();
    list.extend(numbers.into_iter().flat_map(|lun| LunEntry::peripheral(lun).0));
    Ok(list)
}

/// The bytes of `blocks` blocks from `lba` on, if the disk has them.
pub(crate) fn extent(disk: &Disk, lba: u64, blocks: u32) -> Result<Extent, Sense> {
    let block = u64::from(disk.logical_block());
    let end = lba.checked_add(blocks.into()).filter(|end| *end <= disk.capacity() / block);
    match end {
        Some(_) => Ok(Extent { offset: lba * block, len: u64::from(blocks) * block }),
        None => Err(illegal(AdditionalSense::LBA_OUT_OF_RANGE)),
    }
}

/// A disk, and what a command on it works with.
pub(crate) struct Unit<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) index: usize,
    pub(crate) data: &'a mut GuestSlices,
    pub(crate) more: &'a mut Vec<Extent>,
}

impl Unit<'_> {
    pub(crate) fn execute(&mut self, command: &Command) -> Result<Step, Sense> {
        match *command {
            Command::Read(transfer) => self.transfer(&transfer, Operation::Read),
            Command::Write(transfer) => {
                self.writable()?;
                let durable = transfer.force_unit_access;
                self.transfer(&transfer, Operation::Write { durable })
            }
            Command::SynchronizeCache { lba, blocks, .. } => {
                extent(self.disk, lba, blocks)?;
                Ok(self.io(Operation::Flush, 0, 0))
            }
            Command::Unmap { anchor, length } => self.unmap(anchor, length.into()),
            Command::WriteSame(same) => self.write_same(&same),
            Command::Verify { transfer, byte_check } => self.verify(&transfer, byte_check),
            Command::TestUnitReady | Command::PreventRemoval { .. } => {
                Ok(Step::Done(Reply::good(0)))
            }
            Command::StartStop { start, load_eject, power_condition } => {
                self.start_stop(start || power_condition != 0, load_eject)
            }
            Command::Inquiry { vital, page, allocation } => {
                self.inquiry(vital, page, allocation.into())
            }
            Command::ModeSense(mode) => {
                let pages = mode::of_disk(self.disk, &mode)?;
                Ok(put(self.data, mode.allocation.into(), &pages))
            }
            Command::ReadCapacity10 => Ok(put(self.data, u32::MAX, self.capacity_10().as_bytes())),
            Command::ReadCapacity16 { allocation } => {
                Ok(put(self.data, allocation, self.capacity_16().as_bytes()))
            }
            Command::RequestSense { descriptor, allocation } => {
                // It goes out with the command that it belongs to, so none is ever pending.
                Ok(put_sense(self.data, Sense::NONE, descriptor, allocation.into()))
            }
            Command::ReportLuns { .. }
            | Command::ReadToc { .. }
            | Command::GetConfiguration { .. }
            | Command::GetEventStatus { .. }
            | Command::Other(_) => Err(illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE)),
            Command::OtherAction(..) => Err(INVALID_FIELD),
        }
    }

    const fn io(&self, operation: Operation, offset: u64, moved: u32) -> Step {
        Step::Io(Io { disk: self.index, operation, offset, moved })
    }

    fn writable(&self) -> Result<(), Sense> {
        if self.disk.is_read_only() {
            return Err(Sense::new(SenseKey::DATA_PROTECT, AdditionalSense::WRITE_PROTECTED));
        }
        Ok(())
    }

    fn transfer(&mut self, transfer: &Transfer, operation: Operation) -> Result<Step, Sense> {
        if transfer.protect != 0 {
            return Err(INVALID_FIELD);
        }
        let Extent { offset, len } = extent(self.disk, transfer.lba, transfer.blocks)?;
        if len > self.data.len() as u64 {
            return Err(INVALID_FIELD);
        }
        if len == 0 {
            return Ok(Step::Done(Reply::good(0)));
        }
        self.data.truncate(len as usize);
        Ok(self.io(operation, offset, len as u32))
    }

    fn verify(&self, transfer: &Transfer, byte_check: u8) -> Result<Step, Sense> {
        if transfer.protect != 0 || byte_check != 0 {
            return Err(INVALID_FIELD);
        }
        extent(self.disk, transfer.lba, transfer.blocks)?;
        Ok(Step::Done(Reply::good(0)))
    }

    fn unmap(&mut self, anchor: bool, length: usize) -> Result<Step, Sense> {
        self.writable()?;
        if !self.disk.can_discard() {
            return Err(illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE));
        }
        if anchor {
            return Err(INVALID_FIELD);
        }
        unmap::read_list(self.disk, length, self.data, self.more)?;
        self.data.truncate(0);
        let moved = length as u32;
        Ok(match self.more.pop() {
            Some(Extent { offset, len }) => self.io(Operation::Discard { len }, offset, moved),
            None => Step::Done(Reply::good(moved)),
        })
    }

    fn write_same(&mut self, same: &WriteSame) -> Result<Step, Sense> {
        self.writable()?;
        let block = self.disk.logical_block();
        let refused = same.anchor
            || same.protect != 0
            || same.blocks == 0
            || same.unmap && !self.disk.can_discard();
        let Extent { offset, len } = extent(self.disk, same.lba, same.blocks)?;
        if refused || len > MAX_WRITE_SAME_BYTES {
            return Err(INVALID_FIELD);
        }
        if same.no_data {
            self.data.truncate(0);
        } else if self.data.len() < block as usize {
            return Err(INVALID_FIELD);
        }
        self.data.truncate(block as usize);
        let moved = self.data.len() as u32;
        let operation = if same.unmap && is_zero(self.data) {
            Operation::Discard { len }
        } else if same.no_data {
            Operation::WriteZeroes { len }
        } else {
            return Ok(self.io(Operation::WriteSame { len }, offset, moved));
        };
        self.data.truncate(0);
        Ok(self.io(operation, offset, moved))
    }

    /// A disk that is stopped keeps what it has; one that is not removable is never ejected.
    fn start_stop(&self, goes_on: bool, load_eject: bool) -> Result<Step, Sense> {
        if load_eject {
            return Err(INVALID_FIELD);
        }
        Ok(if goes_on { Step::Done(Reply::good(0)) } else { self.io(Operation::Flush, 0, 0) })
    }

    fn inquiry(&self, vital: bool, page: VpdPage, allocation: u32) -> Result<Step, Sense> {
        let bytes = inquiry::of_disk(self.disk, vital, page)?;
        Ok(put(self.data, allocation, &bytes))
    }

    pub(crate) fn last_lba(&self) -> u64 {
        (self.disk.capacity() / u64::from(self.disk.logical_block())).saturating_sub(1)
    }

    fn capacity_10(&self) -> Capacity10 {
        let last_lba = u32::try_from(self.last_lba()).unwrap_or(u32::MAX);
        Capacity10 { last_lba: last_lba.into(), block_len: self.disk.logical_block().into() }
    }

    fn capacity_16(&self) -> Capacity16 {
        let block = self.disk.logical_block();
        let flags = if self.disk.can_discard() {
            capacity16::PROVISIONING | capacity16::READS_ZEROES
        } else {
            0
        };
        Capacity16 {
            last_lba: self.last_lba().into(),
            block_len: block.into(),
            protection: 0,
            physical_exponent: (self.disk.physical_block() / block).trailing_zeros() as u8,
            flags,
            lowest_aligned: 0,
            reserved: [0; 16],
        }
    }
}

/// Whether `data`, at most one block, is all zeroes.
fn is_zero(data: &GuestSlices) -> bool {
    let mut block = vec![0; data.len()];
    data.read_at(0, &mut block);
    block.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
