// SPDX-License-Identifier: MIT OR Apache-2.0

//! passt: the host's own sockets as a network, for users who may not have a TAP.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::io::FdFlags;

use crate::OpenError;

/// passt as it runs for one card. It ends with this.
#[derive(Debug)]
pub(crate) struct Passt {
    child: Child,
}

impl Passt {
    /// Starts the program; our end of its socket.
    pub(crate) fn start() -> Result<(Self, UnixStream), OpenError> {
        let failed = |source| OpenError::Passt { source };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        // The one descriptor that passes on to it.
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).map_err(|error| failed(error.into()))?;
        let mut command = Command::new("passt");
        command.args(["--foreground", "--quiet", "--fd"]).arg(theirs.as_raw_fd().to_string());
        let spawned = command.stdin(Stdio::null()).spawn();
        let child = spawned.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => OpenError::NoPasst,
            _ => OpenError::Passt { source },
        })?;
        Ok((Self { child }, ours))
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        // It ends by itself when its socket does; this makes sure.
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            log::debug!("passt does not end: {error}");
        }
    }
}
