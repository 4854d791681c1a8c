// SPDX-License-Identifier: MIT OR Apache-2.0

//! A minimal VMM: it boots a stock guest on the Hyper-V and VMBus of the other crates.
//!
//! Only this package knows the operating system. [`run::run`] is the whole program but for its
//! command line; [`board`] is what a machine consists of.

pub mod acpi;
pub mod board;
pub mod boot;
pub mod bus;
pub mod check;
pub mod cli;
pub mod console;
pub mod devices;
pub mod disks;
pub mod engine;
pub mod event_loop;
pub mod kvm;
pub mod limited;
pub mod memory;
pub mod partition;
pub mod run;
pub mod signals;
pub mod spec;
pub mod vcpu;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. What a panicked thread left behind is used as it is: each state here is whole
/// between statements.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
