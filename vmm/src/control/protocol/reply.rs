// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a client is told in the end.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::channels::{ChannelState, print_channels, print_counters};
use super::request::Addresses;
use crate::control::rings::Rings;
use crate::disks::Place;

/// The end of a request that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// There is nothing to say.
    Nothing,
    /// How the machine and its guest are.
    Status(Status),
    /// What has become of the machine.
    Machine {
        /// It stands still.
        paused: bool,
    },
    /// Pairs, of a list or the one asked for.
    Pairs {
        /// The pairs, in the guest's order.
        pairs: Vec<Pair>,
    },
    /// The addresses asked for.
    Addresses(Addresses),
    /// Network cards: all, or the one that the request was about.
    Nets {
        /// They, in the order in which they came.
        cards: Vec<Card>,
    },
    /// Disks and drives: all, or the one that the request was about.
    Disks {
        /// They, by their numbers.
        disks: Vec<DiskState>,
    },
    /// A picture was written.
    Screenshot {
        /// Where.
        file: PathBuf,
        /// Pixels of a line.
        width: u32,
        /// Lines.
        height: u32,
    },
    /// The open channels.
    Channels {
        /// By their numbers.
        channels: Vec<ChannelState>,
    },
    /// The same, for who asks what has gone over them.
    Counters {
        /// By their numbers.
        channels: Vec<ChannelState>,
    },
    /// What goes wrong: all rules, or those that were added.
    Faults {
        /// The rules that are asked, in order.
        rules: Vec<FaultRule>,
    },
    /// The rings of a channel.
    Ring(Box<Rings>),
    /// The guest's memory, in bytes.
    Balloon {
        /// A driver of the guest lends pages.
        ready: bool,
        /// What it should have.
        target: u64,
        /// What it has.
        memory: u64,
        /// What it could spare, as it last said.
        available: u64,
        /// What it has promised its programs, as it last said.
        committed: u64,
        /// Why it does not have what it should, if it does no more for that.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        shortfall: Option<Shortfall>,
    },
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Status(status) => status.fmt(f),
            Self::Machine { paused: true } => writeln!(f, "the machine is paused"),
            Self::Machine { paused: false } => writeln!(f, "the machine runs"),
            Self::Pairs { pairs } => {
                pairs.iter().try_for_each(|Pair { key, value }| writeln!(f, "{key:<28} {value}"))
            }
            Self::Addresses(addresses) => addresses.fmt(f),
            Self::Screenshot { file, width, height } => {
                writeln!(f, "{} ({width}x{height})", file.display())
            }
            Self::Nets { cards } => cards.iter().try_for_each(|card| write!(f, "{card}")),
            Self::Disks { disks } => disks.iter().try_for_each(|disk| write!(f, "{disk}")),
            Self::Channels { channels } => print_channels(f, channels),
            Self::Faults { rules } => rules.iter().try_for_each(|rule| write!(f, "{rule}")),
            Self::Ring(rings) => rings.fmt(f),
            Self::Counters { channels } => print_counters(f, channels),
            Self::Balloon { ready, target, memory, available, committed, shortfall } => {
                let mib = |bytes: u64| bytes >> 20;
                let why = match shortfall {
                    None => "",
                    Some(Shortfall::LendsNoMore) => "; the guest has no more to spare",
                    Some(Shortfall::TakesNoMore) => "; the guest takes no new memory",
                };
                let [memory, target] = [memory, target].map(|bytes| mib(*bytes));
                writeln!(f, "{:<12} {}", "driver", if *ready { "ready" } else { "none" })?;
                writeln!(f, "{:<12} {memory} MiB of {target} MiB wanted{why}", "memory")?;
                writeln!(f, "{:<12} {} MiB", "to spare", mib(*available))?;
                writeln!(f, "{:<12} {} MiB", "promised", mib(*committed))
            }
        }
    }
}

/// What a guest does not do for the memory that it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortfall {
    /// It has no more to lend.
    LendsNoMore,
    /// It takes no new memory.
    TakesNoMore,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// The value, as text.
    pub value: String,
}

