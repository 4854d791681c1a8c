// SPDX-License-Identifier: MIT OR Apache-2.0

//! What records mean, and which of them belong together.

mod filter;
mod json;
mod pairs;
mod payload;
mod records;

#[cfg(test)]
mod tests;

use std::fmt;

use busway_wire::{Guid, class};

pub use filter::{Filter, FilterError};
pub use records::msr_name;

use crate::layout::{HOST, Kind, NONE};
use crate::reader::Record;
use pairs::{Asked, Pairs};

/// Whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The guest's.
    Guest,
    /// The host's.
    Host,
}

impl Side {
    /// As filters and JSON spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Host => "host",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Guest => Self::Host,
            Self::Host => Self::Guest,
        }
    }
}

/// The channel of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel {
    /// The host's number of it.
    pub number: u32,
    /// 0 for a primary channel.
    pub subchannel: u16,
    /// Which driver is meant.
    pub class: Guid,
}

impl Channel {
    /// What its class is called, if it is known.
    pub fn class_name(&self) -> Option<&'static str> {
        match busway_wire::hvsock::port(self.class) {
            Some(_) => Some("vsock"),
            None => class::name(self.class),
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class_name() {
            Some(name) => f.write_str(name)?,
            None => self.class.fmt(f)?,
        }
        write!(f, "#{}", self.number)?;
        match self.subchannel {
            0 => Ok(()),
            index => write!(f, ".{index}"),
        }
    }
}

/// What was said, and whether all of it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    text: String,
    known: bool,
}

impl Said {
    fn known(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), known: true }
    }

    fn unknown(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), known: false }
    }

    fn of(text: impl fmt::Display, known: bool) -> Self {
        Self { text: text.to_string(), known }
    }
}

/// The request that a record answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The request's number.
    pub request: u64,
    /// What it was, in short.
    pub name: String,
    /// How long it took, in nanoseconds.
    pub latency: u64,
}

/// A record, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Its place in the file, from 1 on.
    pub number: u64,
    /// Nanoseconds since the first record of the file.
    pub time: u64,
    /// What it is about; `None` for a kind of a newer busway.
    pub kind: Option<Kind>,
    /// Whose doing it was.
    pub side: Side,
    /// The VP that is concerned.
    pub vp: Option<u32>,
    /// The channel that is.
    pub channel: Option<Channel>,
    /// What it says.
    pub text: String,
    /// The records that were lost here.
    pub lost: u64,
    /// All of it was understood.
    pub known: bool,
    /// Not all of it was kept.
    pub cut: bool,
    /// What it answers.
    pub answers: Option<Answered>,
}

/// Explains records, in their order.
#[derive(Default)]
pub struct Decoder {
    first: Option<u64>,
    pairs: Pairs,
}

impl Decoder {
    /// Explains the next record.
    pub fn decode(&mut self, record: &Record) -> Decoded {
        let header = &record.header;
        let first = *self.first.get_or_insert(record.time);
        let time = record.time.saturating_sub(first);
        let side = if header.side == HOST { Side::Host } else { Side::Guest };
        let some = |number| (number != NONE).then_some(number);
        let channel = some(header.channel).map(|number| Channel {
            number,
            subchannel: header.subchannel,
            class: Guid(header.class),
        });
        let kind = Kind::from_number(header.kind);
        let cut = record.is_cut();
        let mut about = About { record, side, channel, time, answers: None };
        let said = match kind {
            Some(kind) => records::explain(kind, &mut about, &mut self.pairs),
            None => Said::unknown(format!("a record of kind {}", header.kind)),
        };
        let answers = about.answers.map(|(asked, latency)| {
            let Asked { number: request, name, .. } = asked;
            Answered { request, name, latency }
        });
        Decoded {
            number: record.number,
            time,
            kind,
            side,
            vp: some(header.vp),
            channel,
            text: said.text,
            lost: if kind == Some(Kind::Lost) { records::lost(record) } else { 0 },
            // What was not kept cannot be understood, and that is no shortcoming.
            known: said.known || cut,
            cut,
            answers,
        }
    }
}

/// A record on its way to an explanation.
struct About<'a> {
    record: &'a Record,
    side: Side,
    channel: Option<Channel>,
    time: u64,
    answers: Option<(Asked, u64)>,
}

impl About<'_> {
    /// The channel's number, for pairs.
    fn channel(&self) -> u32 {
        self.channel.map_or(NONE, |channel| channel.number)
    }
}

impl fmt::Display for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.time / 1_000_000_000, self.time % 1_000_000_000);
        let side = match self.side {
            Side::Guest => "guest>",
            Side::Host => "<host ",
        };
        write!(f, "{seconds:>5}.{:06} {side} ", nanos / 1000)?;
        match (self.channel, self.vp) {
            (Some(channel), _) => write!(f, "{:<14}", channel.to_string())?,
            (None, Some(vp)) => write!(f, "{:<14}", format!("vp{vp}"))?,
            (None, None) => write!(f, "{:<14}", "bus")?,
        }
        let kind = self.kind.map_or("?", Kind::name);
        write!(f, " {kind:<9} {}", self.text)?;
        if !self.known {
            f.write_str(" (unknown)")?;
        }
        if self.cut {
            f.write_str(" (cut)")?;
        }
        if let Some(Answered { request, latency, .. }) = &self.answers {
            let (micros, nanos) = (latency / 1000, latency % 1000);
            write!(f, " [{micros}.{nanos:03} us after {request}]")?;
        }
        Ok(())
    }
}
