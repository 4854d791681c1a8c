// SPDX-License-Identifier: MIT OR Apache-2.0

//! A network as it is opened once, whatever becomes of the card on it.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::loopback::Loopback;
use crate::passt::Passt;
use crate::queue::Kind;
use crate::stream::Stream;
use crate::tap::Tap;
use crate::{OpenError, Queue};

/// What is at the other end of a card's cable: a cheap handle.
#[derive(Clone, Debug)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
enum Inner {
    Tap(Tap),
    Stream(Arc<Mutex<Stream>>, Option<Passt>),
    Loopback,
}

/// What the network may leave undone in frames to the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums.
    pub checksum: bool,
    /// Cutting TCP on IPv4 into segments; with checksums only.
    pub tcp4: bool,
    /// The same on IPv6.
    pub tcp6: bool,
}

impl Network {
    /// The TAP `name`, which must exist, with up to `queues` queues.
    pub fn tap(name: &str, queues: u16) -> Result<Self, OpenError> {
        Ok(Self::new(Inner::Tap(Tap::open(name, queues)?)))
    }

    /// passt, started for this.
    pub fn passt() -> Result<Self, OpenError> {
        let (passt, socket) = Passt::start()?;
        let stream = Stream::new(socket).map_err(|source| OpenError::Passt { source })?;
        Ok(Self::new(Inner::Stream(Arc::new(Mutex::new(stream)), Some(passt))))
    }

    /// The program that listens at `path`.
    pub fn socket(path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Socket { path: path.to_owned(), source };
        let socket = UnixStream::connect(path).map_err(failed)?;
        Self::connected(socket).map_err(failed)
    }

    /// The program at the other end of `socket`.
    pub fn connected(socket: UnixStream) -> io::Result<Self> {
        let stream = Stream::new(socket)?;
        Ok(Self::new(Inner::Stream(Arc::new(Mutex::new(stream)), None)))
    }

    /// Nobody else: what is sent comes back on the same queue.
    pub fn loopback() -> Self {
        Self::new(Inner::Loopback)
    }

    fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// What the network is called in messages.
    pub fn name(&self) -> &str {
        match &*self.inner {
            Inner::Tap(tap) => tap.name(),
            Inner::Stream(_, Some(_)) => "passt",
            Inner::Stream(_, None) => "socket",
            Inner::Loopback => "loopback",
        }
    }

    /// Whether it takes frames whose checksums are missing or that are to be cut, and gives such.
    pub fn offloads(&self) -> bool {
        !matches!(&*self.inner, Inner::Stream(..))
    }

    /// Whether several threads may use it, each with a queue of its own.
    pub fn has_queues(&self) -> bool {
        !matches!(&*self.inner, Inner::Stream(..))
    }

    /// A queue of it. One index should not be used twice at a time; beyond the network's own
    /// queues, frames can be sent and none come.
    pub fn queue(&self, index: u16) -> io::Result<Queue> {
        Ok(Queue::new(match &*self.inner {
            Inner::Tap(tap) => Kind::Tap(Box::new(tap.queue(index)?)),
            Inner::Stream(stream, _) if index == 0 => Kind::stream(Arc::clone(stream))?,
            Inner::Stream(..) => return Err(io::ErrorKind::NotFound.into()),
            Inner::Loopback => Kind::Loopback(Loopback::default()),
        }))
    }
}
