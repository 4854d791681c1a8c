// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernels that the tests run on, and who implements Hyper-V under them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use busway_harness::Report;

use crate::case::{Outcome, Skip};

const IMAGES: &str = "images";

/// Values of busway's `--hyperv`.
const ENGINES: [&str; 2] = ["kvm", "userspace"];

/// A stock kernel and its base initramfs, on one of the engines.
pub(crate) struct Kernel {
    /// Its name in guest-images/manifest.toml.
    pub(crate) name: String,
    /// Major and minor of its release.
    pub(crate) version: (u32, u32),
    /// Who implements Hyper-V, as busway calls it.
    pub(crate) engine: &'static str,
    directory: PathBuf,
    /// One boot that many tests look at; or why there is none.
    pub(crate) survey: OnceLock<Result<Report, String>>,
}

impl Kernel {
    /// Those that were brought along, on every engine. Without any, one that cannot boot, so that tests can
    /// be listed.
    pub(crate) fn all() -> Vec<Self> {
        let entries = fs::read_dir(IMAGES).into_iter().flatten().flatten();
        let mut directories: Vec<_> = entries.map(|entry| entry.path()).collect();
        if directories.is_empty() {
            directories.push(Path::new(IMAGES).join("bookworm-cloud"));
        }
        directories.sort();
        let on_each = |directory: PathBuf| ENGINES.map(|engine| Self::open(&directory, engine));
        directories.into_iter().flat_map(on_each).collect()
    }

    fn open(directory: &Path, engine: &'static str) -> Self {
        let release = fs::read_to_string(directory.join("release")).unwrap_or_default();
        let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, version, engine, directory: directory.to_owned(), survey: OnceLock::new() }
    }

    pub(crate) fn vmlinuz(&self) -> PathBuf {
        self.file("vmlinuz")
    }

    pub(crate) fn initrd(&self) -> PathBuf {
        self.file("initrd.cpio")
    }

    /// The archive of a program of guest-images/manifest.toml; none if the kernel's suite has no such.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let path = self.directory.join("programs").join(format!("{name}.cpio"));
        path.exists().then_some(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        assert!(path.exists(), "there is no {}: run `cargo xtask test`", path.display());
        path
    }

    /// Whether it has a driver for the mouse. CONFIG_HID is not set in Debian's cloud kernels of 5.10 and 7.2.
    pub(crate) fn has_hid(&self) -> bool {
        const DRIVER: &[u8] = b"/hid-hyperv.ko";
        let initrd = fs::read(self.initrd()).expect("an initramfs");
        initrd.windows(DRIVER.len()).any(|name| name == DRIVER)
    }

    /// The same, for tests of the mouse.
    pub(crate) fn has_mouse(&self) -> Outcome {
        let why = "this kernel is built without HID, and so without a mouse";
        if self.has_hid() { Ok(()) } else { Err(Skip(why.to_owned())) }
    }

    /// The newest version of VMBus that it speaks, of those that busway does.
    ///
    /// Source: `drivers/hv/connection.c` of each.
    pub(crate) fn newest_vmbus(&self) -> &'static str {
        match self.version {
            (..=5, _) => "5.2",
            (6, ..=12) => "5.3",
            _ => "6.0",
        }
    }

    /// Whether it speaks this version of VMBus, major in the upper half.
    pub(crate) fn speaks(&self, vmbus: u32) -> bool {
        match self.version {
            (..=5, _) => vmbus <= 0x5_0002,
            (6, ..=12) => (0x2_0004..=0x5_0003).contains(&vmbus),
            _ => vmbus >= 0x4_0000,
        }
    }

    /// Whether it speaks this version of storvsc.
    ///
    /// Source: `drivers/scsi/storvsc_drv.c` of each.
    pub(crate) fn speaks_storage(&self, version: (u32, u32)) -> bool {
        match self.version {
            (..=5, _) => true,
            (6, ..=12) => version >= (5, 1),
            _ => version >= (6, 0),
        }
    }
}
