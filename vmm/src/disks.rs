// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine's disks: opened and locked once, whatever happens to the machine.

use busway_block::{Disk, DiskOptions, Layer, OpenError};
use busway_storage::{LunError, Luns, StorageController};
use busway_wire::Guid;
use log::error;

use crate::spec::{DiskSpec, FormatSpec};

/// The controller that all disks are on. Guests know a controller again by this.
const CONTROLLER: Guid = Guid::from_text_order(0x7363_7369_0000_4000_8000_6275_7377_6179);

/// A disk of the description cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Its image cannot be opened.
    #[error("--disk: {0}")]
    Open(#[from] OpenError),
    /// Its place on the controller cannot be.
    #[error("--disk: {0}")]
    Place(#[from] LunError),
}

/// Open images. Dropping it gives up their locks.
#[derive(Debug)]
pub struct Disks {
    luns: Luns,
    channels: u16,
}

impl Disks {
    /// Opens the images, the first as unit 0, for a machine with `cpus` processors.
    pub fn open(specs: &[DiskSpec], cpus: u32) -> Result<Self, DiskError> {
        let mut disks = Vec::new();
        for (lun, spec) in (0..).zip(specs) {
            let options = DiskOptions {
                read_only: spec.readonly,
                serial: spec.serial.clone(),
                format: spec.format.map(|FormatSpec(format)| format),
                layer: match &spec.overlay {
                    Some(overlay) => Some(Layer::Overlay(overlay.clone())),
                    None => spec.temporary.then_some(Layer::Temporary),
                },
                ..DiskOptions::default()
            };
            disks.push((lun, Disk::open(&spec.file, &options)?));
        }
        let channels = u16::try_from(cpus).unwrap_or(u16::MAX);
        Ok(Self { luns: Luns::new(disks)?, channels })
    }

    /// A controller with the disks; `None` if there are none.
    pub fn controller(&self) -> Option<StorageController> {
        let has_disks = !self.luns.disks().is_empty();
        has_disks.then(|| {
            StorageController::new(CONTROLLER, self.luns.clone()).with_channels(self.channels)
        })
    }

    /// Makes all that was written durable: the machine has ended.
    pub fn flush(&self) {
        for disk in self.luns.disks().iter().filter(|disk| !disk.is_read_only()) {
            if let Err(error) = disk.flush() {
                error!("'{}' may have lost what was written last: {error}", disk.name());
            }
        }
    }
}
