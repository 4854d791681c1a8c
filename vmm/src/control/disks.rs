// SPDX-License-Identifier: MIT OR Apache-2.0

//! What requests about disks and discs do.

use busway_block::Disk;
use busway_storage::UnitState;

use super::one_line;
use super::protocol::{DiskState, DiskTask, DvdTask, Reply};
use crate::disks::{Disks, UnitError};

/// Does what is to be done with a disk.
pub(super) fn disk(disks: &Disks, task: DiskTask) -> Result<Reply, String> {
    let done = match task {
        DiskTask::List => Ok(list(disks, None)),
        DiskTask::Add { disk } => disks.add(&disk).map(|lun| list(disks, Some(lun))),
        DiskTask::Remove { unit } => remove(disks, &unit),
        DiskTask::Resume => {
            disks.units().resume();
            Ok(Reply::Nothing)
        }
        DiskTask::Resize { unit, size } => resize(disks, &unit, size.map(|size| size.0)),
    };
    done.map_err(|error| one_line(&error))
}

/// Does what is to be done with a drive's disc.
pub(super) fn dvd(disks: &Disks, task: DvdTask) -> Result<Reply, String> {
    let done = match task {
        DvdTask::Eject { unit, force } => eject(disks, unit.as_deref(), force),
        DvdTask::Insert { file, unit } => disks
            .find_drive(unit.as_deref())
            .and_then(|lun| disks.insert(lun, &file).map(|()| list(disks, Some(lun)))),
    };
    done.map_err(|error| one_line(&error))
}

fn remove(disks: &Disks, unit: &str) -> Result<Reply, UnitError> {
    disks.units().remove(disks.find(unit)?)?;
    Ok(Reply::Nothing)
}

fn resize(disks: &Disks, unit: &str, bytes: Option<u64>) -> Result<Reply, UnitError> {
    let lun = disks.find(unit)?;
    disks.units().resize(lun, bytes)?;
    Ok(list(disks, Some(lun)))
}

fn eject(disks: &Disks, unit: Option<&str>, force: bool) -> Result<Reply, UnitError> {
    disks.units().eject(disks.find_drive(unit)?, force)?;
    Ok(Reply::Nothing)
}

/// All units, or one.
fn list(disks: &Disks, only: Option<u8>) -> Reply {
    let units = disks.units().list();
    let units = units.into_iter().filter(|unit| only.is_none_or(|lun| lun == unit.lun));
    let state = |unit: UnitState| DiskState {
        unit: unit.lun,
        drive: unit.is_drive,
        serial: unit.serial,
        waiting: unit.waiting,
        bytes: unit.medium.as_ref().map_or(0, Disk::capacity),
        file: unit.medium.as_ref().map(|medium| medium.name().to_owned()),
    };
    Reply::Disks { disks: units.map(state).collect() }
}