/// A rule of a script of faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRule {
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: String,
    /// What its random numbers started from.
    pub seed: u64,
    /// How often it has fired.
    pub fired: u64,
}

impl fmt::Display for FaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, action, seed, fired } = self;
        writeln!(f, "{name:<24} {action:<14} fired {fired} times, seed {seed}")
    }
}

/// A disk, or a drive of discs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskState {
    /// The controller that it is on.
    #[serde(default)]
    pub controller: u8,
    /// Its number there (LUN).
    pub unit: u8,
    /// It is a drive of discs.
    pub drive: bool,
    /// Its serial number.
    pub serial: String,
    /// Bytes of the disk, or of the disc.
    pub bytes: u64,
    /// The image; none in a drive without a disc.
    pub file: Option<String>,
    /// Requests that the host could not do, and that wait for `resume` or `disk resume`.
    #[serde(default)]
    pub waiting: u32,
    /// Requests that go through in a second; none is no limit.
    #[serde(default)]
    pub iops: Option<NonZeroU64>,
    /// Bytes that do.
    #[serde(default)]
    pub bps: Option<NonZeroU64>,
    /// Requests that have waited because of these limits until now.
    #[serde(default)]
    pub delayed: u64,
}

impl fmt::Display for DiskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { controller, unit, drive, serial, bytes, file, waiting, iops, bps, delayed } =
            self;
        let place = Place { controller: *controller, lun: *unit }.to_string();
        let kind = if *drive { "drive" } else { "disk" };
        let file = file.as_deref().unwrap_or("no disc");
        write!(f, "{place:>5} {kind:<5} {serial:<16} {bytes:>14} B  {file}")?;
        for (limit, name) in [(iops, "iops"), (bps, "bps")] {
            if let Some(limit) = limit {
                write!(f, ", {name}={limit}")?;
            }
        }
        match delayed {
            0 => {}
            _ => write!(f, ", its limits have delayed {delayed} requests")?,
        }
        match waiting {
            0 => writeln!(f),
            _ => writeln!(f, ", {waiting} requests wait for 'resume'"),
        }
    }
}

/// How the machine and its guest are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The machine stands still.
    #[serde(default)]
    pub paused: bool,
    /// Each service that the guest is offered, and how far the two have come.
    pub services: Vec<Service>,
    /// Its network cards.
    #[serde(default)]
    pub cards: Vec<Card>,
    /// What the heartbeat says; none before its service is ready.
    pub heartbeat: Option<Heartbeat>,
    /// Times that the guest was told since its driver came.
    pub time_samples: u64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.paused {
            writeln!(f, "{:<12} paused", "machine")?;
        }
        for Service { name, state, .. } in &self.services {
            writeln!(f, "{name:<12} {state}")?;
        }
        for card in &self.cards {
            write!(f, "{card}")?;
        }
        if let Some(Heartbeat { alive, answered, missed, .. }) = &self.heartbeat {
            let state = if *alive { "alive" } else { "silent" };
            writeln!(f, "{:<12} {state}: {answered} beats answered, {missed} missed", "guest")?;
        }
        Ok(())
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name in `--integration`.
    pub name: String,
    /// The guest can be asked.
    pub ready: bool,
    /// The version of its messages, or what is missing.
    pub state: String,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its network, as `--net` said it.
    pub network: String,
    /// Its own address.
    pub mac: String,
    /// Its cable is in.
    pub link_up: bool,
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, mac, link_up } = self;
        let link = if *link_up { "up" } else { "down" };
        writeln!(f, "{network:<12} card {mac}, link {link}")
    }
}

/// A guest's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// It has answered the last beat.
    pub alive: bool,
    /// Beats answered since its driver came.
    pub answered: u64,
    /// Beats missed since the last that was answered.
    pub missed: u64,
    /// When it answered last, in milliseconds since 1970; 0 for never.
    pub last_ms: u64,
}
