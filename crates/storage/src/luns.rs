// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which units a controller has, and where.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use busway_block::Disk;
use busway_wire::scsi::{AdditionalSense, Sense, SenseKey};

use crate::dvd::Tray;

/// Where a guest looks for a unit: bus, target and unit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The bus; units are on bus 0.
    pub path: u8,
    /// The target on it; units are on target 0.
    pub target: u8,
    /// The unit.
    pub lun: u8,
}

/// The disks cannot be put on a controller like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LunError {
    /// Two disks at one place.
    #[error("two disks want to be unit {lun} of one controller")]
    Taken {
        /// The place.
        lun: u8,
    },
    /// Guests look for units 0 to 254 (Linux `drivers/scsi/storvsc_drv.c`,
    /// `STORVSC_MAX_LUNS_PER_TARGET`).
    #[error("no guest looks for unit {lun}: use 0 to 254")]
    OutOfRange {
        /// The place.
        lun: u8,
    },
}

/// What a disk has to tell its guest before it does anything else.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    capacity_changed: AtomicBool,
}

impl Attention {
    pub(crate) fn capacity_changed(&self) {
        self.capacity_changed.store(true, Ordering::Release);
    }

    /// What is to be told; once.
    pub(crate) fn take(&self) -> Option<Sense> {
        let changed = self.capacity_changed.load(Ordering::Relaxed)
            && self.capacity_changed.swap(false, Ordering::AcqRel);
        changed.then_some(Sense::new(
            SenseKey::UNIT_ATTENTION,
            AdditionalSense::CAPACITY_DATA_HAS_CHANGED,
        ))
    }
}

/// A unit of a controller. Clones are the same unit.
#[derive(Clone, Debug)]
pub(crate) enum LogicalUnit {
    Disk(Disk, Arc<Attention>),
    /// A drive, and the disc in it.
    Drive(Option<Disk>, Arc<Tray>),
}

impl LogicalUnit {
    pub(crate) fn disk(disk: Disk) -> Self {
        Self::Disk(disk, Arc::default())
    }

    /// What requests on the unit go to.
    pub(crate) const fn medium(&self) -> Option<&Disk> {
        match self {
            Self::Disk(disk, _) => Some(disk),
            Self::Drive(disc, _) => disc.as_ref(),
        }
    }
}

/// Numbers that units may have.
pub(crate) const PLACES: usize = 255;

/// A controller's units by their number; there may be gaps, also at 0.
#[derive(Clone, Debug)]
pub struct Luns {
    units: Box<[Option<LogicalUnit>]>,
}

impl Luns {
    /// No units.
    pub(crate) fn empty() -> Self {
        Self { units: vec![None; PLACES].into() }
    }

    /// The disks `disks`, in any order.
    pub fn new(disks: impl IntoIterator<Item = (u8, Disk)>) -> Result<Self, LunError> {
        let mut luns = Self::empty();
        for (lun, disk) in disks {
            luns.add(lun, LogicalUnit::disk(disk))?;
        }
        Ok(luns)
    }

    pub(crate) fn add(&mut self, lun: u8, unit: LogicalUnit) -> Result<(), LunError> {
        match self.units.get_mut(usize::from(lun)) {
            Some(place @ None) => *place = Some(unit),
            Some(_) => return Err(LunError::Taken { lun }),
            None => return Err(LunError::OutOfRange { lun }),
        }
        Ok(())
    }

    /// Adds a drive with `disc` in it, a disk that is read-only and has blocks of 2048 bytes.
    pub fn add_drive(&mut self, lun: u8, disc: Disk) -> Result<(), LunError> {
        let tray = Arc::new(Tray::new(disc.identity().clone()));
        self.add(lun, LogicalUnit::Drive(Some(disc), tray))
    }

    /// Replaces the unit at `lun`, or takes it away.
    pub(crate) fn set(&mut self, lun: u8, unit: Option<LogicalUnit>) {
        if let Some(place) = self.units.get_mut(usize::from(lun)) {
            *place = unit;
        }
    }

    /// The unit `lun`.
    pub(crate) fn get(&self, lun: u8) -> Option<&LogicalUnit> {
        self.units.get(usize::from(lun))?.as_ref()
    }

    /// All units with their numbers, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, &LogicalUnit)> {
        (0..=u8::MAX).zip(&self.units).filter_map(|(lun, unit)| Some((lun, unit.as_ref()?)))
    }

    /// All disks, and the discs that are in their drives, in the order of their units.
    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.iter().filter_map(|(_, unit)| unit.medium())
    }

    /// What requests on the unit `index` go to.
    pub(crate) fn medium(&self, index: usize) -> Option<&Disk> {
        self.units.get(index)?.as_ref()?.medium()
    }

    /// The unit at `address`, with its number.
    pub(crate) fn find(&self, address: Address) -> Option<(usize, &LogicalUnit)> {
        if !Self::has_units(address) {
            return None;
        }
        Some((usize::from(address.lun), self.get(address.lun)?))
    }

    /// The unit numbers at the bus and target of `address`, in order.
    pub fn numbers(&self, address: Address) -> impl Iterator<Item = u8> {
        self.iter().map(|(lun, _)| lun).filter(move |_| Self::has_units(address))
    }

    const fn has_units(address: Address) -> bool {
        address.path == 0 && address.target == 0
    }
}

#[cfg(test)]
mod tests {
    use busway_block::DiskOptions;

    use super::*;

    fn disk(blocks: u64) -> Disk {
        Disk::ram(blocks * 512, &DiskOptions::default()).unwrap()
    }

    fn at(lun: u8) -> Address {
        Address { path: 0, target: 0, lun }
    }

    #[test]
    fn units_may_be_sparse() {
        let luns = Luns::new([(7, disk(8)), (254, disk(16)), (3, disk(24))]).unwrap();
        assert_eq!(luns.numbers(at(0)).collect::<Vec<_>>(), [3, 7, 254]);
        assert!(luns.find(at(0)).is_none() && luns.find(at(255)).is_none());
        let (index, found) = luns.find(at(254)).unwrap();
        assert_eq!((index, found.medium().unwrap().capacity()), (254, 16 * 512));
    }

    #[test]
    fn other_buses_and_targets_are_empty() {
        let luns = Luns::new([(0, disk(8))]).unwrap();
        for (path, target) in [(1, 0), (0, 1), (7, 1)] {
            let address = Address { path, target, lun: 0 };
            assert!(luns.find(address).is_none());
            assert_eq!(luns.numbers(address).count(), 0);
        }
    }

    #[test]
    fn two_disks_cannot_share_a_place() {
        let error = Luns::new([(1, disk(8)), (1, disk(8))]).unwrap_err();
        assert_eq!(error, LunError::Taken { lun: 1 });
        let error = Luns::new([(255, disk(8))]).unwrap_err();
        assert_eq!(error, LunError::OutOfRange { lun: 255 });
    }

    #[test]
    fn there_is_room_for_255() {
        let shared = disk(8);
        let luns = Luns::new((0..255).map(|lun| (lun, shared.clone()))).unwrap();
        assert_eq!(luns.numbers(at(0)).count(), 255);
    }
}
