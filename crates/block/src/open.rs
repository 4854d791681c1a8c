// SPDX-License-Identifier: MIT OR Apache-2.0

//! Opening an image: every way in which a path can be no disk has an error that says what to do.

use std::fs::{self, File, FileType, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::disk::{Disk, Identity, Image, Inner};
use crate::format::{self, Format, Probed};
use crate::rate::{Rate, RateLimit};
use crate::vhd::Vhd;
use crate::workers::Workers;
use crate::wwn::Wwn;
use crate::{kernel, layers, vhd};

/// Longest serial number.
const MAX_SERIAL: usize = 64;

/// How long a lock that somebody has may outlive him. The kernel tears the io_uring of a process
/// that was killed down behind its back, and only then lets go of the image.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// What the user may choose about a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Nothing may be written.
    pub read_only: bool,
    /// The serial number, 1 to 64 printable ASCII characters; without one, a number that depends
    /// on the image's path.
    pub serial: Option<String>,
    /// The world-wide name; without one, a number that depends on the serial number or the path.
    pub wwn: Option<Wwn>,
    /// Bytes of a logical block: 512 or 4096; 2048 on a disc.
    pub logical_block: u32,
    /// Bytes of a physical block: a power of two from the logical block to 64 KiB.
    pub physical_block: u32,
    /// The image's format; without one, what its first bytes say.
    pub format: Option<Format>,
    /// Where writes go, if not into the image itself.
    pub layer: Option<Layer>,
    /// How much may be asked of it in a second.
    pub rate: RateLimit,
    /// What becomes of reads that fail.
    pub on_read_error: OnError,
    /// What becomes of everything else that fails, but a flush: see [`Disk::reaction`].
    pub on_write_error: OnError,
}

/// What becomes of a request that the host's own fault keeps from being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The guest is told.
    #[default]
    Report,
    /// The machine stops if the host has no room, and else the guest is told.
    NoSpace,
    /// The machine stops, and goes on when the user says so.
    Stop,
    /// It waits for the user, and the machine runs on.
    Wait,
}

/// What lies over an image that is only read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A qcow2 file; it is made if it is not there.
    Overlay(PathBuf),
    /// Nothing that outlives the disk.
    Temporary,
}

impl Default for DiskOptions {
    /// Logical blocks of 512 bytes, which every guest boots from, on physical ones of 4096: the
    /// host's page cache reads before it writes what is smaller.
    fn default() -> Self {
        let (read_only, serial, wwn, format, layer) = (false, None, None, None, None);
        let (on_read_error, on_write_error) = (OnError::Report, OnError::Report);
        let (logical_block, physical_block) = (512, 4096);
        Self {
            read_only,
            serial,
            wwn,
            logical_block,
            physical_block,
            format,
            layer,
            rate: RateLimit::default(),
            on_read_error,
            on_write_error,
        }
    }
}

