// SPDX-License-Identifier: MIT OR Apache-2.0

//! A rule that was broken, by what, and how.

use std::fmt;

use busway_vmbus::Place;
use busway_wire::class;

use crate::Rule;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub rule: Rule,
    /// By what.
    pub at: At,
    /// Which field of it.
    pub field: &'static str,
    /// What the field held.
    pub value: String,
    /// What it should have held.
    pub expected: String,
}

/// A message, a packet or a signal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// The channel's device, by its class; `None` for a channel message.
    pub device: Option<String>,
    /// The host's number for the channel, as captures and `busway ctl` show it.
    pub channel: Option<u32>,
    /// 0 for a device's first channel.
    pub subchannel: u16,
    /// The packet's.
    pub transaction_id: Option<u64>,
    /// What it is.
    pub kind: String,
}

impl At {
    pub(crate) fn message(kind: impl fmt::Display) -> Self {
        Self { kind: kind.to_string(), ..Self::default() }
    }

    pub(crate) fn on(place: &Place, transaction_id: Option<u64>, kind: impl fmt::Display) -> Self {
        let device = class::name(place.class);
        let device = device.map_or_else(|| place.class.to_string(), str::to_owned);
        let (device, channel) = (Some(device), Some(place.key.number()));
        let (subchannel, kind) = (place.subchannel, kind.to_string());
        Self { device, channel, subchannel, transaction_id, kind }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(device), Some(channel)) = (&self.device, self.channel) {
            write!(f, "{device}, channel {channel}: ")?;
        }
        f.write_str(&self.kind)?;
        match self.transaction_id {
            Some(id) => write!(f, " id={id:#x}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, at, field, value, expected } = self;
        let (name, source) = (rule.name(), rule.source());
        write!(f, "{name}: {at}: {field} is {value}, expected {expected} ({source})")
    }
}
