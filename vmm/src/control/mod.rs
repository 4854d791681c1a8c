// SPDX-License-Identifier: MIT OR Apache-2.0

//! The control socket: a running machine is asked, and told what to do.
//!
//! One JSON object a line, both ways; [`protocol`] defines them all. `busway run --control` is the
//! [`server`], `busway ctl` a [`client`] for people and scripts.

pub mod client;
mod conversation;
mod disks;
mod faults;
mod nets;
pub mod protocol;
pub mod rings;
pub mod server;

use std::error::Error;
use std::iter;
use std::sync::Arc;

use busway_balloon::Balloon;

use crate::bus::BusLine;
use crate::disks::Disks;
use crate::display::Display;
use crate::faults::Faults;
use crate::input::Input;
use crate::integration::Integration;
use crate::nets::Nets;
use crate::pause::Pause;
use crate::traffic::Traffic;

/// What requests are about.
#[derive(Clone)]
pub struct Handles {
    /// Services of the guest's.
    pub integration: Integration,
    /// Keyboard and mouse.
    pub input: Input,
    /// Network cards, and their cables.
    pub nets: Nets,
    /// Disks, and drives of discs.
    pub disks: Disks,
    /// The screen, if there is one.
    pub display: Option<Display>,
    /// The balloon, if there is one.
    pub balloon: Option<Elastic>,
    /// What goes over its channels.
    pub traffic: Arc<Traffic>,
    /// What goes wrong on it.
    pub faults: Arc<Faults>,
    /// The bus.
    pub bus: BusLine,
    /// Whether it all stands still.
    pub pause: Pause,
}

/// A machine whose memory changes.
#[derive(Clone)]
pub struct Elastic {
    /// What changes it.
    pub balloon: Balloon,
    /// What it starts with, in bytes.
    pub start: u64,
    /// The most that it can have, in bytes.
    pub max: u64,
}

/// An error with its reasons, in one line.
fn one_line(error: &(dyn Error + 'static)) -> String {
    let reasons = iter::successors(Some(error), |error| (*error).source());
    reasons.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
