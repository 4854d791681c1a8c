// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine's disks: opened and locked once, whatever happens to the machine.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use busway_block::{Disk, DiskOptions, Layer, OpenError, RateLimit};
use busway_storage::{LunError, Luns, PlugError, Stops, StorageController, UnitState, Units};
use busway_wire::Guid;
use busway_wire::storvsc::Version;
use log::error;

use crate::bus::{News, Port, VmBus};
use crate::lock;
use crate::spec::{
    BusSpec, DiskSpec, DiskSpecError, FormatSpec, MAX_CONTROLLERS, MAX_UNITS, WwnSpec,
};

/// The first controller. Guests know a controller again by its instance.
const FIRST: u128 = 0x7363_7369_0000_4000_8000_6275_7377_6179;
/// What distinguishes one from the next: their order is that of their numbers.
const STEP: u128 = 1 << 80;

/// The first IDE disk; what Linux takes the target from, behind the first field, is 0.
const FIRST_IDE: u128 = 0x6964_6500_0000_4000_8000_6275_7377_6179;
/// What distinguishes one from the next.
const STEP_IDE: u128 = 1 << 96;

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
    /// There is nothing by which they could stop the machine.
    #[error("the host has no eventfd")]
    Stops(#[source] io::Error),
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
    /// It would come or go where nothing does.
    #[error("IDE disks neither come nor go while the machine runs: use a disk without bus=ide")]
    Ide,
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

/// Where a unit is. Its text is what a user calls it: `3`, or `1:3` on another controller than the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The controller, from 0. Each IDE disk is one of its own, behind the SCSI controllers, as its unit 0.
    pub controller: u8,
    /// The unit's number there.
    pub lun: u8,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { controller: 0, lun } => lun.fmt(f),
            Self { controller, lun } => write!(f, "{controller}:{lun}"),
        }
    }
}

/// Open images, on controllers. Clones are the same; dropping the last gives up the images' locks.
#[derive(Clone)]
pub struct Disks {
    controllers: Vec<Controller>,
    stops: Arc<Stops>,
}

#[derive(Clone)]
struct Controller {
    device: StorageController,
    /// The bus of the machine, as long as nothing needs the controller on it.
    without: Arc<Mutex<Option<Arc<Port>>>>,
}

impl Disks {
    /// Opens the images, and behind those of the first controller the discs of drives, for a machine
    /// with `cpus` processors. Versions of storvsc up to `newest` are spoken.
    pub fn open(
        specs: &[DiskSpec],
        dvds: &[PathBuf],
        cpus: u32,
        newest: Version,
    ) -> Result<Self, DiskError> {
        let channels = u16::try_from(cpus).unwrap_or(u16::MAX);
        let stops = Arc::new(Stops::new().map_err(DiskError::Stops)?);
        let device = |device: StorageController| {
            device.with_newest_version(newest).with_stops(Arc::clone(&stops))
        };
        let open = |number| {
            let of_this = |spec: &&DiskSpec| spec.is_on(number);
            let specs: Vec<_> = specs.iter().filter(of_this).collect();
            let dvds = if number == 0 { dvds } else { &[] };
            let instance = Guid::from_text_order(FIRST + STEP * u128::from(number));
            let device = device(StorageController::new(instance, units(&specs, dvds)?));
            Ok(Controller { device: device.with_channels(channels), without: Arc::default() })
        };
        let open_ide = |(number, spec): (u8, &DiskSpec)| {
            let instance = Guid::from_text_order(FIRST_IDE + STEP_IDE * u128::from(number));
            let device = device(StorageController::ide(instance, Luns::new([(0, image(spec)?)])?));
            Ok(Controller { device, without: Arc::default() })
        };
        let ide = (0..).zip(specs.iter().filter(|spec| spec.bus == BusSpec::Ide)).map(open_ide);
        let controllers = (0..MAX_CONTROLLERS).map(open).chain(ide);
        let controllers = controllers.collect::<Result<_, DiskError>>()?;
        Ok(Self { controllers, stops })
    }

