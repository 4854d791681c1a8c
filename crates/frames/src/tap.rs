// SPDX-License-Identifier: MIT OR Apache-2.0

//! A TAP of the host: an Ethernet interface whose other end is us.
//!
//! Source: Linux `Documentation/networking/tuntap.rst`, `include/uapi/linux/if_tun.h`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use busway_memory::GuestPart;
use libc::{c_int, c_ulong};

use crate::kernel::{self, Burst, Vectors};
use crate::{FrameHeader, Lost, Offloads, OpenError};

const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: c_ulong = 0x4004_54d8;
const TUNSETQUEUE: c_ulong = 0x4004_54d9;

const IFF_TAP: c_int = 0x0002;
const IFF_NO_PI: c_int = 0x1000;
const IFF_VNET_HDR: c_int = 0x4000;
const IFF_MULTI_QUEUE: c_int = 0x0100;
const IFF_ATTACH_QUEUE: c_int = 0x0200;
const IFF_DETACH_QUEUE: c_int = 0x0400;

const TUN_F_CSUM: c_ulong = 0x01;
const TUN_F_TSO4: c_ulong = 0x02;
const TUN_F_TSO6: c_ulong = 0x04;

/// An open TAP: its queues, as many as it has or fewer.
#[derive(Debug)]
pub(crate) struct Tap {
    name: String,
    queues: Vec<Arc<File>>,
}

impl Tap {
    /// Opens the TAP `name`, which must exist, with up to `queues` queues: as many only if it was
    /// created for several.
    pub(crate) fn open(name: &str, queues: u16) -> Result<Self, OpenError> {
        let has_several = look_up(name)? & IFF_MULTI_QUEUE != 0;
        let count = if has_several { queues } else { 1 };
        let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        let flags = if has_several { flags | IFF_MULTI_QUEUE } else { flags };
        let mut files = Vec::new();
        for index in 0..count {
            let file = open_queue(name, flags)?;
            if index != 0 {
                // Until a channel reads it, no frame should wait there.
                attach(&file, false).map_err(failed(name, "TUNSETQUEUE"))?;
            }
            files.push(Arc::new(file));
        }
        Ok(Self { name: name.to_owned(), queues: files })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The queue `index`; of a TAP that has no such queue, one that can only be written.
    pub(crate) fn queue(&self, index: u16) -> io::Result<TapQueue> {
        let own = self.queues.get(usize::from(index));
        let file = own.or(self.queues.first()).ok_or(io::ErrorKind::NotFound)?;
        let attached = index != 0 && own.is_some();
        if attached {
            attach(file, true)?;
        }
        Ok(TapQueue {
            file: Arc::clone(file),
            reads: own.is_some(),
            attached,
            vectors: Vectors::default(),
            burst: Burst::new(Arc::clone(file)),
            lost: Lost::default(),
        })
    }
}

/// One queue of a TAP.
#[derive(Debug)]
pub(crate) struct TapQueue {
    file: Arc<File>,
    /// Whether nobody else reads it.
    reads: bool,
    /// Whether it is to be detached in the end.
    attached: bool,
    vectors: Vectors,
    /// Frames that are still to be sent.
    burst: Burst,
    lost: Lost,
}

impl TapQueue {
    /// Readable while a frame waits.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.reads.then(|| self.file.as_fd())
    }

