// SPDX-License-Identifier: MIT OR Apache-2.0

//! Signals that end the program, as events.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::register_signal_handler;

static CAUGHT: AtomicI32 = AtomicI32::new(0);
static BELL: OnceLock<EventFd> = OnceLock::new();

/// From now on, a signal that would end the program rings the eventfd that this returns.
pub fn catch() -> io::Result<EventFd> {
    let bell = EventFd::new(EFD_NONBLOCK)?;
    let ours = bell.try_clone()?;
    // A second caller shares the first one's bell.
    let bell = match BELL.set(ours) {
        Ok(()) => bell,
        Err(_) => BELL.get().expect("it was set").try_clone()?,
    };
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        register_signal_handler(signal, on_signal)?;
    }
    Ok(bell)
}

/// The signal that rang, once.
pub fn caught() -> Option<i32> {
    match CAUGHT.swap(0, Ordering::SeqCst) {
        0 => None,
        signal => Some(signal),
    }
}

/// Does only what a signal handler may: a store and a write.
extern "C" fn on_signal(
    signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    CAUGHT.store(signal, Ordering::SeqCst);
    if let Some(bell) = BELL.get() {
        let _ = bell.write(1);
    }
}
