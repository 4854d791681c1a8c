// SPDX-License-Identifier: MIT OR Apache-2.0

//! Disks that grow while they are used.

use std::io::{self, Seek, SeekFrom};
use std::sync::atomic::Ordering;

use crate::Disk;
use crate::disk::Image;

/// A disk cannot have that size.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// Only an image that is the disk's bytes and no more grows.
    #[error("'{name}' is no raw image: only those grow")]
    NotRaw {
        /// The disk.
        name: String,
    },
    /// It would lose what it has at its end.
    #[error("'{name}' has {capacity} B, and {wanted} B are less: a disk only grows")]
    Smaller {
        /// The disk.
        name: String,
        /// Its bytes.
        capacity: u64,
        /// What it was to have.
        wanted: u64,
    },
    /// It would not be made of whole blocks.
    #[error("{wanted} B are no multiple of the {block} B of a block of '{name}'")]
    NotBlocks {
        /// The disk.
        name: String,
        /// What it was to have.
        wanted: u64,
        /// Bytes of a logical block.
        block: u32,
    },
    /// The image cannot be made longer.
    #[error("'{name}' cannot have {wanted} B")]
    System {
        /// The disk.
        name: String,
        /// What it was to have.
        wanted: u64,
        /// The system's reason.
        source: io::Error,
    },
}

impl Disk {
    /// Makes the image `wanted` bytes long, or takes its length as it has become by other means; and
    /// gives the disk that capacity, which is returned. Its channels need not know of it beforehand;
    /// whether the guest does is not this crate's business.
    pub fn resize(&self, wanted: Option<u64>) -> Result<u64, ResizeError> {
        let inner = self.inner();
        let name = || inner.name.clone();
        if !inner.grows {
            return Err(ResizeError::NotRaw { name: name() });
        }
        let capacity = self.capacity();
        let failed =
            |wanted| move |source| ResizeError::System { name: inner.name.clone(), wanted, source };
        let len = match (wanted, &inner.image) {
            (Some(wanted), _) => wanted,
            // A block device's length is not in its metadata.
            (None, Image::Raw(file)) => {
                (&*file).seek(SeekFrom::End(0)).map_err(failed(capacity))?
            }
            (None, _) => capacity,
        };
        if len < capacity {
            return Err(ResizeError::Smaller { name: name(), capacity, wanted: len });
        }
        let block = self.logical_block();
        if !len.is_multiple_of(block.into()) {
            return Err(ResizeError::NotBlocks { name: name(), wanted: len, block });
        }
        match &inner.image {
            // It may be longer already, and is not to lose what it has there.
            Image::Raw(file) if wanted.is_some() => {
                let has = (&*file).seek(SeekFrom::End(0)).map_err(failed(len))?;
                if has < len {
                    file.set_len(len).map_err(failed(len))?;
                }
            }
            Image::Ram(ram) => ram.grow(len),
            Image::Raw(_) | Image::Formatted(_) => {}
        }
        inner.capacity.store(len, Ordering::Relaxed);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use tempfile::NamedTempFile;

    use super::*;
    use crate::{DiskOptions, Format};

    fn image(len: u64) -> (NamedTempFile, Disk) {
        let file = NamedTempFile::new().unwrap();
        file.as_file().set_len(len).unwrap();
        let disk = Disk::open_raw(file.path(), &DiskOptions::default()).unwrap();
        (file, disk)
    }

    #[test]
    fn a_raw_image_grows_to_a_size_or_to_that_which_it_has() {
        let (file, disk) = image(4096);
        assert_eq!(disk.resize(Some(8192)).unwrap(), 8192);
        assert_eq!(file.as_file().metadata().unwrap().len(), 8192);
        file.as_file().set_len(1 << 20).unwrap();
        assert_eq!(disk.capacity(), 8192);
        assert_eq!(disk.resize(None).unwrap(), 1 << 20);
        assert_eq!(disk.capacity(), 1 << 20);
        // Longer than asked for: what is there stays.
        file.as_file().set_len(4 << 20).unwrap();
        assert_eq!(disk.resize(Some(2 << 20)).unwrap(), 2 << 20);
        assert_eq!(file.as_file().metadata().unwrap().len(), 4 << 20);
    }

    #[test]
    fn no_disk_shrinks_or_has_parts_of_blocks() {
        let (file, disk) = image(8192);
        assert!(matches!(disk.resize(Some(4096)), Err(ResizeError::Smaller { .. })));
        assert!(matches!(disk.resize(Some(8193)), Err(ResizeError::NotBlocks { .. })));
        File::options().write(true).open(file.path()).unwrap().set_len(512).unwrap();
        assert!(matches!(disk.resize(None), Err(ResizeError::Smaller { .. })));
        assert_eq!(disk.capacity(), 8192);
    }

    #[test]
    fn what_is_not_the_disks_bytes_does_not_grow() {
        let file = NamedTempFile::new().unwrap();
        file.as_file().set_len(8192).unwrap();
        let layer = Some(crate::Layer::Temporary);
        let options = DiskOptions { format: Some(Format::Raw), layer, ..DiskOptions::default() };
        let disk = Disk::open(file.path(), &options).unwrap();
        assert!(matches!(disk.resize(Some(1 << 20)), Err(ResizeError::NotRaw { .. })));
        let read_only = DiskOptions { read_only: true, ..DiskOptions::default() };
        let disk = Disk::open_raw(file.path(), &read_only);
        assert!(disk.is_err() || disk.unwrap().resize(Some(1 << 20)).is_err());
        assert_eq!(file.as_file().metadata().unwrap().len(), 8192);
    }
}
