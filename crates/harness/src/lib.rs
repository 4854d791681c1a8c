// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rust tests that boot a kernel on busway: for whoever ships a kernel, an image or a driver of a VMBus
//! device, and wants to see it against a Hyper-V host in `cargo test`.
//!
//! A test describes a [`Machine`], starts it, and talks to it while it is [`Running`]: it waits for lines
//! of the serial port, runs commands in a shell there, asks busway by its control socket, has the host make mistakes, and looks at
//! the [`Report`] and the [`Trace`] when it has ended. The program `busway` is found on the PATH, or where `BUSWAY` says.
//!
//! ```no_run
//! # #[expect(clippy::test_attr_in_doctest)]
//! #[test]
//! fn my_driver_binds_and_lets_go() {
//!     let mut guest = busway_harness::Machine::new("bzImage")
//!         .initrd("rootfs.cpio")
//!         .flag("--disk").flag("scratch.img,temporary")
//!         .start();
//!     guest.wait_for("Please press Enter to activate this console");
//!     guest.type_in("\n");
//!     assert_eq!(guest.run("modprobe my_driver").status, 0);
//!     assert!(guest.run("lsmod").text.contains("my_driver"));
//!     assert_eq!(guest.run("rmmod my_driver && dmesg | grep -c WARNING").text.trim(), "0");
//!     guest.terminate();
//!     assert_eq!(guest.end().status, 0);
//! }
//! ```
//!
//! All of it panics where it cannot go on, as a test does that has failed, and says what the guest and
//! busway said last.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod control;
mod machine;
mod mender;
mod report;
mod running;
mod shell;
mod trace;

pub use control::Control;
pub use machine::Machine;
pub use report::Report;
pub use running::{Listener, Running};
pub use shell::Output;
pub use trace::Trace;
