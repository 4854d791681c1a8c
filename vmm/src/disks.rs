// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine's disks: opened and locked once, whatever happens to the machine.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use busway_block::{Disk, DiskOptions, Layer, OpenError};
use busway_storage::{LunError, Luns, PlugError, StorageController, UnitState, Units};
use busway_wire::Guid;
use busway_wire::storvsc::Version;
use log::error;

use crate::bus::{News, Port, VmBus};
use crate::lock;
use crate::spec::{DiskSpec, DiskSpecError, FormatSpec};

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

/// A unit cannot be changed as a user wants.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// What it is to be makes no sense.
    #[error(transparent)]
    Spec(#[from] DiskSpecError),
    /// Its image cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The controller does not do it.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// There is none of that name.
    #[error("the machine has no {kind} '{name}': give {units}")]
    Unknown {
        /// What is looked for.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What there is.
        units: String,
    },
}

/// Open images, on a controller. Clones are the same; dropping the last gives up the images' locks.
#[derive(Clone)]
pub struct Disks {
    controller: StorageController,
    /// The bus of the machine, as long as nothing needs the controller on it.
    without: Arc<Mutex<Option<Arc<Port>>>>,
}

impl Disks {
    /// Opens the images, the first as unit 0, and behind them the discs of drives, for a machine
    /// with `cpus` processors.
    pub fn open(specs: &[DiskSpec], dvds: &[PathBuf], cpus: u32) -> Result<Self, DiskError> {
        let disks = (0..).zip(specs).map(|(lun, spec)| Ok((lun, image(spec)?)));
        let mut luns = Luns::new(disks.collect::<Result<Vec<_>, OpenError>>()?)?;
        for (number, file) in dvds.iter().enumerate() {
            let lun = u8::try_from(specs.len() + number).unwrap_or(u8::MAX);
            luns.add_drive(lun, disc(file).map_err(DiskError::Disc)?)?;
        }
        let channels = u16::try_from(cpus).unwrap_or(u16::MAX);
        let controller = StorageController::new(CONTROLLER, luns).with_channels(channels);
        Ok(Self { controller, without: Arc::default() })
    }

    /// The same, speaking versions of storvsc up to `newest`.
    #[must_use]
    pub fn speaking(self, newest: Version) -> Self {
        Self { controller: self.controller.with_newest_version(newest), ..self }
    }

    /// Puts the controller on the bus, at once or when it has a unit.
    pub fn attach(&self, bus: &mut VmBus) {
        let mut without = lock(&self.without);
        if self.units().list().is_empty() {
            *without = Some(Arc::clone(bus.port()));
        } else {
            *without = None;
            bus.add(Box::new(self.controller.clone()));
        }
    }

    /// Makes all that was written durable: the machine has ended.
    pub fn flush(&self) {
        for (name, error) in self.units().flush() {
            error!("'{name}' may have lost what was written last: {error}");
        }
    }

    /// The controller's units.
    pub fn units(&self) -> Units {
        self.controller.units()
    }

    /// Adds a disk to the machine that runs, and says as which unit.
    pub fn add(&self, spec: &DiskSpec) -> Result<u8, UnitError> {
        spec.check()?;
        let lun = self.units().add(image(spec)?)?;
        if let Some(port) = lock(&self.without).take() {
            port.send(News::Add(Box::new(self.controller.clone())));
        }
        Ok(lun)
    }

    /// Puts the disc of an ISO image into a drive.
    pub fn insert(&self, lun: u8, file: &Path) -> Result<(), UnitError> {
        Ok(self.units().insert(lun, disc(file)?)?)
    }

    /// The unit that a user calls `name`: its number, its serial number, or its file as it was given.
    pub fn find(&self, name: &str) -> Result<u8, UnitError> {
        let is_meant = |unit: &UnitState| {
            let file = unit.medium.as_ref().map(Disk::name);
            name == unit.lun.to_string() || name == unit.serial || Some(name) == file
        };
        self.only("unit", name, is_meant)
    }

    /// The drive of that name, or the only one.
    pub fn find_drive(&self, name: Option<&str>) -> Result<u8, UnitError> {
        match name {
            Some(name) => self.find(name),
            None => self.only("drive of discs by itself", "", |unit| unit.is_drive),
        }
    }

    fn only(
        &self,
        kind: &'static str,
        name: &str,
        is_meant: impl Fn(&UnitState) -> bool,
    ) -> Result<u8, UnitError> {
        let units = self.units().list();
        let found: Vec<_> = units.iter().filter(|unit| is_meant(unit)).collect();
        // A number is a number, even if it is somebody's serial number.
        let by_number = found.iter().find(|unit| unit.lun.to_string() == name);
        match (found.as_slice(), by_number) {
            (_, Some(unit)) | ([unit], None) => Ok(unit.lun),
            _ => {
                let text = |unit: &UnitState| format!("{} ({})", unit.lun, unit.serial);
                let units: Vec<_> = units.iter().map(text).collect();
                let units =
                    if units.is_empty() { "it some first".into() } else { units.join(" or ") };
                Err(UnitError::Unknown { kind, name: name.to_owned(), units })
            }
        }
    }
}

/// The disk of a description.
fn image(spec: &DiskSpec) -> Result<Disk, OpenError> {
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
        on_read_error: spec.rerror.into(),
        on_write_error: spec.werror.into(),
        ..plain
    };
    Disk::open(&spec.file, &options)
}

/// The disc of an ISO image.
fn disc(file: &Path) -> Result<Disk, OpenError> {
    let options = DiskOptions {
        read_only: true,
        logical_block: 2048,
        physical_block: 2048,
        ..DiskOptions::default()
    };
    Disk::open(file, &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty(path: &Path) -> DiskSpec {
        std::fs::File::create(path).unwrap().set_len(1 << 20).unwrap();
        path.display().to_string().parse().unwrap()
    }

    #[test]
    fn units_have_names_and_a_number_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let serial =
            |spec: DiskSpec, serial: &str| DiskSpec { serial: Some(serial.into()), ..spec };
        let specs = [serial(empty(&path("a")), "1"), serial(empty(&path("b")), "beta")];
        let disks = Disks::open(&specs, &[], 1).unwrap();
        assert_eq!(disks.find("1").unwrap(), 1, "not the one that calls itself so");
        assert_eq!(disks.find("beta").unwrap(), 1);
        assert_eq!(disks.find(path("a").to_str().unwrap()).unwrap(), 0);
        let error = disks.find("gamma").unwrap_err().to_string();
        assert_eq!(error, "the machine has no unit 'gamma': give 0 (1) or 1 (beta)");
        assert!(disks.find_drive(None).is_err());
    }

    #[test]
    fn an_image_is_locked_as_long_as_it_is_a_unit() {
        let directory = tempfile::tempdir().unwrap();
        let spec = empty(&directory.path().join("disk"));
        let disks = Disks::open(&[], &[], 1).unwrap();
        assert_eq!(disks.add(&spec).unwrap(), 0);
        assert!(matches!(disks.add(&spec), Err(UnitError::Open(OpenError::InUse { .. }))));
        disks.units().remove(0).unwrap();
        assert_eq!(disks.add(&spec).unwrap(), 1, "numbers are not used again soon");
        let both = DiskSpec { temporary: true, readonly: true, ..spec };
        assert!(matches!(disks.add(&both), Err(UnitError::Spec(_))));
    }
}
