// SPDX-License-Identifier: MIT OR Apache-2.0

//! Raw channels: a device of any class, whose host is a program of the user's.
//!
//! For the author of a driver that has no device yet, and for user-space drivers (`uio_hv_generic`).
//! The program connects to a unix socket of type SOCK_SEQPACKET, one at a time; each message on it
//! is one packet, a [`Frame`] and the payload behind it, or the data alone where the channel is a
//! [pipe](busway_wire::pipe). While no program is connected, the guest's packets wait in its ring.
//! When the guest closes the channel, the connection ends.
//!
//! Drivers in user space (`uio_hv_generic` of Linux 6.1, DPDK) signal by a bit in a page that a host
//! is to look at from time to time, not by a hypercall. For them a channel can be
//! [monitored](RawDevice::monitored).

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod channel;
mod frame;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use busway_vmbus::{ChannelHandler, Device, Fault, Offer, Opening};
use busway_wire::Guid;
use busway_wire::control::layout::OfferFlags;
use busway_wire::pipe::PipeMode;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};

use channel::RawChannel;
pub use frame::Frame;

/// The listening end of a raw channel's socket. Dropping the last clone removes it.
#[derive(Clone)]
pub struct Listener(Arc<Inner>);

struct Inner {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, where nothing may be.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        listen(&socket, 1)?;
        Ok(Self(Arc::new(Inner { socket, path: path.to_owned() })))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.0.path.display())
    }
}

/// A raw channel's device.
#[derive(Clone, Debug)]
pub struct RawDevice {
    class: Guid,
    instance: Guid,
    pipe: bool,
    monitored: bool,
    listener: Option<Listener>,
}

impl RawDevice {
    /// A device of `class`. Without a listener it takes every packet and says nothing.
    pub const fn new(class: Guid, instance: Guid, pipe: bool, listener: Option<Listener>) -> Self {
        Self { class, instance, pipe, monitored: false, listener }
    }

    /// The same, for a guest that signals by its monitor page: the device looks into the ring a
    /// thousand times a second while the channel is open, so that it need not read the page.
    #[must_use]
    pub const fn monitored(mut self, monitored: bool) -> Self {
        self.monitored = monitored;
        self
    }
}

impl Device for RawDevice {
    fn offer(&self) -> Offer {
        let mut offer = Offer::new(self.class, self.instance);
        if self.pipe {
            offer.flags |= OfferFlags::NAMED_PIPE_MODE;
            let mode = PipeMode::MESSAGE.0.to_le_bytes();
            for (to, from) in offer.user_defined.iter_mut().zip(mode) {
                *to = from;
            }
        }
        if self.monitored {
            offer.flags |= OfferFlags::REQUEST_MONITORED_NOTIFICATION;
        }
        offer
    }

    fn open(&mut self, _opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        let channel = RawChannel::new(self.listener.clone(), self.pipe, self.monitored);
        Ok(Box::new(channel.map_err(Fault::host)?))
    }
}