    /// Puts the controllers on the bus, each at once or when it has a unit.
    pub fn attach(&self, bus: &mut VmBus) {
        for Controller { device, without } in &self.controllers {
            let mut without = lock(without);
            if device.units().list().is_empty() {
                *without = Some(Arc::clone(bus.port()));
            } else {
                *without = None;
                bus.add(Box::new(device.clone()));
            }
        }
    }

    /// Makes all that was written durable: the machine has ended.
    pub fn flush(&self) {
        for (name, error) in self.all_units().flat_map(|units| units.flush()) {
            error!("'{name}' may have lost what was written last: {error}");
        }
    }

    /// Where they say that the machine is to stand still.
    pub const fn stops(&self) -> &Arc<Stops> {
        &self.stops
    }

    /// Has all requests done again that wait for the user. What fails once more may stop the machine
    /// once more.
    pub fn resume(&self) {
        self.stops.go_on();
        self.all_units().for_each(|units| units.resume());
    }

    fn all_units(&self) -> impl Iterator<Item = Units> {
        self.controllers.iter().map(|controller| controller.device.units())
    }

    /// All units, in order.
    pub fn list(&self) -> Vec<(Place, UnitState)> {
        let of = |(controller, units): (u8, Units)| {
            let units = units.list().into_iter();
            units.map(move |unit| (Place { controller, lun: unit.lun }, unit))
        };
        (0..).zip(self.all_units()).flat_map(of).collect()
    }

    /// The units of a controller that [`find`](Self::find) has found.
    fn controller(&self, number: u8) -> Result<&Controller, UnitError> {
        let controller = self.controllers.get(usize::from(number));
        controller.ok_or_else(|| self.unknown("controller", &number.to_string()))
    }

    fn units(&self, place: Place) -> Result<Units, UnitError> {
        Ok(self.controller(place.controller)?.device.units())
    }

    /// Adds a disk to the machine that runs, and says as which unit.
    pub fn add(&self, spec: &DiskSpec) -> Result<Place, UnitError> {
        spec.check()?;
        if spec.bus == BusSpec::Ide {
            return Err(UnitError::Ide);
        }
        let controller = self.controller(spec.controller)?;
        let (units, disk) = (controller.device.units(), image(spec)?);
        let lun = match spec.lun {
            Some(lun) => units.add_at(lun, disk).map(|()| lun)?,
            None => units.add(disk)?,
        };
        if let Some(port) = lock(&controller.without).take() {
            port.send(News::Add(Box::new(controller.device.clone())));
        }
        Ok(Place { controller: spec.controller, lun })
    }

    /// Takes a unit away.
    pub fn remove(&self, place: Place) -> Result<(), UnitError> {
        if place.controller >= MAX_CONTROLLERS {
            return Err(UnitError::Ide);
        }
        Ok(self.units(place)?.remove(place.lun)?)
    }

    /// Makes a disk longer, or takes its image's length as it has become.
    pub fn resize(&self, place: Place, bytes: Option<u64>) -> Result<(), UnitError> {
        self.units(place)?.resize(place.lun, bytes)?;
        Ok(())
    }

    /// How much may be asked of a disk in a second, from now on.
    pub fn set_rate_limit(&self, place: Place, limit: RateLimit) -> Result<(), UnitError> {
        Ok(self.units(place)?.set_rate_limit(place.lun, limit)?)
    }

    /// Takes the disc out of a drive, with `force` even if the guest has locked it in.
    pub fn eject(&self, place: Place, force: bool) -> Result<(), UnitError> {
        Ok(self.units(place)?.eject(place.lun, force)?)
    }

    /// Puts the disc of an ISO image into a drive.
    pub fn insert(&self, place: Place, file: &Path) -> Result<(), UnitError> {
        Ok(self.units(place)?.insert(place.lun, disc(file)?)?)
    }

    /// The unit that a user calls `name`: its place, its serial number, or its file as it was given.
    pub fn find(&self, name: &str) -> Result<Place, UnitError> {
        let is_meant = |place: Place, unit: &UnitState| {
            let file = unit.medium.as_ref().map(Disk::name);
            name == place.to_string() || name == unit.serial || Some(name) == file
        };
        self.only("unit", name, is_meant)
    }

