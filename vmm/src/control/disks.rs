// SPDX-License-Identifier: MIT OR Apache-2.0

//! What requests about disks and discs do.

use std::num::NonZeroU64;

use busway_block::{Disk, RateLimit};
use busway_storage::UnitState;

use super::one_line;
use super::protocol::{DiskState, DiskTask, DvdTask, Reply};
use crate::disks::{Disks, Place, UnitError};
use crate::spec::Size;

/// Does what is to be done with a disk.
pub(super) fn disk(disks: &Disks, task: DiskTask) -> Result<Reply, String> {
    let done = match task {
        DiskTask::List => Ok(list(disks, None)),
        DiskTask::Add { disk } => disks.add(&disk).map(|place| list(disks, Some(place))),
        DiskTask::Remove { unit } => remove(disks, &unit),
        DiskTask::Resume => {
            disks.resume();
            Ok(Reply::Nothing)
        }
        DiskTask::Resize { unit, size } => resize(disks, &unit, size.map(|size| size.0)),
        DiskTask::Rate { unit, iops, bps } => {
            let bytes = bps.map(|Size(bytes)| NonZeroU64::new(bytes).ok_or(NOTHING)).transpose()?;
            rate(disks, &unit, RateLimit { requests: iops, bytes })
        }
    };
    done.map_err(|error| one_line(&error))
}

/// Does what is to be done with a drive's disc.
pub(super) fn dvd(disks: &Disks, task: DvdTask) -> Result<Reply, String> {
    let done = match task {
        DvdTask::Eject { unit, force } => eject(disks, unit.as_deref(), force),
        DvdTask::Insert { file, unit } => disks
            .find_drive(unit.as_deref())
            .and_then(|place| disks.insert(place, &file).map(|()| list(disks, Some(place)))),
    };
    done.map_err(|error| one_line(&error))
}

fn remove(disks: &Disks, unit: &str) -> Result<Reply, UnitError> {
    disks.remove(disks.find(unit)?)?;
    Ok(Reply::Nothing)
}

fn resize(disks: &Disks, unit: &str, bytes: Option<u64>) -> Result<Reply, UnitError> {
    let place = disks.find(unit)?;
    disks.resize(place, bytes)?;
    Ok(list(disks, Some(place)))
}

const NOTHING: &str = "bps 0 lets nothing through: give 1K or more, or none for no limit";

fn rate(disks: &Disks, unit: &str, limit: RateLimit) -> Result<Reply, UnitError> {
    let place = disks.find(unit)?;
    disks.set_rate_limit(place, limit)?;
    Ok(list(disks, Some(place)))
}

fn eject(disks: &Disks, unit: Option<&str>, force: bool) -> Result<Reply, UnitError> {
    disks.eject(disks.find_drive(unit)?, force)?;
    Ok(Reply::Nothing)
}

/// All units, or one.
fn list(disks: &Disks, only: Option<Place>) -> Reply {
    let units = disks.list().into_iter();
    let units = units.filter(|(place, _)| only.is_none_or(|only| only == *place));
    let limit = |unit: &UnitState| unit.medium.as_ref().map(Disk::rate_limit).unwrap_or_default();
    let state = |(place, unit): (Place, UnitState)| DiskState {
        controller: place.controller,
        unit: place.lun,
        drive: unit.is_drive,
        iops: limit(&unit).requests,
        bps: limit(&unit).bytes,
        serial: unit.serial,
        waiting: unit.waiting,
        delayed: unit.medium.as_ref().map_or(0, Disk::delayed),
        bytes: unit.medium.as_ref().map_or(0, Disk::capacity),
        file: unit.medium.as_ref().map(|medium| medium.name().to_owned()),
    };
    Reply::Disks { disks: units.map(state).collect() }
}
