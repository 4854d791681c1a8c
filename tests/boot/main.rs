// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stock guests on busway, on real KVM: `cargo xtask test` brings this program to a machine where that is
//! to be had, together with what it looks for in its working directory:
//!
//! ```text
//! images/NAME/{vmlinuz,initrd.cpio,release}   kernels; each test runs on each of them, by each engine
//! images/NAME/programs/PROGRAM.cpio           programs for that guest
//! agent                                       the program of tests/agent, linked statically
//! ipxe.lkrn                                   a boot loader with drivers of its own
//! data.img                                    the disk of `cargo xtask images`
//! done                                        names of tests that passed before a host crashed under them
//! ```
//!
//! and `busway` on the PATH. The tests themselves read like prose, in `detection`, `bus`, `storage`,
//! `network` and `machine`; the numbers in their comments are those of the acceptance list that the project keeps of what
//! a stock guest shows. `guest` is the machine that they talk about.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod balloon;
mod bus;
mod capture;
mod case;
mod daemons;
mod detection;
mod everything;
mod faults;
mod fuzz;
mod guest;
mod harness;
mod hotplug;
mod image;
mod input;
mod integration;
mod integrity;
mod ipxe;
mod kernel;
mod life_cycle;
mod loop_device;
mod machine;
mod network;
mod pause;
mod raw;
mod resources;
mod sleep;
mod small_storage;
mod smoke;
mod sockets;
mod storage;
mod strict;
mod survey;
mod tap;
mod terminal;
mod versions;
mod video;
mod vnc;

use std::fs;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use case::Test;
use kernel::Kernel;

/// The longest come first, lest one be alone at the end.
const TESTS: &[&[Test]] = &[
    integrity::TESTS,
    life_cycle::TESTS,
    machine::TESTS,
    detection::TESTS,
    bus::TESTS,
    storage::TESTS,
    hotplug::TESTS,
    network::TESTS,
    integration::TESTS,
    pause::TESTS,
    daemons::TESTS,
    sockets::TESTS,
    input::TESTS,
    sleep::TESTS,
    smoke::TESTS,
    harness::TESTS,
    balloon::TESTS,
    capture::TESTS,
    faults::TESTS,
    fuzz::TESTS,
    video::TESTS,
    raw::TESTS,
    versions::TESTS,
    everything::TESTS,
    strict::TESTS,
    ipxe::TESTS,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let filters = arguments.filter.take().unwrap_or_default();
    case::keep_panics();
    let kernels: &'static [Kernel] = Kernel::all().leak();
    let trials = kernels.iter().flat_map(|kernel| {
        TESTS
            .iter()
            .copied()
            .flatten()
            .map(|test| Trial::ignorable_test(test.name_on(kernel), || case::run(test, kernel)))
    });
    let done = fs::read_to_string("done").unwrap_or_default();
    let trials = trials.filter(|trial| {
        filters.split(',').any(|part| trial.name().contains(part))
            && !done.lines().any(|name| name == trial.name())
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if !arguments.list {
        case::print_times();
    }
    conclusion.exit_code()
}
