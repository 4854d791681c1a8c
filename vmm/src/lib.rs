// SPDX-License-Identifier: MIT OR Apache-2.0

//! A minimal VMM: it boots a stock guest on the Hyper-V and VMBus of the other crates.
//!
//! Only this package knows the operating system. In the order in which a machine comes about:
//!
//! ```text
//! cli, spec    what is wanted; checked in one place
//! run          from the first start to the end, resets included
//!   board      one life of the machine, put together from
//!     memory, boot, acpi     guest memory, and what a guest finds in it
//!     kvm                    /dev/kvm, and the only ioctls
//!     engine                 the seam: who implements Hyper-V, kvm::KvmEngine or
//!                            kvm::UserspaceEngine
//!     partition              what the guest asks of its hypervisor
//!     devices                serial port, clock, the ports that switch off and reset
//!     bus                    VMBus and its workers
//!     firmware               what a guest that starts in real mode calls
//!     vcpu, processors       a thread for each processor
//!   event_loop, timeout   the main thread: console, signals, what vCPUs report; and no sign of life
//!   integration, input, disks, nets, links, vsock, raw   what stands behind devices, and outlives resets
//!   control    the control socket and its client
//!   traffic, top   what goes over channels, and who looks on
//!   console    the host's end of the serial port
//! smoke        a run that is watched, and what is said of it
//! capture      what passes between guest and host, in a file
//! decode       what such a file says
//! faults       a script of what goes wrong between them
//! fuzz         guests under scripts of its own making
//! check        what this machine's KVM can do
//! ```
//!
//! Invariants: no type of kvm-ioctls or kvm-bindings, and no `unsafe`, outside of `kvm`; a reset
//! builds a new board, so nothing has to be reset piece by piece; nothing that a guest writes
//! reaches a panic, an allocation without a bound, or a log line without a limit.

pub mod acpi;
pub mod board;
pub mod boot;
pub mod bus;
pub mod capture;
pub mod check;
pub mod cli;
pub mod console;
pub mod control;
pub mod decode;
pub mod devices;
pub mod disks;
pub mod display;
pub mod engine;
pub mod event_loop;
pub mod faults;
pub mod firmware;
pub mod fuzz;
pub mod input;
pub mod integration;
pub mod kvm;
pub mod limited;
pub mod links;
pub mod memory;
pub mod nets;
pub mod partition;
pub mod pause;
pub mod processors;
pub mod raw;
pub mod run;
pub mod signals;
pub mod smoke;
pub mod spec;
pub mod strict;
pub mod timeout;
pub mod top;
pub mod traffic;
pub mod vcpu;
pub mod vsock;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. What a panicked thread left behind is used as it is: each state here is whole
/// between statements.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
