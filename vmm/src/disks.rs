// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine's disks: opened and locked once, whatever happens to the machine.

use std::path::{Path, PathBuf};

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
    /// A disc's image cannot be opened.
    #[error("--dvd: {0}")]
    Disc(OpenError),
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
    /// Opens the images, the first as unit 0, and behind them the discs of drives, for a machine
    /// with `cpus` processors.
    pub fn open(specs: &[DiskSpec], dvds: &[PathBuf], cpus: u32) -> Result<Self, DiskError> {
        let mut disks = Vec::new();
        for (lun, spec) in (0..).zip(specs) {
            let plain = DiskOptions::default();
            let logical_block = spec.block_size.unwrap_or(plain.logical_block);
            let options = DiskOptions {
                logical_block,
                read_only: spec.readonly,
                serial: spec.serial.clone(),
                format: spec.format.map(|FormatSpec(format)| format),
                layer: match &spec.overlay {
                    Some(overlay) => Some(Layer::Overlay(overlay.clone())),
                    None => spec.temporary.then_some(Layer::Temporary),
                },
                ..plain
            };
            disks.push((lun, Disk::open(&spec.file, &options)?));
        }
        let channels = u16::try_from(cpus).unwrap_or(u16::MAX);
        let mut luns = Luns::new(disks)?;
        for (number, file) in dvds.iter().enumerate() {
            let lun = u8::try_from(specs.len() + number).unwrap_or(u8::MAX);
            luns.add_drive(lun, disc(file)?)?;
        }
        Ok(Self { luns, channels })
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

/// The disc of an ISO image.
fn disc(file: &Path) -> Result<Disk, DiskError> {
    let options = DiskOptions {
        read_only: true,
        logical_block: 2048,
        physical_block: 2048,
        ..DiskOptions::default()
    };
    Disk::open(file, &options).map_err(DiskError::Disc)
}
