// SPDX-License-Identifier: MIT OR Apache-2.0

//! A file system of the host that has too little room for what is to be on it.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Unmounted when it goes.
pub(crate) struct SmallStorage {
    place: TempDir,
}

impl SmallStorage {
    /// One of so many MiB, or why there can be none here.
    pub(crate) fn of(mib: u32) -> Result<Self, String> {
        let storage = Self { place: tempfile::tempdir().unwrap() };
        if storage.mount(&format!("size={mib}m")) {
            return Ok(storage);
        }
        Err("no file system can be mounted here, which takes root".to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    /// Gives it so many MiB from now on.
    pub(crate) fn make_room(&self, mib: u32) {
        assert!(self.mount(&format!("remount,size={mib}m")));
    }

    fn mount(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(self.path());
        mount.status().is_ok_and(|status| status.success())
    }
}

impl Drop for SmallStorage {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}
