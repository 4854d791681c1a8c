// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lines that need KVM and stock guests. `cargo xtask bench` brings this program to where those run,
//! with what its guests need in the working directory:
//!
//! ```text
//! vmlinuz initrd.cpio   a stock kernel and its initramfs
//! agent                 the program for inside of it
//! empty-vm              the least KVM program
//! qemu/                 QEMU, its libraries and its firmware
//! fio.cpio              fio and its libraries, for a guest
//! virtio.cpio           the modules for a virtio disk, for a guest: in /virtio by the order to load them
//! ```
//!
//! and `busway` on the PATH.

mod boot;
mod exits;
mod fio;
mod guest;
mod network;
mod process;
mod signal;
mod start;
#[expect(dead_code, clippy::unwrap_used, reason = "the TAP of the boot tests, in part")]
#[path = "../../../boot/tap.rs"]
mod tap;

use crate::Bench;

pub const BENCHES: &[(&str, Bench)] = &[
    ("vmm/start", start::run),
    ("guest/exits", exits::run),
    ("guest/fio", fio::run),
    ("guest/network", network::run),
    ("guest/signal", signal::run),
    ("guest/boot", boot::run),
];