    /// What the kernel may leave to us, for the whole TAP.
    pub(crate) fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        let Offloads { checksum, tcp4, tcp6 } = offloads;
        let mut bits = 0;
        for (on, bit) in [(checksum, TUN_F_CSUM), (tcp4, TUN_F_TSO4), (tcp6, TUN_F_TSO6)] {
            if on {
                bits |= bit;
            }
        }
        kernel::value_ioctl(&self.file, TUNSETOFFLOAD, bits)
    }

    pub(crate) fn send(
        &mut self,
        header: &FrameHeader,
        head: &[u8],
        rest: GuestPart<'_>,
    ) -> io::Result<()> {
        self.burst.push(header, head, rest, |error| self.lost.add(error))
    }

    fn write(&mut self) {
        self.burst.write(|error| self.lost.add(error));
    }

    pub(crate) fn flush(&mut self) -> Lost {
        self.write();
        mem::take(&mut self.lost)
    }

    pub(crate) fn receive(&mut self, into: GuestPart<'_>) -> io::Result<Option<usize>> {
        if !self.reads {
            return Ok(None);
        }
        match kernel::read_guest(self.file.as_fd(), into, &mut self.vectors) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes a frame that nobody wants; false if there is none.
    pub(crate) fn discard(&mut self) -> io::Result<bool> {
        // What does not fit is dropped with the rest.
        let mut bytes = [0; FrameHeader::LEN + 14];
        if !self.reads {
            return Ok(false);
        }
        match io::Read::read(&mut &*self.file, &mut bytes) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for TapQueue {
    fn drop(&mut self) {
        self.write();
        if self.attached
            && let Err(error) = attach(&self.file, false)
        {
            log::debug!("a TAP's queue cannot be detached: {error}");
        }
    }
}

/// The flags of the TAP `name`.
fn look_up(name: &str) -> Result<c_int, OpenError> {
    let name = name.to_owned();
    let directory = Path::new("/sys/class/net").join(&name);
    if name.is_empty() || name.contains('/') || !directory.exists() {
        return Err(OpenError::NoTap { name });
    }
    let flags = fs::read_to_string(directory.join("tun_flags")).unwrap_or_default();
    let flags = flags.trim().strip_prefix("0x").and_then(|hex| c_int::from_str_radix(hex, 16).ok());
    flags.filter(|flags| flags & IFF_TAP != 0).ok_or(OpenError::NotTap { name })
}

fn open_queue(name: &str, flags: c_int) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open("/dev/net/tun").map_err(closed)?;
    kernel::interface_ioctl(&file, TUNSETIFF, name, flags)
        .map_err(|source| refused(name, source))?;
    let len = FrameHeader::LEN as c_int;
    kernel::number_ioctl(&file, TUNSETVNETHDRSZ, len).map_err(failed(name, "TUNSETVNETHDRSZ"))?;
    Ok(file)
}

/// Why there is no /dev/net/tun.
fn closed(source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => OpenError::Tun { source },
        _ => OpenError::NoTun { source },
    }
}

/// Why TUNSETIFF has failed.
fn refused(name: &str, source: io::Error) -> OpenError {
    let name = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::Permission { name, source },
        Some(libc::EBUSY | libc::E2BIG) => OpenError::Busy { name },
        _ => OpenError::Tap { name, call: "TUNSETIFF", source },
    }
}

fn failed(name: &str, call: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Tap { name: name.to_owned(), call, source }
}

/// Has the kernel give the queue frames, or not.
fn attach(file: &File, on: bool) -> io::Result<()> {
    let flag = if on { IFF_ATTACH_QUEUE } else { IFF_DETACH_QUEUE };
    kernel::interface_ioctl(file, TUNSETQUEUE, "", flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_has_a_remedy() {
        let told = |number| refused("tap0", io::Error::from_raw_os_error(number)).to_string();
        for (number, remedy) in [
            (libc::EPERM, "`user $USER`"),
            (libc::EACCES, "run as root"),
            (libc::EBUSY, "give each machine its own"),
            (libc::E2BIG, "`multi_queue`"),
            (libc::EINVAL, "3.8 or later"),
        ] {
            assert!(told(number).contains("'tap0'") && told(number).contains(remedy), "{number}");
        }
        let told = |number| closed(io::Error::from_raw_os_error(number)).to_string();
        assert!(told(libc::EACCES).contains("chmod") && told(libc::ENOENT).contains("module tun"));
    }
}
