// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is done when a rule fires.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A packet or message goes no further.
    Drop,
    /// A packet of the host's goes into the ring so much later; others overtake it.
    Delay(Span),
    /// A packet of the host's, or a message, goes twice.
    Duplicate,
    /// A packet of the host's keeps so many bytes of its payload.
    Truncate(usize),
    /// Bits of a byte in the payload of a packet of the host's become others.
    Flip(Flip),
    /// Bytes in the payload of a packet of the host's are replaced.
    Set(Write),
    /// Bytes between the descriptor and the payload of a packet of the host's are replaced: the ranges
    /// of transfer pages.
    SetHeader(Write),
    /// Bytes of what a packet of transfer pages refers to are replaced: of an RNDIS message.
    SetData(Write),
    /// A packet of the host's goes behind the next one, or a second later if none comes.
    Reorder,
    /// A packet of the host's names this transaction.
    TransactionId(u64),
    /// A packet passes, and the device is taken from the guest.
    Rescind,
    /// A packet passes, and the device is taken from the guest, and offered again so much later.
    RescindFor(Span),
    /// A packet passes, and those of the guest behind it stay in the ring so long.
    Pause(Span),
    /// An interrupt that the guest should have is not raised.
    NoInterrupt,
    /// It is raised so much later.
    InterruptLate(Span),
    /// One is raised that the guest should not have.
    Interrupt,
    /// OPEN_CHANNEL or GPADL_HEADER is answered with a failure.
    Refuse,
}

/// A byte of a payload, and the bits of it that change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flip {
    /// Bytes from the start of the payload.
    pub at: usize,
    /// The bits.
    pub mask: u8,
}

/// Bytes of a payload or header, and what they become.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// Bytes from its start.
    pub at: usize,
    /// What stands there; what ends before does not grow.
    pub bytes: Vec<u8>,
}

impl Write {
    fn over(&self, place: &mut [u8]) {
        let place = place.get_mut(self.at..).unwrap_or_default();
        for (byte, new) in place.iter_mut().zip(&self.bytes) {
            *byte = *new;
        }
    }
}

/// A time, as scripts write it: `200ms`, `1.5s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span(pub Duration);

/// The longest that anything is put off.
const LONGEST: f64 = 86_400.0;

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (number, unit) = match text.strip_suffix("ms") {
            Some(number) => (number, 0.001),
            None => (text.strip_suffix('s').unwrap_or_default(), 1.0),
        };
        let seconds = number.parse::<f64>().map(|number| number * unit);
        match seconds {
            Ok(seconds) if (0.0..=LONGEST).contains(&seconds) => {
                Ok(Self(Duration::from_secs_f64(seconds)))
            }
            _ => Err(de::Error::custom(format!(
                "{text:?} is no time: give milliseconds or seconds up to a day, as 200ms or 1.5s"
            ))),
        }
    }
}

impl Action {
    /// The name that scripts have for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Delay(_) => "delay",
            Self::Duplicate => "duplicate",
            Self::Truncate(_) => "truncate",
            Self::Flip(_) => "flip",
            Self::Set(_) => "set",
            Self::SetHeader(_) => "set-header",
            Self::SetData(_) => "set-data",
            Self::Reorder => "reorder",
            Self::TransactionId(_) => "transaction-id",
            Self::Rescind => "rescind",
            Self::RescindFor(_) => "rescind-for",
            Self::Pause(_) => "pause",
            Self::NoInterrupt => "no-interrupt",
            Self::InterruptLate(_) => "interrupt-late",
            Self::Interrupt => "interrupt",
            Self::Refuse => "refuse",
        }
    }

    /// Makes of a packet what the action makes of it; nothing if the action is of another kind.
    /// Neither header nor payload grows.
    pub fn edit(&self, transaction_id: &mut u64, header: &mut [u8], payload: &mut Vec<u8>) {
        match self {
            Self::Truncate(len) => payload.truncate(*len),
            Self::Flip(Flip { at, mask }) => {
                if let Some(byte) = payload.get_mut(*at) {
                    *byte ^= mask;
                }
            }
            Self::Set(write) => write.over(payload),
            Self::SetHeader(write) => write.over(header),
            Self::TransactionId(id) => *transaction_id = *id,
            _ => {}
        }
    }
}