/// A path is no disk, or not one that can be used now.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is nothing.
    #[error(
        "there is no disk image at '{}': correct the path, or create one (truncate -s 1G FILE)",
        path.display()
    )]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// There is something else.
    #[error("'{}' is a {kind}: a disk is a regular file or a block device", path.display())]
    NotADisk {
        /// Where.
        path: PathBuf,
        /// What there is.
        kind: &'static str,
    },
    /// The system does not let this user have it.
    #[error(
        "no permission to open '{}' for {}: change its mode or owner{}",
        path.display(),
        if *read_only { "reading" } else { "writing" },
        if *read_only { "" } else { ", or add ',readonly'" }
    )]
    NotPermitted {
        /// Where.
        path: PathBuf,
        /// Whether it was to be opened read-only.
        read_only: bool,
    },
    /// Somebody else has it.
    #[error(
        "'{}' is in use by another busway{}: stop that one, or use a copy",
        path.display(),
        if *read_only { " that writes it" } else { "" }
    )]
    InUse {
        /// Where.
        path: PathBuf,
        /// Whether it was to be opened read-only.
        read_only: bool,
    },
    /// It is empty.
    #[error("'{name}' is empty: give it a size (truncate -s 1G FILE)")]
    Empty {
        /// The disk.
        name: String,
    },
    /// It is not made of whole blocks.
    #[error(
        "'{name}' has {len} B, which is no multiple of {block}: extend it (truncate -s %{block} FILE)"
    )]
    NotBlocks {
        /// The disk.
        name: String,
        /// Its bytes.
        len: u64,
        /// Bytes of a logical block.
        block: u32,
    },
    /// The serial number is too long, empty or not printable.
    #[error("the serial number '{serial}' is not made of 1 to 64 printable ASCII characters")]
    Serial {
        /// What was given.
        serial: String,
    },
    /// There are no disks with such blocks.
    #[error(
        "no disk has logical blocks of {logical} B on physical blocks of {physical} B: \
         use 512 or 4096, and a power of two from there to 65536"
    )]
    BlockSizes {
        /// Bytes of a logical block.
        logical: u32,
        /// Bytes of a physical block.
        physical: u32,
    },
    /// It is an image that only some other program can read.
    #[error(
        "'{}' is a {format} image, which busway cannot read: convert it \
         (qemu-img convert -O raw), or say ',format=raw' if the guest is to see it as it is",
        path.display()
    )]
    Foreign {
        /// Where.
        path: PathBuf,
        /// The other program's name for it.
        format: &'static str,
    },
    /// It cannot be read as what it is, or is said to be.
    #[error("'{}' is no {format} image that can be used", path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// As what.
        format: Format,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Its format is not written.
    #[error(
        "'{}' is a {format} image, which is read and not written: add ',readonly' or ',temporary', \
         or convert it (qemu-img convert -O qcow2)",
        path.display()
    )]
    NotWritten {
        /// Where.
        path: PathBuf,
        /// What it is.
        format: Format,
    },
    /// A qcow2 file cannot lie over it.
    #[error(
        "no overlay goes over '{}', a {format} image: use ',temporary', or convert it \
         (qemu-img convert -O qcow2)",
        path.display()
    )]
    NotBelow {
        /// Where.
        path: PathBuf,
        /// What it is.
        format: Format,
    },
    /// There is no place for what is thrown away.
    #[error("no temporary file: set TMPDIR to a directory that can be written")]
    Temporary {
        /// The system's reason.
        source: io::Error,
    },
    /// The system failed.
    #[error("'{}' cannot be opened", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Disk {
    /// Opens the image, or block device, at `path`.
    ///
    /// The file is locked with `flock` for as long as the disk lives, exclusively if it may be
    /// written: two machines that write one image destroy it. Under a [`Layer`] it is only read.
    pub fn open(path: &Path, options: &DiskOptions) -> Result<Self, OpenError> {
        let read_only = options.read_only || options.layer.is_some();
        let (file, len) = open_file(path, read_only)?;
        let format = recognize(path, &file, len, options.format)?;
        let place = path.canonicalize().map_err(|source| refine(path, read_only, source))?;
        let source = place.as_os_str().as_bytes();
        let name = path.display().to_string();
        let unreadable = |source| OpenError::Unreadable { path: path.to_owned(), format, source };
        if options.layer.is_none() {
            let capacity = match format {
                Format::Raw => Some(len),
                Format::Vhd => match vhd::open(&file, len).map_err(unreadable)? {
                    Vhd::Fixed(capacity) => Some(capacity),
                    Vhd::Dynamic(_) => None,
                },
                Format::Qcow2 | Format::Vmdk | Format::Vhdx => None,
            };
            if let Some(capacity) = capacity {
                return Self::on(file, &name, (capacity, len), source, options);
            }
        }
        let (contents, logical_block) = layers::open(path, (file, len), format, options)?;
        let mut options = options.clone();
        options.logical_block = options.logical_block.max(logical_block);
        options.physical_block = options.physical_block.max(options.logical_block);
        let capacity = contents.capacity();
        check_options(&name, capacity, &options)?;
        Ok(Self::new(Inner {
            capacity: capacity.into(),
            rate: Rate::new(options.rate),
            grows: false,
            discards: !options.read_only,
            identity: Identity::new(&options, source),
            image: Image::Formatted(Workers::start(contents).map_err(unreadable)?),
            options,
            name,
        }))
    }

    /// Opens the raw image, or block device, at `path`, whatever it seems to be.
    pub fn open_raw(path: &Path, options: &DiskOptions) -> Result<Self, OpenError> {
        Self::open(path, &DiskOptions { format: Some(Format::Raw), ..options.clone() })
    }

    /// A disk of `capacity` bytes on a file that somebody else has opened, and locked if need be.
    /// It is not asked what it is: what it cannot do ends as an error.
    pub fn from_file(
        name: &str,
        file: File,
        capacity: u64,
        options: &DiskOptions,
    ) -> Result<Self, OpenError> {
        Self::on(file, name, (capacity, capacity), name.as_bytes(), options)
    }

    fn on(
        file: File,
        name: &str,
        (capacity, len): (u64, u64),
        source: &[u8],
        options: &DiskOptions,
    ) -> Result<Self, OpenError> {
        check_options(name, capacity, options)?;
        Ok(Self::new(Inner {
            name: name.to_owned(),
            rate: Rate::new(options.rate),
            capacity: capacity.into(),
            grows: capacity == len,
            discards: !options.read_only && discards(&file, len),
            identity: Identity::new(options, source),
            image: Image::Raw(file),
            options: options.clone(),
        }))
    }
}

