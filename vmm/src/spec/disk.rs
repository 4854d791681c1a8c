// SPDX-License-Identifier: MIT OR Apache-2.0

//! Disks: what `--disk` says, and whether such a file can be a disk.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ValueError;

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// A raw image, or a block device.
    pub file: PathBuf,
    /// The guest cannot write to it.
    #[serde(default)]
    pub readonly: bool,
    /// The serial number that the guest sees.
    #[serde(default)]
    pub serial: Option<String>,
}

/// Bytes of a sector: what a disk is made of.
const SECTOR: u64 = 512;
/// The longest serial number in bytes.
const MAX_SERIAL: usize = 64;

/// A file that cannot be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be opened.
    #[error("--disk {path}: {reason}; check the path", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// It can be read but not written.
    #[error("--disk {path}: {reason}; add ,readonly or make it writable", path = path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// It is no file and no block device.
    #[error("--disk {path} is neither a file nor a block device: give a raw image", path = path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// Its size is no whole number of sectors.
    #[error("--disk {path} has {len} bytes, which is no multiple of {SECTOR}: \
        extend it (truncate -s %512) or give a raw image", path = path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes.
        len: u64,
    },
    /// It holds nothing.
    #[error("--disk {path} is empty: give it a size (truncate -s 1G)", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Two disks would write to one file.
    #[error("--disk {path} is given twice: make both readonly or remove one", path = path.display())]
    Twice {
        /// The file.
        path: PathBuf,
    },
    /// A serial number that no guest could show.
    #[error("--disk serial={serial}: give 1 to {MAX_SERIAL} printable ASCII characters")]
    Serial {
        /// What was given.
        serial: String,
    },
}

impl FromStr for DiskSpec {
    type Err = ValueError;

    /// `FILE[,readonly][,serial=S]`. A file with a comma in its name needs a `--spec` file.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut parts = text.split(',');
        let file = parts.next().filter(|file| !file.is_empty());
        let file = file.ok_or_else(|| ValueError("give FILE[,readonly][,serial=S]".to_owned()))?;
        let mut disk = Self { file: file.into(), readonly: false, serial: None };
        for part in parts {
            match part.split_once('=') {
                None if part == "readonly" => disk.readonly = true,
                Some(("serial", serial)) => disk.serial = Some(serial.to_owned()),
                _ => {
                    return Err(ValueError(format!(
                        "{part:?} is no option of a disk: give FILE[,readonly][,serial=S]"
                    )));
                }
            }
        }
        Ok(disk)
    }
}

/// Makes sure that all `disks` can be used together. Nothing is written.
pub(super) fn check(disks: &[DiskSpec]) -> Result<(), DiskError> {
    let mut seen: HashMap<(u64, u64), bool> = HashMap::new();
    for disk in disks {
        let path = || disk.file.clone();
        if let Some(serial) = &disk.serial
            && (!(1..=MAX_SERIAL).contains(&serial.len())
                || !serial.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
        {
            return Err(DiskError::Serial { serial: serial.escape_default().to_string() });
        }
        let identity = check_one(disk)?;
        let both_readonly = seen.get(&identity).is_none_or(|readonly| *readonly && disk.readonly);
        if !both_readonly {
            return Err(DiskError::Twice { path: path() });
        }
        seen.insert(identity, disk.readonly);
    }
    Ok(())
}

/// Returns what tells the file from all others.
fn check_one(disk: &DiskSpec) -> Result<(u64, u64), DiskError> {
    let path = || disk.file.clone();
    let mut file = open(&disk.file, disk.readonly)?;
    let failed = |reason| DiskError::Open { path: path(), reason };
    let metadata = file.metadata().map_err(failed)?;
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DiskError::NoFile { path: path() });
    }
    // A block device has its size at the end only.
    let len = file.seek(SeekFrom::End(0)).map_err(failed)?;
    match len {
        0 => Err(DiskError::Empty { path: path() }),
        _ if len % SECTOR != 0 => Err(DiskError::Size { path: path(), len }),
        _ if kind.is_block_device() => Ok((0, metadata.rdev())),
        _ => Ok((metadata.dev(), metadata.ino())),
    }
}

fn open(path: &Path, readonly: bool) -> Result<File, DiskError> {
    let for_reading =
        File::open(path).map_err(|reason| DiskError::Open { path: path.to_owned(), reason })?;
    if readonly || for_reading.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(for_reading);
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|reason| DiskError::NotWritable { path: path.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_the_file() {
        let disk: DiskSpec = "a=b.img,readonly,serial=WD-1".parse().unwrap();
        let expected =
            DiskSpec { file: "a=b.img".into(), readonly: true, serial: Some("WD-1".to_owned()) };
        assert_eq!(disk, expected);
        assert!(!"a.img".parse::<DiskSpec>().unwrap().readonly);
        for wrong in ["", ",readonly", "a.img,ro", "a.img,readonly=1", "a.img,"] {
            assert!(wrong.parse::<DiskSpec>().is_err(), "{wrong:?}");
        }
    }
}
