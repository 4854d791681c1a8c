// SPDX-License-Identifier: MIT OR Apache-2.0

//! Disks: what `--disk` says.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::str::FromStr;

use busway_block::{Format, OnError, RateLimit, UnknownFormat, UnknownWwn, Wwn};
use serde::{Deserialize, Serialize};

use super::{Size, ValueError};

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// An image, or a block device.
    pub file: PathBuf,
    /// The guest cannot write to it.
    #[serde(default)]
    pub readonly: bool,
    /// The serial number that the guest sees.
    #[serde(default)]
    pub serial: Option<String>,
    /// The world-wide name that the guest sees.
    #[serde(default)]
    pub wwn: Option<WwnSpec>,
    /// The image's format; without it, what its first bytes say.
    #[serde(default)]
    pub format: Option<FormatSpec>,
    /// A qcow2 file that writes go to; it is made if it is not there.
    #[serde(default)]
    pub overlay: Option<PathBuf>,
    /// What is written is gone when the machine ends.
    #[serde(default)]
    pub temporary: bool,
    /// Bytes of a logical block: 512 or 4096.
    #[serde(default)]
    pub block_size: Option<u32>,
    /// How it is attached.
    #[serde(default)]
    pub bus: BusSpec,
    /// The controller that it is on, from 0.
    #[serde(default)]
    pub controller: u8,
    /// Its number there; without one, the first that no disk has.
    #[serde(default)]
    pub lun: Option<u8>,
    /// Most requests a second.
    #[serde(default)]
    pub iops: Option<NonZeroU64>,
    /// Most bytes a second, read and written.
    #[serde(default)]
    pub bps: Option<Size>,
    /// What becomes of reads that the host cannot do.
    #[serde(default)]
    pub rerror: OnErrorSpec,
    /// What becomes of writes that the host cannot do.
    #[serde(default)]
    pub werror: OnErrorSpec,
}

/// Controllers that a machine may have: as many as Hyper-V gives one.
pub const MAX_CONTROLLERS: u8 = 4;
/// Units of a controller: guests look for no more (`drivers/scsi/storvsc_drv.c`).
pub const MAX_UNITS: u8 = 255;

/// IDE disks of a machine: as many as two controllers with two disks each, the most that Hyper-V has.
pub const MAX_IDE_DISKS: usize = 4;

/// How a disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BusSpec {
    /// As a unit of a SCSI controller.
    #[default]
    Scsi,
    /// As an IDE disk, which has a device on VMBus for itself.
    Ide,
}

/// What becomes of requests that the host cannot do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnErrorSpec {
    /// The guest is told.
    #[default]
    Report,
    /// The machine is paused if the host has no room; else the guest is told.
    Enospc,
    /// The machine is paused, and `resume` has them done again.
    Stop,
    /// They wait for `disk resume`, and the machine runs on.
    Wait,
}

impl From<OnErrorSpec> for OnError {
    fn from(spec: OnErrorSpec) -> Self {
        match spec {
            OnErrorSpec::Report => Self::Report,
            OnErrorSpec::Enospc => Self::NoSpace,
            OnErrorSpec::Stop => Self::Stop,
            OnErrorSpec::Wait => Self::Wait,
        }
    }
}

fn on_error(text: &str) -> Result<OnErrorSpec, ValueError> {
    match text {
        "report" => Ok(OnErrorSpec::Report),
        "enospc" => Ok(OnErrorSpec::Enospc),
        "stop" => Ok(OnErrorSpec::Stop),
        "wait" => Ok(OnErrorSpec::Wait),
        _ => Err(ValueError(format!("{text:?} is no policy: give report, enospc, stop or wait"))),
    }
}

/// A number below `end`.
fn place(text: &str, end: u8) -> Result<u8, ValueError> {
    let number = text.parse().ok().filter(|number| *number < end);
    number.ok_or_else(|| ValueError(format!("{text:?} is no place: give 0 to {}", end - 1)))
}

/// The format of an image, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FormatSpec(pub Format);

impl TryFrom<String> for FormatSpec {
    type Error = UnknownFormat;

    fn try_from(text: String) -> Result<Self, UnknownFormat> {
        text.parse().map(Self)
    }
}

impl From<FormatSpec> for String {
    fn from(FormatSpec(format): FormatSpec) -> Self {
        format.to_string()
    }
}

/// A world-wide name in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WwnSpec(pub Wwn);

impl TryFrom<String> for WwnSpec {
    type Error = UnknownWwn;

    fn try_from(text: String) -> Result<Self, UnknownWwn> {
        text.parse().map(Self)
    }
}

impl From<WwnSpec> for String {
    fn from(WwnSpec(wwn): WwnSpec) -> Self {
        wwn.to_string()
    }
}

