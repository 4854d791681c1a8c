// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why a request was not done.

use std::io;

/// A request was not done, or not wholly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// It reaches beyond the end of the disk.
    #[error("{len} B at {offset} reach beyond a disk of {capacity} B")]
    BeyondEnd {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Bytes of the disk.
        capacity: u64,
    },
    /// It is not made of whole blocks.
    #[error("{len} B at {offset} are no whole blocks of {block} B")]
    Misaligned {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Bytes of a logical block.
        block: u32,
    },
    /// The queue has no such disk.
    #[error("the queue has no disk {disk}")]
    NoDisk {
        /// Which one was asked for.
        disk: usize,
    },
    /// It would change a disk that is read-only.
    #[error("the disk is read-only")]
    ReadOnly,
    /// The image ends before the disk does: somebody cut it short.
    #[error("the image ends before byte {at}")]
    Truncated {
        /// The first byte that is missing.
        at: u64,
    },
    /// There is no room on the host for what was written.
    #[error("the host has no room for the image: {}", text(*.errno))]
    NoSpace {
        /// The system's number.
        errno: i32,
    },
    /// The image's file system, or device, cannot do it.
    #[error("the host cannot do that on this image: {}", text(*.errno))]
    Unsupported {
        /// The system's number.
        errno: i32,
    },
    /// It was given up on demand; it may have been done in part.
    #[error("cancelled")]
    Cancelled,
    /// Anything else: most of all EIO, the host's own disk failing.
    #[error("the host failed: {}", text(*.errno))]
    Failed {
        /// The system's number.
        errno: i32,
    },
}

fn text(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl IoError {
    /// What the system's error `errno` means for a request.
    pub(crate) const fn from_errno(errno: i32) -> Self {
        match errno {
            libc::ENOSPC | libc::EDQUOT | libc::EFBIG => Self::NoSpace { errno },
            libc::EROFS => Self::ReadOnly,
            libc::EOPNOTSUPP | libc::ENOSYS => Self::Unsupported { errno },
            libc::ECANCELED => Self::Cancelled,
            errno => Self::Failed { errno },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_the_system_said() {
        assert_eq!(
            IoError::from_errno(libc::ENOSPC).to_string(),
            "the host has no room for the image: No space left on device (os error 28)"
        );
        assert_eq!(IoError::from_errno(libc::EIO), IoError::Failed { errno: 5 });
        assert_eq!(IoError::from_errno(libc::EROFS), IoError::ReadOnly);
    }
}
