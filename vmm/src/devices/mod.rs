// SPDX-License-Identifier: MIT OR Apache-2.0

//! The few PC devices that a kernel cannot do without.

pub mod cmos;
pub mod pci;
pub mod ports;
pub mod serial;
