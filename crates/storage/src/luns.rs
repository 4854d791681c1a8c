// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which disks a controller has, and where.

use std::sync::Arc;

use busway_block::Disk;

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

/// A controller's disks by unit number; there may be gaps, also at 0.
#[derive(Clone, Debug)]
pub struct Luns {
    disks: Vec<Disk>,
    /// The index in `disks` of each unit.
    places: Box<[Option<usize>; 256]>,
    /// The index in `disks` of each that is a disc in a drive, and the drive's tray.
    trays: Vec<(usize, Arc<Tray>)>,
}

impl Luns {
    /// The units `disks`, in any order.
    pub fn new(disks: impl IntoIterator<Item = (u8, Disk)>) -> Result<Self, LunError> {
        let places = Box::new([None; 256]);
        let mut luns = Self { disks: Vec::new(), places, trays: Vec::new() };
        for (lun, disk) in disks {
            luns.add(lun, disk)?;
        }
        Ok(luns)
    }

    fn add(&mut self, lun: u8, disk: Disk) -> Result<usize, LunError> {
        if lun == u8::MAX {
            return Err(LunError::OutOfRange { lun });
        }
        let index = self.disks.len();
        match self.places.get_mut(usize::from(lun)) {
            Some(place @ None) => *place = Some(index),
            _ => return Err(LunError::Taken { lun }),
        }
        self.disks.push(disk);
        Ok(index)
    }

    /// Adds a drive with `disc` in it, a disk that is read-only and has blocks of 2048 bytes.
    pub fn add_drive(&mut self, lun: u8, disc: Disk) -> Result<(), LunError> {
        let index = self.add(lun, disc)?;
        self.trays.push((index, Arc::default()));
        Ok(())
    }

    /// The tray of the drive whose disc is disk `index`; `None` if that is no disc.
    pub(crate) fn tray(&self, index: usize) -> Option<&Tray> {
        let tray = self.trays.iter().find(|(disc, _)| *disc == index);
        tray.map(|(_, tray)| &**tray)
    }

    /// All disks; what [`find`](Self::find) returns is an index here.
    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// The disk at `address`, with its index.
    pub fn find(&self, address: Address) -> Option<(usize, &Disk)> {
        if !Self::has_units(address) {
            return None;
        }
        let index = (*self.places.get(usize::from(address.lun))?)?;
        Some((index, self.disks.get(index)?))
    }

    /// The unit numbers at the bus and target of `address`, in order.
    pub fn numbers(&self, address: Address) -> impl Iterator<Item = u8> {
        let places = self.places.iter().filter(move |_| Self::has_units(address));
        (0..=u8::MAX).zip(places).filter_map(|(lun, place)| place.map(|_| lun))
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
        assert_eq!((index, found.capacity()), (1, 16 * 512));
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