    /// The drive of that name, or the only one.
    pub fn find_drive(&self, name: Option<&str>) -> Result<Place, UnitError> {
        match name {
            Some(name) => self.find(name),
            None => self.only("drive of discs by itself", "", |_, unit| unit.is_drive),
        }
    }

    fn only(
        &self,
        kind: &'static str,
        name: &str,
        is_meant: impl Fn(Place, &UnitState) -> bool,
    ) -> Result<Place, UnitError> {
        let units = self.list();
        let found = units.iter().filter(|(place, unit)| is_meant(*place, unit));
        let found: Vec<_> = found.map(|(place, _)| *place).collect();
        // A number is a number, even if it is somebody's serial number.
        let by_number = found.iter().find(|place| place.to_string() == name);
        match (found.as_slice(), by_number) {
            (_, Some(place)) | ([place], None) => Ok(*place),
            _ => Err(self.unknown(kind, name)),
        }
    }

    fn unknown(&self, kind: &'static str, name: &str) -> UnitError {
        let text = |(place, unit): &(Place, UnitState)| format!("{place} ({})", unit.serial);
        let units: Vec<_> = self.list().iter().map(text).collect();
        let units = if units.is_empty() { "it some first".into() } else { units.join(" or ") };
        UnitError::Unknown { kind, name: name.to_owned(), units }
    }
}

/// The units of one controller: disks where they want to be or at the first free place, and the drives
/// behind them.
fn units(specs: &[&DiskSpec], dvds: &[PathBuf]) -> Result<Luns, DiskError> {
    let mut taken: HashSet<_> = specs.iter().filter_map(|spec| spec.lun).collect();
    let mut free_from = |first: u8| {
        let mut places = (first..MAX_UNITS).chain(0..first);
        // One that is taken is refused where it is put.
        let lun = places.find(|lun| !taken.contains(lun)).unwrap_or(first);
        taken.insert(lun);
        lun
    };
    let mut disks = Vec::new();
    for spec in specs {
        disks.push((spec.lun.unwrap_or_else(|| free_from(0)), image(spec)?));
    }
    let behind = disks.iter().map(|(lun, _)| lun.saturating_add(1)).max().unwrap_or(0);
    let mut luns = Luns::new(disks)?;
    for file in dvds {
        luns.add_drive(free_from(behind), disc(file).map_err(DiskError::Disc)?)?;
    }
    Ok(luns)
}

