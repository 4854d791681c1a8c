// SPDX-License-Identifier: MIT OR Apache-2.0

//! The screen over VNC: RFB 3.8, raw pixels, keys and pointer.
//!
//! There is no password: whoever can connect sees the guest and types at it, so the address should
//! be one of this machine's own. The servers that crates.io has stand on an async runtime, which is
//! more than all of this; what a server needs of the protocol is a few messages, read by one thread
//! for each client, with a limit to each and to how long it may take.
//!
//! Source: RFC 6143.

mod client;
mod pixels;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use busway_video::Screen;
use log::{debug, warn};

use crate::input::Input;
use client::Client;

/// Clients at once; each may have a picture in memory on its way out.
const MAX_CLIENTS: usize = 8;

/// The address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "--display vnc={address}: cannot listen there ({reason}); give an address of this machine and a free port"
)]
pub struct VncError {
    address: SocketAddr,
    reason: io::Error,
}

/// Listens at `address`; each who connects sees `screen`, and has its keys and its pointer go to
/// `input`. Returns the address, in which the system has chosen the port if it was 0.
pub(super) fn start(
    address: SocketAddr,
    screen: Screen,
    input: Input,
) -> Result<SocketAddr, VncError> {
    let failed = |reason| VncError { address, reason };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let serve = move || accept(&listener, &screen, &input);
    thread::Builder::new().name("vnc".to_owned()).spawn(serve).map_err(failed)?;
    Ok(bound)
}

fn accept(listener: &TcpListener, screen: &Screen, input: &Input) {
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if clients.fetch_add(1, Ordering::SeqCst) >= MAX_CLIENTS {
            clients.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let client = Client::new(stream, screen.view(), screen.preferred(), input.clone());
        let count = Arc::clone(&clients);
        let serve = move || {
            if let Err(error) = client.serve() {
                debug!("vnc: a client is dropped: {error}");
            }
            count.fetch_sub(1, Ordering::SeqCst);
        };
        if let Err(error) = thread::Builder::new().name("vnc-client".to_owned()).spawn(serve) {
            clients.fetch_sub(1, Ordering::SeqCst);
            warn!("a VNC client could not be served: {error}");
        }
    }
}