/// Two disks of a description contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskSpecError {
    /// Two disks would write to one file.
    #[error("--disk {path} is given twice: make both readonly or remove one", path = path.display())]
    Twice {
        /// The file.
        path: PathBuf,
    },
    /// There is more than one place for what is written, or none.
    #[error(
        "--disk {path}: give one of readonly, overlay=FILE and temporary",
        path = path.display()
    )]
    Layers {
        /// The file.
        path: PathBuf,
    },
    /// Two disks at one place.
    #[error(
        "--disk {path}: unit {lun} of controller {controller} is another disk: give another lun=",
        path = path.display()
    )]
    Place {
        /// The file of the second.
        path: PathBuf,
        /// The controller.
        controller: u8,
        /// The unit.
        lun: u8,
    },
    /// Nothing would ever be read.
    #[error("--disk {path}: bps=0 lets nothing through: give 1K or more", path = path.display())]
    NoBytes {
        /// The file.
        path: PathBuf,
    },
    /// An IDE disk at a place.
    #[error("--disk {path}: an IDE disk is on no controller: remove controller= and lun=", path = path.display())]
    IdePlace {
        /// The file.
        path: PathBuf,
    },
    /// One more than there may be.
    #[error("--disk {path}: a machine has at most {MAX_IDE_DISKS} IDE disks: remove bus=ide", path = path.display())]
    TooManyIde {
        /// The file.
        path: PathBuf,
    },
    /// No such place.
    #[error(
        "--disk {path}: there is no unit {lun} of controller {controller}: \
         give controller=0 to 3 and lun=0 to 254",
        path = path.display()
    )]
    NoPlace {
        /// The file.
        path: PathBuf,
        /// The controller.
        controller: u8,
        /// The unit.
        lun: u8,
    },
}

/// What a disk's words may be.
const WORDS: &str = "FILE[,readonly][,serial=S][,wwn=HEX][,format=F][,overlay=FILE|,temporary]\
    [,block-size=512|4096][,bus=scsi|ide][,controller=0..3][,lun=0..254][,iops=N][,bps=SIZE]\
    [,werror=report|enospc|stop|wait][,rerror=report|enospc|stop|wait]";

impl FromStr for DiskSpec {
    type Err = ValueError;

    /// `FILE` and words as the error says. A file with a comma in its name needs a `--spec` file.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut parts = text.split(',');
        let file = parts.next().filter(|file| !file.is_empty());
        let file = file.ok_or_else(|| ValueError(format!("give {WORDS}")))?;
        let mut disk = Self {
            file: file.into(),
            readonly: false,
            serial: None,
            wwn: None,
            format: None,
            overlay: None,
            temporary: false,
            block_size: None,
            bus: BusSpec::Scsi,
            controller: 0,
            lun: None,
            iops: None,
            bps: None,
            rerror: OnErrorSpec::Report,
            werror: OnErrorSpec::Report,
        };
        for part in parts {
            match part.split_once('=') {
                None if part == "readonly" => disk.readonly = true,
                Some(("serial", serial)) => disk.serial = Some(serial.to_owned()),
                None if part == "temporary" => disk.temporary = true,
                Some(("wwn", name)) => {
                    disk.wwn = Some(WwnSpec(
                        name.parse().map_err(|error: UnknownWwn| ValueError(error.to_string()))?,
                    ));
                }
                Some(("overlay", file)) if !file.is_empty() => disk.overlay = Some(file.into()),
                Some(("block-size", "512")) => disk.block_size = Some(512),
                Some(("block-size", "4096")) => disk.block_size = Some(4096),
                Some(("bus", "scsi")) => disk.bus = BusSpec::Scsi,
                Some(("bus", "ide")) => disk.bus = BusSpec::Ide,
                Some(("controller", number)) => disk.controller = place(number, MAX_CONTROLLERS)?,
                Some(("lun", number)) => disk.lun = Some(place(number, MAX_UNITS)?),
                Some(("iops", number)) => {
                    disk.iops = Some(number.parse().map_err(|_| {
                        ValueError(format!("iops={number}: give requests a second, from 1 on"))
                    })?);
                }
                Some(("bps", size)) => {
                    let error = || ValueError(format!("bps={size}: give bytes a second, like 10M"));
                    disk.bps = Some(size.parse().map_err(|_| error())?);
                }
                Some(("werror", policy)) => disk.werror = on_error(policy)?,
                Some(("rerror", policy)) => disk.rerror = on_error(policy)?,
                Some(("format", format)) => {
                    let format = format.parse::<Format>();
                    disk.format =
                        Some(FormatSpec(format.map_err(|it| ValueError(it.to_string()))?));
                }
                _ => {
                    return Err(ValueError(format!(
                        "{part:?} is no option of a disk: give {WORDS}"
                    )));
                }
            }
        }
        Ok(disk)
    }
}