/// The disk of a description.
fn image(spec: &DiskSpec) -> Result<Disk, OpenError> {
    let plain = DiskOptions::default();
    let logical_block = spec.block_size.unwrap_or(plain.logical_block);
    let options = DiskOptions {
        logical_block,
        read_only: spec.readonly,
        serial: spec.serial.clone(),
        wwn: spec.wwn.map(|WwnSpec(wwn)| wwn),
        format: spec.format.map(|FormatSpec(format)| format),
        layer: match &spec.overlay {
            Some(overlay) => Some(Layer::Overlay(overlay.clone())),
            None => spec.temporary.then_some(Layer::Temporary),
        },
        rate: spec.rate(),
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
    use busway_vmbus::Device;

    use super::*;

    fn empty(path: &Path) -> DiskSpec {
        std::fs::File::create(path).unwrap().set_len(1 << 20).unwrap();
        path.display().to_string().parse().unwrap()
    }

    fn open(specs: &[DiskSpec], dvds: &[PathBuf]) -> Disks {
        Disks::open(specs, dvds, 1, Version::V6_2).unwrap()
    }

    const fn at(controller: u8, lun: u8) -> Place {
        Place { controller, lun }
    }

    #[test]
    fn units_have_names_and_a_number_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let serial =
            |spec: DiskSpec, serial: &str| DiskSpec { serial: Some(serial.into()), ..spec };
        let specs = [serial(empty(&path("a")), "1"), serial(empty(&path("b")), "beta")];
        let disks = open(&specs, &[]);
        assert_eq!(disks.find("1").unwrap(), at(0, 1), "not the one that calls itself so");
        assert_eq!(disks.find("beta").unwrap(), at(0, 1));
        assert_eq!(disks.find(path("a").to_str().unwrap()).unwrap(), at(0, 0));
        let error = disks.find("gamma").unwrap_err().to_string();
        assert_eq!(error, "the machine has no unit 'gamma': give 0 (1) or 1 (beta)");
        assert!(disks.find_drive(None).is_err());
    }

    #[test]
    fn places_are_the_first_that_are_free_and_drives_come_behind() {
        let directory = tempfile::tempdir().unwrap();
        let disk = |name: &str, controller, lun| DiskSpec {
            controller,
            lun,
            ..empty(&directory.path().join(name))
        };
        let disc = directory.path().join("disc");
        empty(&disc);
        let specs = [
            disk("a", 0, None),
            disk("b", 2, None),
            disk("c", 0, Some(1)),
            disk("d", 0, None),
            disk("e", 2, Some(254)),
            disk("f", 2, None),
        ];
        let disks = open(&specs, &[disc]);
        let places: Vec<_> = disks.list().into_iter().map(|(place, _)| place).collect();
        let drive = at(0, 3);
        assert_eq!(places, [at(0, 0), at(0, 1), at(0, 2), drive, at(2, 0), at(2, 1), at(2, 254)]);
        assert_eq!(disks.find_drive(None).unwrap(), drive);
        assert_eq!(disks.find("2:254").unwrap(), at(2, 254));
        assert_eq!(disks.add(&disk("g", 3, Some(7))).unwrap(), at(3, 7));
        assert_eq!(disks.add(&disk("h", 2, None)).unwrap(), at(2, 2));
        assert!(matches!(disks.add(&disk("i", 3, Some(7))), Err(UnitError::Plug(_))));
        assert!(matches!(disks.add(&disk("j", 4, None)), Err(UnitError::Spec(_))));
        disks.remove(at(2, 1)).unwrap();
        assert!(disks.find("2:1").is_err());
    }

    #[test]
    fn a_guest_knows_the_controllers_again() {
        let instance = |disks: &Disks, number: usize| {
            disks.controllers[number].device.offer().instance.to_string()
        };
        let disks = open(&[], &[]);
        assert_eq!(instance(&disks, 0), "73637369-0000-4000-8000-627573776179");
        assert_eq!(instance(&disks, 3), "73637369-0003-4000-8000-627573776179");
    }

    #[test]
    fn ide_disks_are_devices_of_their_own_and_stay() {
        let directory = tempfile::tempdir().unwrap();
        let disk = |name: &str, bus| DiskSpec { bus, ..empty(&directory.path().join(name)) };
        let specs = [disk("a", BusSpec::Ide), disk("b", BusSpec::Scsi), disk("c", BusSpec::Ide)];
        let disks = open(&specs, &[]);
        let places: Vec<_> = disks.list().into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, [at(0, 0), at(4, 0), at(5, 0)]);
        let offers = [4, 5].map(|number: usize| disks.controllers[number].device.offer());
        for offer in &offers {
            assert_eq!(offer.interface_type.to_string(), "32412632-86cb-44a2-9b5c-50d1417354f5");
            assert_eq!(offer.instance.0[4..6], [0; 2], "the target");
        }
        assert_ne!(offers[0].instance, offers[1].instance);
        assert!(matches!(disks.remove(at(4, 0)), Err(UnitError::Ide)));
        assert!(matches!(disks.add(&disk("d", BusSpec::Ide)), Err(UnitError::Ide)));
        disks.remove(at(0, 0)).unwrap();
    }

    #[test]
    fn an_image_is_locked_as_long_as_it_is_a_unit() {
        let directory = tempfile::tempdir().unwrap();
        let spec = empty(&directory.path().join("disk"));
        let disks = open(&[], &[]);
        assert_eq!(disks.add(&spec).unwrap(), at(0, 0));
        assert!(matches!(disks.add(&spec), Err(UnitError::Open(OpenError::InUse { .. }))));
        disks.remove(at(0, 0)).unwrap();
        assert_eq!(disks.add(&spec).unwrap(), at(0, 1), "numbers are not used again soon");
        let both = DiskSpec { temporary: true, readonly: true, ..spec };
        assert!(matches!(disks.add(&both), Err(UnitError::Spec(_))));
    }
}
