// SPDX-License-Identifier: MIT OR Apache-2.0

//! What has been fetched and built, below one directory: packages, unpacked trees and finished images.
//! An image that is there is used as it is, without a look at the network. Only one program at a time makes
//! anything there; others wait.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::apt::Apt;
use crate::disk;
use crate::initrd;
use crate::manifest::{Entry, FileEntry, ProgramEntry, ToolEntry};
use crate::modules::Modules;
use crate::programs;
use crate::tree::Tree;

/// The directory of everything fetched.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

/// A kernel image, ready to boot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// Name in the manifest.
    pub name: String,
    /// What `uname -r` says in it.
    pub release: String,
    /// Version of the Debian package.
    pub package_version: String,
    /// The kernel.
    pub vmlinuz: PathBuf,
    /// The base initramfs, uncompressed; more archives may be appended.
    pub initrd: PathBuf,
    /// Tree in which `lib/modules/<release>` lies, indexed by depmod.
    pub tree: PathBuf,
    /// Static busybox of the same suite and architecture.
    pub busybox: PathBuf,
}

impl Store {
    /// A store below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The image, fetched and built if it is not there or if `refresh` asks for the suite's newest.
    pub fn image(&self, entry: &Entry, refresh: bool) -> anyhow::Result<Image> {
        let _lock = self.lock()?;
        let present = if refresh { None } else { self.present(entry) };
        let image = match present {
            Some(image) => image,
            None => self
                .fetch(entry)
                .with_context(|| format!("image {} could not be made", entry.name))?,
        };
        // Cheap, and the init belongs to the project's sources: never stale.
        initrd::build(&image).with_context(|| format!("initramfs of {}", image.name))?;
        Ok(image)
    }

    /// The image if it has been fetched before.
    pub fn present(&self, entry: &Entry) -> Option<Image> {
        let text = fs::read(self.record(entry)).ok()?;
        let image: Image = serde_json::from_slice(&text).ok()?;
        let whole = image.vmlinuz.exists() && image.busybox.exists();
        whole.then_some(image)
    }

    /// The disk of [`disk`], made if it is not there. Whoever writes to it takes a copy.
    pub fn disk(&self) -> anyhow::Result<PathBuf> {
        let _lock = self.lock()?;
        let path = self.root.join("data.img");
        disk::build(&path).context("the data disk could not be made")?;
        Ok(path)
    }

    /// An archive that adds the program to a guest of `entry`'s suite.
    pub fn program(&self, entry: &Entry, program: &ProgramEntry) -> anyhow::Result<PathBuf> {
        let _lock = self.lock()?;
        let directory = self.root.join(&entry.name).join("programs");
        let archive = directory.join(format!("{}.cpio", program.name));
        if archive.exists() {
            return Ok(archive);
        }
        let tree = directory.join(format!("{}.tree", program.name));
        let apt = Apt::open(&self.root, &entry.suite, &entry.arch)?;
        apt.unpack_closure(&program.package, &tree)?;
        programs::build(program, &tree, &archive)
            .with_context(|| format!("program {} for {}", program.name, entry.name))?;
        fs::remove_dir_all(&tree)?;
        Ok(archive)
    }

    /// The tool, unpacked with all it needs; fetched if it is not there.
    pub fn tool(&self, entry: &ToolEntry) -> anyhow::Result<Tree> {
        let _lock = self.lock()?;
        let place = self.root.join("tools").join(format!("{}-{}", entry.name, entry.suite));
        if !place.exists() {
            let apt = Apt::open(&self.root, &entry.suite, &entry.arch)?;
            let unfinished = place.with_extension("part");
            apt.unpack_closure(&entry.package, &unfinished)
                .with_context(|| format!("{} could not be fetched", entry.name))?;
            fs::rename(&unfinished, &place)?;
        }
        Tree::open(&place)
    }

    /// The file, out of its package; fetched if it is not there.
    pub fn file(&self, entry: &FileEntry) -> anyhow::Result<PathBuf> {
        let _lock = self.lock()?;
        let place = self.root.join("files").join(format!("{}-{}", entry.name, entry.suite));
        if !place.exists() {
            let apt = Apt::open(&self.root, &entry.suite, &entry.arch)?;
            let unfinished = place.with_extension("part");
            apt.unpack(&[&entry.package], &unfinished)
                .with_context(|| format!("{} could not be fetched", entry.name))?;
            fs::rename(&unfinished, &place)?;
        }
        Ok(place.join(&entry.path))
    }

    /// Keeps other programs from making anything here, as long as it is not dropped.
    fn lock(&self) -> anyhow::Result<File> {
        fs::create_dir_all(&self.root)?;
        let path = self.root.join("lock");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                eprintln!("images: another program makes some in {}; waiting", self.root.display());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).context(path.display().to_string());
            }
        }
        file.lock().with_context(|| path.display().to_string())?;
        Ok(file)
    }

    fn fetch(&self, entry: &Entry) -> anyhow::Result<Image> {
        let apt = Apt::open(&self.root, &entry.suite, &entry.arch)?;
        let parts = apt.kernel_parts(&entry.package)?;
        let last = parts.last().unwrap_or(&entry.package);
        let package_version = apt.version(last)?;
        let busybox_version = apt.version("busybox-static")?;

        let trees = self.root.join("trees");
        let tree = trees.join(format!("{}_{package_version}_{}", entry.name, entry.arch));
        let tools = trees.join(format!("busybox_{busybox_version}_{}", entry.arch));
        apt.unpack(&["busybox-static"], &tools)?;
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        apt.unpack(&parts, &tree)?;
        let release = Modules::index(&tree)?;
        let image = Image {
            name: entry.name.clone(),
            vmlinuz: kernel_in(&tree, &release)?,
            release,
            package_version,
            initrd: self.root.join(&entry.name).join("initrd.cpio"),
            busybox: busybox_in(&tools)?,
            tree,
        };
        fs::create_dir_all(self.root.join(&entry.name))?;
        fs::write(self.record(entry), serde_json::to_vec_pretty(&image)?)?;
        Ok(image)
    }

    fn record(&self, entry: &Entry) -> PathBuf {
        self.root.join(&entry.name).join("image.json")
    }
}

/// `boot/vmlinuz-<release>`, or where an image is split, `vmlinuz` among its modules.
fn kernel_in(tree: &Path, release: &str) -> anyhow::Result<PathBuf> {
    let found = [
        tree.join("boot").join(format!("vmlinuz-{release}")),
        tree.join("lib/modules").join(release).join("vmlinuz"),
    ];
    found
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("{} has no kernel", tree.display()))
}

fn busybox_in(tree: &Path) -> anyhow::Result<PathBuf> {
    let found = ["bin/busybox", "usr/bin/busybox"].map(|path| tree.join(path));
    found
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("{} has no busybox", tree.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_waits_for_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let store = || Store::new(directory.path().join("images"));
        let first = store().lock().unwrap();
        let (sender, receiver) = mpsc::channel();
        let second = store();
        thread::spawn(move || sender.send(second.lock().is_ok()));
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
        drop(first);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(true));
    }
}
