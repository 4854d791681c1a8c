// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why a network cannot be had, and what helps.

use std::io;
use std::path::PathBuf;

/// A network cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No interface has that name.
    #[error(
        "there is no interface '{name}': create it with `ip tuntap add {name} mode tap user $USER`"
    )]
    NoTap {
        /// The name.
        name: String,
    },
    /// An interface of another kind.
    #[error(
        "'{name}' is no TAP: give one that `ip tuntap add NAME mode tap user $USER` has created"
    )]
    NotTap {
        /// The name.
        name: String,
    },
    /// The TAP is somebody else's.
    #[error("the TAP '{name}' may not be opened: create it with `user $USER`, or run as root")]
    Permission {
        /// The name.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Somebody has it.
    #[error(
        "the TAP '{name}' is in use: give each machine its own, or create it with `multi_queue`"
    )]
    Busy {
        /// The name.
        name: String,
    },
    /// TAPs are for root alone here.
    #[error("/dev/net/tun may not be opened: `chmod 0666 /dev/net/tun`, or use `passt`")]
    Tun {
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel has no TAPs for us.
    #[error("/dev/net/tun cannot be opened: load the module tun, or use `passt`")]
    NoTun {
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel does not do what is needed.
    #[error("the TAP '{name}' cannot be used; a kernel of 3.8 or later can: {call}")]
    Tap {
        /// The name.
        name: String,
        /// What was asked of the kernel.
        call: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Nobody listens there.
    #[error("nothing answers at {path}: start the program behind that socket first", path = path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// passt is not there.
    #[error("passt is not installed: `apt install passt`, or use a TAP")]
    NoPasst,
    /// passt does not start.
    #[error("passt does not start; `passt --foreground` may say why")]
    Passt {
        /// The system's reason.
        source: io::Error,
    },
}
