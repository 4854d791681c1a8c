// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway smoke`: boots an image that nobody changed, and judges from the host's side alone
//! whether its drivers work.
//!
//! ```text
//!   engine, bus, devices ──▶ Watch ──▶ Judge      which step was reached when
//!                              │         └─▶ Report ──▶ terminal, JSON, JUnit
//!                              └─(bell)─▶ event loop   all is seen: the guest may end
//! ```
//!
//! The judge is pure: sights and times go in, verdicts come out. What a step that was not reached
//! means for a guest is said in [`knowledge`] alone. A device joins by what it reports through
//! [`busway_vmbus::Io::reached`], and by its line in [`knowledge`] if its guests need one.

pub mod args;
pub mod expect;
pub mod judge;
pub mod junit;
pub mod knowledge;
pub mod outputs;
pub mod report;
pub mod watch;

use std::io;
use std::sync::Arc;

use crate::run::{self, RunError};
use crate::smoke::args::SmokeArgs;
use crate::smoke::outputs::{OutputError, Outputs};
use crate::smoke::report::Report;
use crate::smoke::watch::Watch;
use crate::spec::SpecError;

/// The image could not be tested.
#[derive(Debug, thiserror::Error)]
pub enum SmokeError {
    /// What is wanted is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A report cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The machine could not start, or the host failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The host has no eventfd.
    #[error("the host has no eventfd")]
    Host(#[source] io::Error),
}

/// Boots and judges; returns the program's exit status.
pub fn smoke(arguments: &SmokeArgs) -> Result<u8, SmokeError> {
    let spec = arguments.to_spec()?;
    let expected = arguments.expected()?;
    spec.check()?;
    let outputs = Outputs::open(&arguments.reports()?)?;
    let watch = Arc::new(Watch::new(expected, spec.timeout).map_err(SmokeError::Host)?);
    let machine = &arguments.machine;
    let result = run::run(&spec, &machine.kvm, machine.stats.as_deref(), Some(&watch));
    let report = Report::new(&spec, &watch.finish(), &result);
    if result.is_ok() {
        watch::say(report.to_string().trim_end());
    }
    outputs.write(&report)?;
    Ok(report.status(result?))
}
