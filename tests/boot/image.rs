// SPDX-License-Identifier: MIT OR Apache-2.0

//! Disk images, as the test sees them from outside.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use busway_guest_agent::{Blocks, noise};

/// Of the noise on a disk that is not empty.
const SEED: u64 = 0x6469_736b;

/// A raw image.
pub(crate) struct Image {
    path: PathBuf,
}

impl Image {
    pub(crate) fn noise(path: PathBuf, length: usize) -> Self {
        fs::write(&path, noise(SEED, length)).unwrap();
        Self { path }
    }

    pub(crate) fn empty(path: PathBuf, length: usize) -> Self {
        File::create(&path).unwrap().set_len(length as u64).unwrap();
        Self { path }
    }

    /// The disk of `cargo xtask images`: a partition with ext4, and known files.
    pub(crate) fn copy_of_data_disk(path: PathBuf) -> Self {
        fs::copy("data.img", &path).unwrap();
        Self { path }
    }

    /// One that something else has made.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn sha256(&self) -> String {
        sha256(&self.path)
    }

    /// The checksum of its first bytes.
    pub(crate) fn sha256_of(&self, length: u64) -> String {
        let start = self.path.with_extension("start");
        let mut from = File::open(&self.path).unwrap().take(length);
        io::copy(&mut from, &mut File::create(&start).unwrap()).unwrap();
        sha256(&start)
    }

    /// Whether these are its first bytes.
    pub(crate) fn begins_with(&self, bytes: &[u8]) -> bool {
        let mut found = vec![0; bytes.len()];
        File::open(&self.path).unwrap().read_exact(&mut found).unwrap();
        found == bytes
    }

    /// Puts the blocks there, from outside.
    pub(crate) fn write(&self, blocks: &Blocks) {
        let file = File::options().write(true).open(&self.path).unwrap();
        for number in 0..blocks.count {
            file.write_all_at(&blocks.contents(number), blocks.offset(number)).unwrap();
        }
    }

    /// Fails unless the first `count` of the blocks are in the image.
    pub(crate) fn must_hold(&self, blocks: &Blocks, count: u64) {
        let file = File::open(&self.path).unwrap();
        let mut found = vec![0; blocks.block];
        for number in 0..count {
            file.read_exact_at(&mut found, blocks.offset(number)).unwrap();
            let same = found == blocks.contents(number);
            assert!(same, "block {number} of {count} is not in the image");
        }
    }

    /// Bytes that it really takes on its file system.
    pub(crate) fn allocated(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&self.path).unwrap().blocks() * 512
    }

    /// Fails unless what lies between the blocks is the noise that was there from the beginning.
    pub(crate) fn must_be_untouched_between(&self, blocks: &Blocks) {
        let found = fs::read(&self.path).unwrap();
        let mut wanted = noise(SEED, found.len());
        for number in 0..blocks.count {
            let from = blocks.offset(number) as usize;
            wanted[from..from + blocks.block].copy_from_slice(&found[from..from + blocks.block]);
        }
        assert!(found == wanted, "the disk changed where nothing was written");
    }
}

/// By the system's own program, not by code of ours.
pub(crate) fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap_or_default().to_owned()
}
