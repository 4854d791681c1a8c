// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where the guest's connections go: a directory with a unix socket for each port.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use busway_vmbus::{Connector, Device};
use busway_wire::{Guid, hvsock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::connection::Connection;

/// Connections of a guest's own at once. Each has a thread on the host, and a relid of 2047.
const MAX_CONNECTIONS: usize = 1024;

/// A directory of sockets.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    /// Cloned for each connection.
    count: Arc<()>,
}

/// The guest is refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("service {0} has no port")]
    NoPort(Guid),
    #[error("{MAX_CONNECTIONS} connections are open")]
    TooMany,
    #[error("{path}: {source}", path = path.display())]
    Connect { path: PathBuf, source: io::Error },
}

impl Directory {
    /// The directory at `path`. What does not listen there when a guest connects is refused then.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), count: Arc::new(()) }
    }

    /// The socket on which the host asks for connections to the guest.
    pub fn to_guest(&self) -> PathBuf {
        self.path.join("vsock")
    }

    /// The socket for connections of the guest's to `port`.
    pub fn to_host(&self, port: u32) -> PathBuf {
        self.path.join(format!("vsock_{port}"))
    }

    fn open(&self, endpoint: Guid, service: Guid) -> Result<Connection, Refused> {
        let port = hvsock::port(service).ok_or(Refused::NoPort(service))?;
        if Arc::strong_count(&self.count) > MAX_CONNECTIONS {
            return Err(Refused::TooMany);
        }
        let path = self.to_host(port);
        let stream = dial(&path).map_err(|source| Refused::Connect { path, source })?;
        Ok(Connection::of_guest(endpoint, service, stream, Arc::clone(&self.count)))
    }
}

impl Connector for Directory {
    fn connect(&mut self, endpoint: Guid, service: Guid) -> Option<Box<dyn Device>> {
        match self.open(endpoint, service) {
            Ok(connection) => Some(Box::new(connection)),
            Err(refused) => {
                log::debug!("the guest's connection is refused: {refused}");
                None
            }
        }
    }
}

/// Connects without waiting: a listener that accepts nobody must not stop the bus.
fn dial(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn who_does_not_listen_or_accept_is_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(place.path());
        let mut connect = |port| directory.connect(hvsock::service(5), hvsock::service(port));
        assert!(connect(7).is_none());
        let listener = UnixListener::bind(place.path().join("vsock_7")).unwrap();
        let device = connect(7).unwrap();
        assert_eq!(device.offer().interface_type, hvsock::service(7));
        assert_eq!(device.offer().instance, hvsock::service(5));
        listener.accept().unwrap();
        // Until nobody more fits into the listener's queue.
        let mut waiting = Vec::new();
        while let Some(device) = connect(7) {
            waiting.push(device);
            assert!(waiting.len() <= MAX_CONNECTIONS);
        }
        waiting.clear();
        drop(listener);
        assert!(connect(7).is_none());
    }

    #[test]
    fn a_guest_has_so_many_and_no_more() {
        let place = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(place.path());
        let listener = UnixListener::bind(place.path().join("vsock_7")).unwrap();
        let mut open = Vec::new();
        while let Some(device) = directory.connect(hvsock::service(5), hvsock::service(7)) {
            let (host_end, _) = listener.accept().unwrap();
            open.push(device);
            drop(host_end);
        }
        assert_eq!(open.len(), MAX_CONNECTIONS);
        open.pop();
        assert!(directory.connect(hvsock::service(5), hvsock::service(7)).is_some());
    }
}
