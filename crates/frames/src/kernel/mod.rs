// SPDX-License-Identifier: MIT OR Apache-2.0

//! The system calls of this crate that work on raw memory, and all of its `unsafe` code.

mod burst;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use busway_memory::GuestPart;
use libc::{c_int, c_ulong, iovec};

pub(crate) use burst::Burst;

/// The kernel takes no more vectors in one call (`UIO_MAXIOV`).
const MAX_VECTORS: usize = 1024;

/// Vectors for one call after another: their room is kept.
#[derive(Debug, Default)]
pub(crate) struct Vectors(Vec<iovec>);

// SAFETY: the vectors are of a call's own arguments and are made anew before each; between calls
// nobody follows them.
#[expect(unsafe_code, reason = "iovec holds a raw pointer")]
unsafe impl Send for Vectors {}

impl Vectors {
    fn of_guest(&mut self, part: GuestPart<'_>) {
        part.append_to(&mut self.0);
    }

    fn count(&self) -> c_int {
        self.0.len().min(MAX_VECTORS) as c_int
    }
}

/// Reads into guest memory, once.
#[expect(unsafe_code, reason = "the kernel writes to guest memory")]
pub(crate) fn read_guest(
    fd: BorrowedFd<'_>,
    into: GuestPart<'_>,
    vectors: &mut Vectors,
) -> io::Result<usize> {
    vectors.0.clear();
    vectors.of_guest(into);
    // SAFETY: the vectors lead to guest memory that `into` keeps mapped for the whole call, and
    // that anybody may write at any time.
    let done = unsafe { libc::readv(fd.as_raw_fd(), vectors.0.as_ptr(), vectors.count()) };
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// The part of `struct ifreq` that TAPs use.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// Names an interface and its flags to the kernel.
#[expect(unsafe_code, reason = "an ioctl")]
pub(crate) fn interface_ioctl(
    file: &File,
    request: c_ulong,
    name: &str,
    flags: c_int,
) -> io::Result<()> {
    let mut argument =
        InterfaceRequest { name: [0; libc::IFNAMSIZ], flags: flags as u16, rest: [0; 22] };
    // The last byte stays a NUL.
    for (to, from) in argument.name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: TUNSETIFF and TUNSETQUEUE read, and the first one writes, a `struct ifreq`, which
    // `argument` has the size and the fields of.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut argument) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An ioctl whose argument is a pointer to a number.
#[expect(unsafe_code, reason = "an ioctl")]
pub(crate) fn number_ioctl(file: &File, request: c_ulong, mut number: c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads an int, which `number` is.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut number) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An ioctl whose argument is a number itself.
#[expect(unsafe_code, reason = "an ioctl")]
pub(crate) fn value_ioctl(file: &File, request: c_ulong, value: c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument as a number and touches no memory of ours.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), request, value) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
