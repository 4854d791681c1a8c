// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a disk is, whoever reads and writes it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ram::Ram;
use crate::rate::Rate;
use crate::workers::Workers;
use crate::wwn::Wwn;
use crate::{DiskOptions, IoError, OnError, Operation, RateLimit};

/// A disk: a cheap handle that all channels share.
#[derive(Clone, Debug)]
pub struct Disk {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) image: Image,
    pub(crate) capacity: AtomicU64,
    /// The image is the disk's bytes and no more, so that it can grow.
    pub(crate) grows: bool,
    pub(crate) discards: bool,
    pub(crate) identity: Identity,
    pub(crate) options: DiskOptions,
    pub(crate) rate: Rate,
}

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The guest is told.
    Report,
    /// The request is done again when the user says so.
    Wait,
    /// And the machine stands still until then.
    Stop,
}

/// What holds a disk's bytes.
#[derive(Debug)]
pub(crate) enum Image {
    /// A file or block device, byte for byte. The file keeps the lock.
    Raw(File),
    /// Memory of the host.
    Ram(Ram),
    /// Anything else, by threads of its own.
    Formatted(Workers),
}

impl Drop for Image {
    /// Gives the lock up now: the kernel keeps the file open for a while after an io_uring that
    /// knew it, and whoever opens the image next would find it locked by nobody.
    fn drop(&mut self) {
        if let Self::Raw(file) = self
            && let Err(error) = file.unlock()
        {
            log::debug!("an image cannot be unlocked: {error}");
        }
    }
}

/// The names under which a guest finds a disk again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The serial number, printable ASCII.
    pub serial: String,
    /// A number that no other disk has; the same in every run.
    pub unique: [u8; 16],
    /// The world-wide name that the user chose.
    pub wwn: Option<Wwn>,
}

impl Identity {
    /// From a serial number that the user chose, or else from what `source` says where the image
    /// is: the same image at the same place is the same disk to the guest.
    pub(crate) fn new(options: &DiskOptions, source: &[u8]) -> Self {
        let unique = match &options.serial {
            Some(serial) => fnv(b"serial:", serial.as_bytes()),
            None => fnv(b"source:", source),
        };
        let serial = match &options.serial {
            Some(serial) => serial.clone(),
            None => format!("{:016x}", (unique >> 64) as u64),
        };
        Self { serial, unique: unique.to_be_bytes(), wwn: options.wwn }
    }
}

