// SPDX-License-Identifier: MIT OR Apache-2.0

//! Scripts: TOML in, rules that can be played out.

use std::ops::Range;
use std::time::Duration;

use busway_wire::control::MessageType;
use busway_wire::{Guid, class};
use serde::Deserialize;
use toml::Spanned;

use crate::action::{Action, Span};
use crate::operation;
use crate::rule::{End, Often, PacketKind, Prefix, Rule, Subject};

/// A script that has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// What random numbers start from.
    pub seed: u64,
    /// The rules, in the order in which they are asked.
    pub rules: Vec<Rule>,
    /// The first so many of them are asked no more.
    pub retired: usize,
}

/// A script that cannot be played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there, and what would be right.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    seed: Option<u64>,
    #[serde(default)]
    rule: Vec<Spanned<Written>>,
}

/// A rule as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    device: Option<Spanned<String>>,
    channel: Option<u32>,
    from: Option<End>,
    packet: Option<PacketKind>,
    payload: Option<Prefix>,
    request: Option<Prefix>,
    operation: Option<Spanned<String>>,
    message: Option<Spanned<String>>,
    nth: Option<u64>,
    every: Option<u64>,
    probability: Option<f64>,
    times: Option<u64>,
    #[serde(default)]
    after: Span,
    #[serde(rename = "do")]
    action: Spanned<Action>,
}

/// A place in the file, and what is wrong there.
type Wrong = (Range<usize>, String);

impl Script {
    /// Reads a script. Random numbers start from `seed`, or else from what the file says, or else
    /// from `chance`.
    pub fn parse(text: &str, seed: Option<u64>, chance: u64) -> Result<Self, ScriptError> {
        let at = |span: Range<usize>, reason: String| {
            let before = text.as_bytes().iter().take(span.start);
            let line = 1 + before.filter(|byte| **byte == b'\n').count();
            ScriptError { line, reason: reason.replace('\n', " ") }
        };
        let file: File = toml::from_str(text)
            .map_err(|error| at(error.span().unwrap_or_default(), error.message().to_owned()))?;
        if file.rule.is_empty() {
            return Err(at(0..0, "there is no [[rule]]".to_owned()));
        }
        let seed = seed.or(file.seed).unwrap_or(chance);
        let rules = (1..).zip(file.rule).map(|(number, rule)| {
            let span = rule.span();
            let rule = rule.into_inner().checked(number, seed, span);
            rule.map_err(|(span, reason)| at(span, reason))
        });
        Ok(Self { seed, rules: rules.collect::<Result<_, _>>()?, retired: 0 })
    }

    /// One without rules.
    pub const fn empty() -> Self {
        Self { seed: 0, rules: Vec::new(), retired: 0 }
    }

    /// The rules that are asked.
    pub fn active(&self) -> impl Iterator<Item = (usize, &Rule)> {
        self.rules.iter().enumerate().skip(self.retired)
    }
}

impl Written {
    fn checked(self, number: usize, seed: u64, span: Range<usize>) -> Result<Rule, Wrong> {
        let wrong = |reason: &str| Err((span.clone(), reason.to_owned()));
        let class = self.device.as_ref().map(class_of).transpose()?;
        let often = match (self.nth, self.every, self.probability) {
            (None, None, None) => Often::Every(1),
            (Some(nth @ 1..), None, None) => Often::Nth(nth),
            (None, Some(every @ 1..), None) => Often::Every(every),
            (None, None, Some(chance)) if (0.0..=1.0).contains(&chance) => {
                Often::Probability(chance)
            }
            (None, None, Some(_)) => return wrong("probability is 0.0 to 1.0"),
            (Some(0), None, None) | (None, Some(0), None) => {
                return wrong("nth and every count from 1");
            }
            _ => return wrong("give one of nth, every and probability"),
        };
        let subject = self.subject(class, &span)?;
        check_action(&subject, &self.action)?;
        Ok(Rule {
            name: self.name.unwrap_or_else(|| format!("rule {number}")),
            seed,
            class,
            channel: self.channel,
            subject,
            often,
            times: self.times.unwrap_or(u64::MAX),
            after: self.after.0,
            action: self.action.into_inner(),
        })
    }

