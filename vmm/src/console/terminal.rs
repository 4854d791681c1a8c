// SPDX-License-Identifier: MIT OR Apache-2.0

//! The terminal in raw mode, and back again on every way out.
//!
//! The way back is taken when [`RawTerminal`] is dropped; a panic ends the process without that
//! in release builds, so a hook does it then. Signals that would end the process are events of
//! the [event loop](crate::event_loop).

use std::io::{self, IsTerminal};
use std::sync::{Mutex, Once, PoisonError, TryLockError};

use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

/// The state to go back to, while the terminal is raw.
static COOKED: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input's terminal, raw for as long as this lives.
pub(super) struct RawTerminal(());

impl RawTerminal {
    /// `None` if standard input is no terminal.
    pub(super) fn new() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let cooked = tcgetattr(&stdin)?;
        let mut raw = cooked.clone();
        raw.make_raw();
        // Our own messages end in a line feed alone.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        *COOKED.lock().unwrap_or_else(PoisonError::into_inner) = Some(cooked);
        restore_on_panic();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let mut cooked = match COOKED.try_lock() {
        Ok(cooked) => cooked,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        // Who holds it is about to do the same.
        Err(TryLockError::WouldBlock) => return,
    };
    if let Some(cooked) = cooked.take() {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &cooked);
    }
}

fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            report(info);
        }));
    });
}
