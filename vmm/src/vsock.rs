// SPDX-License-Identifier: MIT OR Apache-2.0

//! The host's own connections to the guest, and the directory that the guest's go to.
//!
//! Names and lines are those of other machines' virtio sockets (Firecracker, Cloud Hypervisor): a
//! program of the host connects to `DIR/vsock`, says `CONNECT PORT` and reads `OK HOST_PORT` when
//! the guest has taken the connection; one that the guest connects to listens on `DIR/vsock_PORT`.

use std::fs;
use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use busway_hvsock::{Connection, Directory};
use log::{debug, warn};

use crate::bus::{News, Port, VmBus};
use crate::control::server::listen;
use crate::lock;

/// How long a program has to say `CONNECT PORT`, and the guest to take the connection. A guest in
/// which nobody listens does not say so.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest line: `CONNECT 4294967295` and its end.
const MAX_LINE: u64 = 20;

/// Ports of the host's ends: those that programs are given elsewhere too.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--vsock: cannot {what} {path}; give a directory that is yours", path = path.display())]
pub struct VsockError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The sockets of a machine, which outlive its resets. Dropping it removes the host's.
pub struct Vsock {
    directory: Directory,
    /// The bus of this life.
    port: Arc<Mutex<Option<Arc<Port>>>>,
}

impl Vsock {
    /// Listens in `directory`, which is made if it is not there.
    pub fn start(directory: &Path) -> Result<Self, VsockError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| VsockError { what, path, source }
        };
        fs::create_dir_all(directory).map_err(failed("make", directory))?;
        let place = Directory::new(directory);
        let path = place.to_guest();
        let listener = listen(&path).map_err(failed("listen on", &path))?;
        let vsock = Self { directory: place, port: Arc::default() };
        let port = Arc::clone(&vsock.port);
        let accept = move || accept(&listener, &port);
        let started = thread::Builder::new().name("vsock".to_owned()).spawn(accept);
        started.map_err(failed("serve", &path))?;
        Ok(vsock)
    }

    /// Lets the guest of `bus` make connections, and the host to it.
    pub fn attach(&self, bus: &mut VmBus) {
        bus.set_connector(Box::new(self.directory.clone()));
        *lock(&self.port) = Some(Arc::clone(bus.port()));
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.directory.to_guest());
    }
}

fn accept(listener: &UnixListener, port: &Arc<Mutex<Option<Arc<Port>>>>) {
    static HOST_PORT: AtomicU32 = AtomicU32::new(FIRST_HOST_PORT);
    for stream in listener.incoming() {
        let (Ok(stream), Some(port)) = (stream, lock(port).clone()) else {
            continue;
        };
        let host_port = HOST_PORT.fetch_add(1, Ordering::Relaxed);
        let connect = move || {
            if let Err(error) = connect(stream, host_port, &port) {
                debug!("a connection to the guest does not come about: {error}");
            }
        };
        if let Err(error) = thread::Builder::new().name("connect".to_owned()).spawn(connect) {
            warn!("a connection to the guest cannot be made: {error}");
        }
    }
}

/// Makes one connection. If the guest does not take it, the host's end is closed without a word.
fn connect(stream: UnixStream, host_port: u32, port: &Port) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let guest_port = requested(&stream)?;
    let (connection, opened) = Connection::of_host(guest_port, host_port, stream)?;
    let instance = connection.instance();
    port.send(News::Add(Box::new(connection)));
    if opened.recv_timeout(PATIENCE).is_err() {
        port.send(News::RemoveUnopened(instance));
    }
    Ok(())
}

/// The port that the first line asks for. Not a byte of what follows is read.
fn requested(mut stream: &UnixStream) -> io::Result<u32> {
    let mut line = Vec::new();
    while line.len() as u64 <= MAX_LINE {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        match byte {
            [b'\n'] => break,
            [byte] => line.push(byte),
        }
    }
    let text = str::from_utf8(&line).ok().and_then(|line| line.strip_prefix("CONNECT "));
    let port = text.and_then(|port| port.trim_end().parse().ok());
    port.ok_or_else(|| io::Error::other("the first line is not CONNECT PORT"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_first_line_names_the_port_and_nothing_behind_it_is_lost() {
        let asked = |line: &[u8]| {
            let (mut program, ours) = UnixStream::pair().unwrap();
            program.write_all(line).unwrap();
            drop(program);
            let port = requested(&ours).ok();
            let mut rest = Vec::new();
            (&ours).read_to_end(&mut rest).unwrap();
            (port, rest)
        };
        assert_eq!(asked(b"CONNECT 1024\nhello"), (Some(1024), b"hello".to_vec()));
        assert_eq!(asked(b"CONNECT 4294967295\r\n").0, Some(u32::MAX));
        for wrong in [
            &b"CONNECT -1\n"[..],
            b"GET / HTTP/1.1\r\n",
            b"CONNECT 4294967296\n",
            b"",
            b"CONNECT 5",
        ] {
            assert_eq!(asked(wrong).0, None);
        }
    }
}
