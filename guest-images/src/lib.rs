// SPDX-License-Identifier: MIT OR Apache-2.0

//! Guests for tests and demonstrations: which kernels ([`manifest`]), how they are fetched from Debian's
//! package suites without root and without touching the machine's own apt state ([`apt`], [`store`]),
//! the initramfs they boot into ([`initrd`], [`modules`], [`programs`], [`cpio`]) and a disk ([`disk`]).
//!
//! Nothing here knows of VMBus hosts. The lab's own kernel and QEMU come from here too ([`tree`]).

pub mod apt;
pub mod cpio;
pub mod disk;
pub mod initrd;
pub mod manifest;
pub mod modules;
pub mod programs;
pub mod store;
pub mod tree;

mod command;
