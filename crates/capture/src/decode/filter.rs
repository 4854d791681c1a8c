// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which records are wanted.

use std::str::FromStr;

use busway_wire::{Guid, class};

use super::{Channel, Decoded};
use crate::layout::Kind;

/// Conditions, of which a record has to meet all. Without one, every record is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    /// A device by name, class or number.
    Class(&'static str),
    Guid(Guid),
    Number(u32),
    Kind(Kind),
    Side(&'static str),
    Unknown,
    /// Answers that took so many microseconds, or longer.
    Slow(u64),
}

/// What a filter may say, for error messages.
const FORM: &str =
    "channel=NAME|NUMBER|GUID, kind=KIND, side=guest|host, slower=MICROSECONDS or unknown";

/// A condition that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no condition: give {FORM}")]
pub struct FilterError(String);

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        text.split(',').map(condition).collect::<Result<_, _>>().map(Self)
    }
}

fn condition(text: &str) -> Result<Condition, FilterError> {
    let known = match text.split_once('=') {
        Some(("channel", value)) => channel(value),
        Some(("kind", value)) => {
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == value);
            kind.map(Condition::Kind)
        }
        Some(("side", "guest")) => Some(Condition::Side("guest")),
        Some(("side", "host")) => Some(Condition::Side("host")),
        Some(("slower", value)) => value.parse().ok().map(Condition::Slow),
        None if text == "unknown" => Some(Condition::Unknown),
        _ => None,
    };
    known.ok_or_else(|| FilterError(text.to_owned()))
}

fn channel(value: &str) -> Option<Condition> {
    if let Ok(number) = value.parse() {
        return Some(Condition::Number(number));
    }
    if value == "vsock" {
        return Some(Condition::Class("vsock"));
    }
    let name = class::ALL.iter().find(|(name, _)| *name == value);
    let name = name.map(|(name, _)| Condition::Class(name));
    name.or_else(|| value.parse().ok().map(Condition::Guid))
}

impl Filter {
    /// Whether this record is wanted.
    pub fn wants(&self, decoded: &Decoded) -> bool {
        self.0.iter().all(|condition| condition.is_met(decoded))
    }
}

impl Condition {
    fn is_met(&self, decoded: &Decoded) -> bool {
        let channel = |test: &dyn Fn(&Channel) -> bool| decoded.channel.as_ref().is_some_and(test);
        match self {
            Self::Class(name) => channel(&|channel| channel.class_name() == Some(name)),
            Self::Guid(class) => channel(&|channel| channel.class == *class),
            Self::Number(number) => channel(&|channel| channel.number == *number),
            Self::Kind(kind) => decoded.kind == Some(*kind),
            Self::Side(side) => decoded.side.name() == *side,
            Self::Unknown => !decoded.known,
            Self::Slow(micros) => {
                let slow = |latency| latency / 1000 >= *micros;
                decoded.answers.as_ref().is_some_and(|answered| slow(answered.latency))
            }
        }
    }
}