    /// What the rule is about.
    fn subject(&self, class: Option<Guid>, span: &Range<usize>) -> Result<Subject, Wrong> {
        let wrong = |reason: String| Err((span.clone(), reason));
        let has_packet = self.from.is_some()
            || self.packet.is_some()
            || self.payload.is_some()
            || self.request.is_some()
            || self.operation.is_some();
        let action = self.action.get_ref();
        let due = match action {
            Action::NoInterrupt | Action::InterruptLate(_) => Some(true),
            Action::Interrupt => Some(false),
            _ => None,
        };
        if let Some(due) = due {
            if has_packet || self.message.is_some() {
                return wrong(format!(
                    "{} is about interrupts: leave out from, packet, payload, request, operation and message",
                    action.name()
                ));
            }
            return Ok(Subject::Interrupt { due });
        }
        if let Some(name) = &self.message {
            if has_packet || self.channel.is_some() {
                return wrong(
                    "a rule about messages has no from, packet, payload, request, operation or channel"
                        .to_owned(),
                );
            }
            return self.message_of(name).map(Subject::Message);
        }
        let Some(from) = self.from else {
            return wrong(
                "give from = \"host\" or from = \"guest\" for packets, or message = \"…\""
                    .to_owned(),
            );
        };
        let mut payload = Vec::from_iter(self.payload.clone());
        let mut request = Vec::from_iter(self.request.clone());
        if let Some(name) = &self.operation {
            let found = operation::find(class, from, name.get_ref());
            let found = found.map_err(|reason| (name.span(), reason))?;
            payload.extend(found.payload);
            request.extend(found.request);
        }
        let answers =
            from == End::Host && self.packet.is_none_or(|is| is == PacketKind::Completion);
        if !request.is_empty() && !answers {
            return wrong(
                "request is about answers: it goes with from = \"host\" and no packet but completion"
                    .to_owned(),
            );
        }
        Ok(Subject::Packet { from, kind: self.packet, payload, request })
    }

    fn message_of(&self, name: &Spanned<String>) -> Result<MessageType, Wrong> {
        let is_meant = |kind: &&MessageType| kind.name() == Some(name.get_ref().as_str());
        let Some(&kind) = MessageType::KNOWN.iter().find(is_meant) else {
            let known: Vec<_> = MessageType::KNOWN.iter().filter_map(|kind| kind.name()).collect();
            let reason = format!("message {:?} is none of {}", name.get_ref(), known.join(", "));
            return Err((name.span(), reason));
        };
        let names_device = kind == MessageType::OFFER_CHANNEL || kind.starts_with_relid();
        if let Some(device) = &self.device
            && !names_device
        {
            return Err((device.span(), format!("{kind} is about no device: leave it out")));
        }
        Ok(kind)
    }
}

fn class_of(name: &Spanned<String>) -> Result<Guid, Wrong> {
    let text = name.get_ref();
    if let Some((_, class)) = class::ALL.iter().find(|(known, _)| known == text) {
        return Ok(*class);
    }
    text.parse().map_err(|_| {
        let known: Vec<_> = class::ALL.iter().map(|(name, _)| *name).collect();
        (name.span(), format!("device {text:?} is no GUID and none of {}", known.join(", ")))
    })
}

/// Makes sure that the action can be done to what the rule is about, and does something.
fn check_action(subject: &Subject, action: &Spanned<Action>) -> Result<(), Wrong> {
    let name = action.get_ref().name();
    let wrong = |reason: String| Err((action.span(), reason));
    let takes = match (subject, action.get_ref()) {
        (Subject::Interrupt { .. }, _) | (_, Action::Drop) => true,
        (Subject::Message(kind), Action::Refuse) => {
            [MessageType::OPEN_CHANNEL, MessageType::GPADL_HEADER].contains(kind)
        }
        (Subject::Message(_), Action::Duplicate) => true,
        (Subject::Message(kind), action) => {
            let changes = matches!(
                action,
                Action::Delay(_) | Action::Truncate(_) | Action::Flip(_) | Action::Set(_)
            );
            changes && kind.is_hosts()
        }
        (Subject::Packet { .. }, Action::Rescind | Action::RescindFor(_) | Action::Pause(_)) => {
            true
        }
        (Subject::Packet { from, kind, .. }, Action::SetData(_)) => {
            *from == End::Host && *kind == Some(PacketKind::TransferPages)
        }
        (Subject::Packet { from, .. }, action) => {
            *from == End::Host && !matches!(action, Action::Refuse)
        }
    };
    if !takes {
        let reason = match subject {
            Subject::Message(_) => {
                "this message: messages are dropped or duplicated, the host's delayed, truncated, flipped or \
                 set, and OPEN_CHANNEL and GPADL_HEADER refused"
            }
            _ if name == "refuse" => "packets: only messages are refused",
            _ if name == "set-data" => {
                "these packets: it goes with from = \"host\" and packet = \"transfer-pages\""
            }
            _ => "the guest's packets: they are dropped, or pause or rescind the device",
        };
        return wrong(format!("{name} cannot be done to {reason}"));
    }
    match action.get_ref() {
        Action::Flip(flip) if flip.mask == 0 => wrong("a mask of 0 flips nothing".to_owned()),
        Action::Set(write) | Action::SetHeader(write) | Action::SetData(write)
            if write.bytes.is_empty() =>
        {
            wrong("no bytes are set".to_owned())
        }
        Action::Delay(span)
        | Action::RescindFor(span)
        | Action::Pause(span)
        | Action::InterruptLate(span)
            if span.0 == Duration::ZERO =>
        {
            wrong(format!("{name} by no time at all is none"))
        }
        _ => Ok(()),
    }
}