impl DiskSpec {
    /// Whether it is a unit of this SCSI controller.
    pub fn is_on(&self, controller: u8) -> bool {
        self.bus == BusSpec::Scsi && self.controller == controller
    }

    /// Whether its requests, or the whole machine, wait for the user when the host fails.
    pub fn waits_for_the_user(&self) -> bool {
        [self.rerror, self.werror].iter().any(|policy| *policy != OnErrorSpec::Report)
    }

    /// How much may be asked of it in a second.
    pub fn rate(&self) -> RateLimit {
        RateLimit {
            requests: self.iops,
            bytes: self.bps.and_then(|Size(bytes)| NonZeroU64::new(bytes)),
        }
    }

    /// Makes sure that it does not contradict itself.
    pub fn check(&self) -> Result<(), DiskSpecError> {
        check(std::slice::from_ref(self))
    }
}

/// Makes sure that all `disks` can be used together. Whether each can be used at all is found out
/// when it is opened.
pub(super) fn check(disks: &[DiskSpec]) -> Result<(), DiskSpecError> {
    check_places(disks)?;
    let mut seen: HashMap<(u64, u64), bool> = HashMap::new();
    for disk in disks {
        if disk.bps == Some(Size(0)) {
            return Err(DiskSpecError::NoBytes { path: disk.file.clone() });
        }
        let places = [disk.readonly, disk.overlay.is_some(), disk.temporary];
        if places.iter().filter(|is_it| **is_it).count() > 1 {
            return Err(DiskSpecError::Layers { path: disk.file.clone() });
        }
        let Ok(metadata) = fs::metadata(&disk.file) else {
            continue;
        };
        let identity = match metadata.file_type().is_block_device() {
            true => (0, metadata.rdev()),
            false => (metadata.dev(), metadata.ino()),
        };
        let only_read = places.contains(&true);
        let both_readonly = seen.get(&identity).is_none_or(|readonly| *readonly && only_read);
        if !both_readonly {
            return Err(DiskSpecError::Twice { path: disk.file.clone() });
        }
        seen.insert(identity, only_read);
    }
    Ok(())
}

