// SPDX-License-Identifier: MIT OR Apache-2.0

//! Disks: what `--disk` says.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
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

/// Two disks of a description contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskSpecError {
    /// Two disks would write to one file.
    #[error("--disk {path} is given twice: make both readonly or remove one", path = path.display())]
    Twice {
        /// The file.
        path: PathBuf,
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

/// Makes sure that all `disks` can be used together. Whether each can be used at all is found out
/// when it is opened.
pub(super) fn check(disks: &[DiskSpec]) -> Result<(), DiskSpecError> {
    let mut seen: HashMap<(u64, u64), bool> = HashMap::new();
    for disk in disks {
        let Ok(metadata) = fs::metadata(&disk.file) else {
            continue;
        };
        let identity = match metadata.file_type().is_block_device() {
            true => (0, metadata.rdev()),
            false => (metadata.dev(), metadata.ino()),
        };
        let both_readonly = seen.get(&identity).is_none_or(|readonly| *readonly && disk.readonly);
        if !both_readonly {
            return Err(DiskSpecError::Twice { path: disk.file.clone() });
        }
        seen.insert(identity, disk.readonly);
    }
    Ok(())
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
