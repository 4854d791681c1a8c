// SPDX-License-Identifier: MIT OR Apache-2.0

//! A block device over an image, by the host's loop driver: a disk that counts what it is asked to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How often one is tried for.
const ATTEMPTS: u32 = 10;

/// Detached when it goes.
pub(crate) struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Or why there can be none here. Another test may take the device that was free a moment ago.
    pub(crate) fn over(image: &Path) -> Result<Self, String> {
        for _ in 0..ATTEMPTS {
            let output = Command::new("losetup").arg("-f").output();
            let output = output.map_err(|error| format!("losetup: {error}"))?;
            let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
            let attached = Command::new("losetup").arg(&path).arg(image).output();
            let attached = attached.map_err(|error| format!("losetup: {error}"))?;
            if output.status.success() && attached.status.success() {
                return Ok(Self { path });
            }
        }
        Err("no loop device can be had here, which takes root".to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How often its cache was flushed.
    ///
    /// Source: Documentation/block/stat.rst, field 16.
    pub(crate) fn flushes(&self) -> u64 {
        let name = self.path.file_name().unwrap();
        let text = fs::read_to_string(Path::new("/sys/block").join(name).join("stat")).unwrap();
        text.split_whitespace().nth(15).unwrap().parse().unwrap()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}