/// Opens and locks a file; with its length.
pub(crate) fn open_file(path: &Path, read_only: bool) -> Result<(File, u64), OpenError> {
    let system = |source: io::Error| refine(path, read_only, source);
    // Before it is opened: that could wait for ever, for the other end of a pipe.
    let kind = fs::metadata(path).map_err(system)?.file_type();
    check_kind(path, kind)?;
    let mut file = OpenOptions::new().read(true).write(!read_only).open(path).map_err(system)?;
    lock(path, &file, read_only)?;
    // A block device's length is not in its metadata.
    let len = file.seek(SeekFrom::End(0)).map_err(system)?;
    Ok((file, len))
}

/// What an image is: what the user says, or else what it seems to be. What seems to be another
/// program's image is not taken for a raw one unless the user says so.
fn recognize(
    path: &Path,
    file: &File,
    len: u64,
    format: Option<Format>,
) -> Result<Format, OpenError> {
    if let Some(format) = format {
        return Ok(format);
    }
    let path = path.to_owned();
    match format::probe(file, len) {
        Ok(Probed::Known(format)) => Ok(format),
        Ok(Probed::Foreign(format)) => Err(OpenError::Foreign { path, format }),
        Err(source) => Err(OpenError::System { path, source }),
    }
}

pub(crate) fn refine(path: &Path, read_only: bool, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => OpenError::Missing { path },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::NotPermitted { path, read_only }
        }
        _ => OpenError::System { path, source },
    }
}

fn check_kind(path: &Path, kind: FileType) -> Result<(), OpenError> {
    let kind = match kind {
        kind if kind.is_file() || kind.is_block_device() => return Ok(()),
        kind if kind.is_dir() => "directory",
        kind if kind.is_fifo() => "pipe",
        kind if kind.is_socket() => "socket",
        _ => "character device",
    };
    Err(OpenError::NotADisk { path: path.to_owned(), kind })
}

pub(crate) fn lock(path: &Path, file: &File, read_only: bool) -> Result<(), OpenError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let locked = if read_only { file.try_lock_shared() } else { file.try_lock() };
        match locked {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(LOCK_PATIENCE / 50);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { path: path.to_owned(), read_only });
            }
            // Some network file systems have no locks. That is no reason to have no disks on them.
            Err(TryLockError::Error(error)) => {
                log::warn!("'{}' cannot be locked against other users: {error}", path.display());
                return Ok(());
            }
        }
    }
}

pub(crate) fn check_options(
    name: &str,
    capacity: u64,
    options: &DiskOptions,
) -> Result<(), OpenError> {
    let &DiskOptions { logical_block: logical, physical_block: physical, .. } = options;
    let is_physical = physical.is_power_of_two() && (logical..=0x1_0000).contains(&physical);
    if !matches!(logical, 512 | 2048 | 4096) || !is_physical {
        return Err(OpenError::BlockSizes { logical, physical });
    }
    if let Some(serial) = &options.serial
        && (!(1..=MAX_SERIAL).contains(&serial.len())
            || !serial.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '))
    {
        return Err(OpenError::Serial { serial: serial.clone() });
    }
    let name = name.to_owned();
    if capacity == 0 {
        return Err(OpenError::Empty { name });
    }
    if !capacity.is_multiple_of(logical.into()) {
        return Err(OpenError::NotBlocks { name, len: capacity, block: logical });
    }
    Ok(())
}

/// Whether blocks of the image can be given up so that they read as zeroes.
fn discards(file: &File, len: u64) -> bool {
    match file.metadata() {
        Ok(metadata) if metadata.file_type().is_block_device() => device_discards(metadata.rdev()),
        // Behind the end there is nothing to lose.
        _ => kernel::punch_hole(file, len, 4096).is_ok(),
    }
}

fn device_discards(device: libc::dev_t) -> bool {
    let (major, minor) = (libc::major(device), libc::minor(device));
    // A partition has no queue of its own.
    let limit = ["queue", "../queue"].iter().find_map(|queue| {
        let limit = format!("/sys/dev/block/{major}:{minor}/{queue}/write_zeroes_max_bytes");
        fs::read_to_string(limit).ok()
    });
    limit.is_some_and(|limit| limit.trim() != "0")
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
