// SPDX-License-Identifier: MIT OR Apache-2.0

//! A connection as a device: offered once, opened once.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use busway_vmbus::{ChannelHandler, Device, Fault, Offer, Opening};
use busway_wire::control::layout::OfferFlags;
use busway_wire::{Guid, hvsock};

use crate::relay::Relay;

/// Says when the guest has taken a connection of the host's; hangs up when it will not any more.
pub type Opened = Receiver<()>;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    service: Guid,
    instance: Guid,
    by_host: bool,
    /// Until the channel is opened.
    stream: Option<UnixStream>,
    opened: Option<SyncSender<()>>,
    /// What the host's end reads first.
    greeting: String,
    /// One of the connections that a limit counts.
    _counted: Option<Arc<()>>,
}

impl Connection {
    /// One that the guest has asked for, from `endpoint` to `service`.
    pub(crate) fn of_guest(
        endpoint: Guid,
        service: Guid,
        stream: UnixStream,
        counted: Arc<()>,
    ) -> Self {
        Self {
            service,
            instance: endpoint,
            by_host: false,
            stream: Some(stream),
            opened: None,
            greeting: String::new(),
            _counted: Some(counted),
        }
    }

    /// One to whatever listens on `port` in the guest. The guest sees it come from `host_port`,
    /// which no other connection has. When it is taken, the host's end reads `OK HOST_PORT`.
    pub fn of_host(port: u32, host_port: u32, stream: UnixStream) -> io::Result<(Self, Opened)> {
        stream.set_nonblocking(true)?;
        let (sender, opened) = sync_channel(1);
        let connection = Self {
            service: hvsock::service(port),
            instance: hvsock::service(host_port),
            by_host: true,
            stream: Some(stream),
            opened: Some(sender),
            greeting: format!("OK {host_port}\n"),
            _counted: None,
        };
        Ok((connection, opened))
    }

    /// The name of its device.
    pub const fn instance(&self) -> Guid {
        self.instance
    }
}

impl Device for Connection {
    fn offer(&self) -> Offer {
        let mut offer = Offer::new(self.service, self.instance);
        offer.flags = OfferFlags::TLNPI_PROVIDER_OFFER;
        offer.user_defined = hvsock::user_defined(self.by_host);
        offer
    }

    fn open(&mut self, _opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
        if let Some(opened) = self.opened.take() {
            // Who waits for it may have given up.
            let _ = opened.try_send(());
        }
        let mut stream = self.stream.take();
        // There is room for so little in a new socket; a host that has gone is noticed later.
        let _ = stream.as_mut().map(|stream| stream.write_all(self.greeting.as_bytes()));
        Ok(Box::new(Relay::new(stream)))
    }
}