/// Makes sure that each has a place of its own.
fn check_places(disks: &[DiskSpec]) -> Result<(), DiskSpecError> {
    let mut taken = HashSet::new();
    let ide = || disks.iter().filter(|disk| disk.bus == BusSpec::Ide);
    if let Some(disk) = ide().find(|disk| disk.controller != 0 || disk.lun.is_some()) {
        return Err(DiskSpecError::IdePlace { path: disk.file.clone() });
    }
    if let Some(disk) = ide().nth(MAX_IDE_DISKS) {
        return Err(DiskSpecError::TooManyIde { path: disk.file.clone() });
    }
    for DiskSpec { file, controller, lun, .. } in disks {
        let (path, controller, lun) = (file.clone(), *controller, lun.unwrap_or(0));
        if controller >= MAX_CONTROLLERS || !(0..MAX_UNITS).contains(&lun) {
            return Err(DiskSpecError::NoPlace { path, controller, lun });
        }
    }
    let placed = disks.iter().filter_map(|disk| Some((disk, disk.lun?)));
    for (DiskSpec { file, controller, .. }, lun) in placed {
        if !taken.insert((controller, lun)) {
            let (path, controller) = (file.clone(), *controller);
            return Err(DiskSpecError::Place { path, controller, lun });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_the_file() {
        let disk: DiskSpec = "a=b.img,readonly,serial=WD-1".parse().unwrap();
        assert_eq!((disk.file.to_str(), disk.serial.as_deref()), (Some("a=b.img"), Some("WD-1")));
        let named: DiskSpec = "a,wwn=0x5000c50015ea71ac".parse().unwrap();
        let text = serde_json::to_string(&named).unwrap();
        assert!(text.contains("\"wwn\":\"0x5000c50015ea71ac\""), "{text}");
        assert_eq!(serde_json::from_str::<DiskSpec>(&text).unwrap(), named);
        assert!(disk.readonly && !disk.temporary && disk.overlay.is_none());
        let disk: DiskSpec = "a.img,format=vhdx,overlay=b".parse().unwrap();
        assert_eq!((disk.format, disk.overlay), (Some(FormatSpec(Format::Vhdx)), Some("b".into())));
        assert_eq!("a,block-size=4096".parse::<DiskSpec>().unwrap().block_size, Some(4096));
        let disk: DiskSpec = "a,werror=stop,rerror=enospc".parse().unwrap();
        assert_eq!((disk.werror, disk.rerror), (OnErrorSpec::Stop, OnErrorSpec::Enospc));
        let disk: DiskSpec = "a,werror=wait".parse().unwrap();
        let text = serde_json::to_string(&disk).unwrap();
        assert!(text.contains("\"rerror\":\"report\",\"werror\":\"wait\""), "{text}");
        assert_eq!(serde_json::from_str::<DiskSpec>(&text).unwrap(), disk);
        let disk: DiskSpec = "a,iops=500,bps=10M".parse().unwrap();
        let rate = disk.rate();
        assert_eq!((rate.requests, rate.bytes), (NonZeroU64::new(500), NonZeroU64::new(10 << 20)));
        assert_eq!("a".parse::<DiskSpec>().unwrap().rate(), RateLimit::default());
        assert!("a.img,temporary".parse::<DiskSpec>().unwrap().temporary);
        assert!(!"a.img".parse::<DiskSpec>().unwrap().readonly);
        for wrong in [
            "",
            ",readonly",
            "a.img,ro",
            "a.img,readonly=1",
            "a.img,",
            "a,format=iso",
            "a,overlay=",
            "a,block-size=1024",
            "a,werror=ignore",
            "a,rerror=",
            "a,controller=4",
            "a,controller=-1",
            "a,lun=255",
            "a,iops=0",
            "a,iops=-5",
            "a,bps=fast",
            "a,lun=",
            "a,wwn=5000",
        ] {
            assert!(wrong.parse::<DiskSpec>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn each_disk_has_a_place_of_its_own() {
        let disk = |text: &str| text.parse::<DiskSpec>().unwrap();
        let last = disk("a,controller=3,lun=254");
        assert_eq!((last.controller, last.lun), (3, Some(254)));
        assert_eq!((disk("a").controller, disk("a").lun), (0, None));
        let apart = [disk("a,lun=7"), disk("b"), disk("c"), disk("d,controller=1,lun=7"), last];
        assert_eq!(check(&apart), Ok(()));
        let place = DiskSpecError::Place { path: "b".into(), controller: 1, lun: 7 };
        assert_eq!(
            check(&[disk("a,controller=1,lun=7"), disk("b,lun=7,controller=1")]),
            Err(place)
        );
        // As a --spec file has it.
        let beyond = DiskSpec { controller: 4, ..disk("a") };
        let no_place = DiskSpecError::NoPlace { path: "a".into(), controller: 4, lun: 0 };
        assert_eq!(check(&[beyond]), Err(no_place));
    }

    #[test]
    fn a_limit_lets_something_through() {
        let nothing: DiskSpec = "a,bps=0K".parse().unwrap();
        assert_eq!(check(&[nothing]), Err(DiskSpecError::NoBytes { path: "a".into() }));
        assert!(serde_json::from_str::<DiskSpec>(r#"{"file":"a","iops":0}"#).is_err());
    }

    #[test]
    fn four_disks_are_ide_disks_and_have_no_other_place() {
        let disk = |text: &str| text.parse::<DiskSpec>().unwrap();
        let ide = disk("a,bus=ide");
        assert!(!ide.is_on(0) && disk("a,bus=scsi").is_on(0) && disk("a").is_on(0));
        assert_eq!(serde_json::to_value(&ide).unwrap()["bus"], "ide");
        assert!("a,bus=sata".parse::<DiskSpec>().is_err());
        let files = ["a", "b", "c", "d", "e"].map(|file| disk(&format!("{file},bus=ide")));
        assert_eq!(check(&files[..4]), Ok(()));
        assert_eq!(check(&files), Err(DiskSpecError::TooManyIde { path: "e".into() }));
        for wrong in ["a,bus=ide,lun=0", "a,bus=ide,controller=1"] {
            let error = DiskSpecError::IdePlace { path: "a".into() };
            assert_eq!(disk(wrong).check(), Err(error), "{wrong}");
        }
    }

    #[test]
    fn writes_go_to_one_place() {
        let disk = |text: &str| text.parse::<DiskSpec>().unwrap();
        assert!(check(&[disk("a,temporary"), disk("a,overlay=b"), disk("a,readonly")]).is_ok());
        for both in ["a,temporary,overlay=b", "a,readonly,temporary", "a,readonly,overlay=b"] {
            let path = PathBuf::from("a");
            assert_eq!(check(&[disk(both)]), Err(DiskSpecError::Layers { path }), "{both}");
        }
    }

    #[test]
    fn a_format_is_its_name_in_a_file_too() {
        let text = r#"{"file":"a","format":"qcow2"}"#;
        let disk: DiskSpec = serde_json::from_str(text).unwrap();
        assert_eq!(disk.format, Some(FormatSpec(Format::Qcow2)));
        assert!(serde_json::to_string(&disk).unwrap().contains(r#""format":"qcow2""#));
        assert!(serde_json::from_str::<DiskSpec>(r#"{"file":"a","format":"iso"}"#).is_err());
    }
}