/// FNV-1a of 128 bits: names need no more than to differ, and to be the same in every build.
fn fnv(domain: &[u8], bytes: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    domain
        .iter()
        .chain(bytes)
        .fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

impl Disk {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn image(&self) -> &Image {
        &self.inner.image
    }

    pub(crate) fn rate(&self) -> &Rate {
        &self.inner.rate
    }

    /// How much may be asked of it in a second.
    pub fn rate_limit(&self) -> RateLimit {
        self.rate().limit()
    }

    /// How much may be asked of it from now on, of all its queues together. What waits because of another limit is
    /// looked at again within a tenth of a second.
    pub fn set_rate_limit(&self, limit: RateLimit) {
        self.rate().set(limit);
    }

    /// Requests that have waited because of the disk's [limit](crate::RateLimit).
    pub fn delayed(&self) -> u64 {
        self.rate().delayed()
    }

    /// What the disk is called in messages: its path.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Bytes; a non-zero multiple of the logical block. It may grow.
    pub fn capacity(&self) -> u64 {
        self.inner.capacity.load(Ordering::Relaxed)
    }

    /// Bytes of the smallest piece that can be read or written; a power of two.
    pub fn logical_block(&self) -> u32 {
        self.inner.options.logical_block
    }

    /// Bytes of the smallest piece that can be written without reading its surroundings first; a
    /// power of two, the logical block or a multiple of it.
    pub fn physical_block(&self) -> u32 {
        self.inner.options.physical_block
    }

    /// Whether nothing may be written.
    pub fn is_read_only(&self) -> bool {
        self.inner.options.read_only
    }

    /// Whether blocks can be given up. They read as zeroes then.
    pub fn can_discard(&self) -> bool {
        self.inner.discards
    }

    /// Makes everything durable that was written so far, and waits for that.
    pub fn flush(&self) -> io::Result<()> {
        match &self.inner.image {
            Image::Raw(file) => file.sync_data(),
            Image::Ram(_) => Ok(()),
            Image::Formatted(workers) => workers.contents.flush(),
        }
    }

    /// What follows when a request has ended with `error`.
    ///
    /// Of a flush the guest is always told: the kernel tells of lost pages once, and the next one would succeed
    /// (`Documentation/filesystems/vfs.rst`, "Handling errors during writeback").
    pub fn reaction(&self, operation: Operation, error: IoError) -> Reaction {
        let options = &self.inner.options;
        let policy = match operation {
            Operation::Read => options.on_read_error,
            Operation::Flush => OnError::Report,
            _ => options.on_write_error,
        };
        let is_full = match error {
            IoError::NoSpace { .. } => true,
            IoError::Failed { .. } | IoError::Truncated { .. } => false,
            IoError::BeyondEnd { .. }
            | IoError::Misaligned { .. }
            | IoError::NoDisk { .. }
            | IoError::ReadOnly
            | IoError::Unsupported { .. }
            | IoError::Cancelled => return Reaction::Report,
        };
        match policy {
            OnError::Wait => Reaction::Wait,
            OnError::Stop => Reaction::Stop,
            OnError::NoSpace if is_full => Reaction::Stop,
            OnError::NoSpace | OnError::Report => Reaction::Report,
        }
    }

    /// The names under which a guest finds the disk again.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_depends_on_the_serial_number_or_else_on_the_place() {
        let called =
            |serial: &str| DiskOptions { serial: Some(serial.into()), ..DiskOptions::default() };
        let named = Identity::new(&called("alpha"), b"/one");
        assert_eq!(named.serial, "alpha");
        assert_eq!(named, Identity::new(&called("alpha"), b"/two"));
        let placed = Identity::new(&DiskOptions::default(), b"/one");
        assert_ne!(placed.unique, Identity::new(&DiskOptions::default(), b"/two").unique);
        assert_ne!(placed.unique, Identity::new(&called("/one"), b"").unique);
        assert_eq!(placed.serial.len(), 16);
    }

    #[test]
    fn only_the_hosts_faults_are_waited_for_and_only_if_the_user_wants_that() {
        use Reaction::{Report, Stop, Wait};
        let write = Operation::Write { durable: true };
        let (full, broken) = (IoError::NoSpace { errno: 28 }, IoError::Failed { errno: 5 });
        for (policy, reactions) in [
            (OnError::Report, [Report, Report]),
            (OnError::NoSpace, [Stop, Report]),
            (OnError::Stop, [Stop, Stop]),
            (OnError::Wait, [Wait, Wait]),
        ] {
            let options = DiskOptions { on_write_error: policy, ..DiskOptions::default() };
            let disk = Disk::ram(4096, &options).unwrap();
            let seen = [full, broken].map(|error| disk.reaction(write, error));
            assert_eq!(seen, reactions, "{policy:?}");
            assert_eq!(disk.reaction(write, IoError::Truncated { at: 0 }), reactions[1]);
            assert_eq!(disk.reaction(Operation::Read, broken), Report, "that is for reads to say");
            assert_eq!(disk.reaction(Operation::Flush, full), Report);
            for error in [IoError::Cancelled, IoError::ReadOnly, IoError::NoDisk { disk: 0 }] {
                assert_eq!(disk.reaction(write, error), Report, "{error}");
            }
        }
        let options = DiskOptions { on_read_error: OnError::Stop, ..DiskOptions::default() };
        let disk = Disk::ram(4096, &options).unwrap();
        assert_eq!(disk.reaction(Operation::Read, broken), Stop);
        assert_eq!(disk.reaction(write, broken), Report);
    }

    /// The published test vectors of FNV-1a 128: of nothing, and of "a".
    #[test]
    fn fnv_is_fnv() {
        assert_eq!(fnv(b"", b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv(b"a", b""), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
