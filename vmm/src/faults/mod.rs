// SPDX-License-Identifier: MIT OR Apache-2.0

//! `--faults`: a script played out on this machine's bus, and a record of what it did.
//!
//! [`busway_fault`] decides; the clock, the timers and the record are here. The lock on the record is
//! taken when a rule fires, and for each channel message, never for a packet that passes.

mod channel;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use busway_fault::{Action, ChannelPlay, Fired, MessagePlay, OnChannel, Script};
use busway_vmbus::{ChannelMeddler, Fault, LogLimit, Meddler, MessageFate, Place, Side};
use busway_wire::control::MessageType;
use busway_wire::{Guid, class};
use log::warn;
use serde::Serialize;

use crate::lock;

/// Faults that a report lists; more are only counted.
const LISTED: usize = 1000;

/// The script of a machine, all its lives long.
pub struct Faults {
    /// The script's file, for the log.
    name: String,
    script: Arc<Script>,
    started: Instant,
    messages: Mutex<MessagePlay>,
    record: Mutex<Record>,
}

/// What has been done.
#[derive(Default)]
struct Record {
    /// How often each rule has fired.
    counts: Vec<u64>,
    /// The first of it.
    events: Vec<Event>,
    limits: Vec<LogLimit>,
}

/// What a script has done to a machine. Its JSON form is stable: fields are added, not changed.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// What random numbers started from.
    pub seed: u64,
    /// The rules, in order.
    pub rules: Vec<RuleSummary>,
    /// The first thousand faults.
    pub events: Vec<Event>,
}

/// What a rule has done.
#[derive(Clone, Debug, Serialize)]
pub struct RuleSummary {
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: &'static str,
    /// How often it has fired.
    pub fired: u64,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Seconds since the machine's start.
    pub seconds: f64,
    /// The rule, by its place.
    pub rule: usize,
    /// Where it fired: a channel, or "messages".
    pub place: String,
    /// At what: "host packet 12", "interrupt 3", "OPEN_CHANNEL 1".
    pub at: String,
}

impl Faults {
    /// The script of `file`, for a machine that starts now.
    pub fn start(file: &Path, script: Script) -> Arc<Self> {
        let name = format!("--faults {}", file.display());
        let (rules, seed) = (script.rules.len(), script.seed);
        warn!("{name}: {rules} rules; --fault-seed {seed} repeats this run");
        let script = Arc::new(script);
        let limits = std::iter::repeat_with(LogLimit::default).take(rules).collect();
        let record = Record { counts: vec![0; rules], events: Vec::new(), limits };
        Arc::new(Self {
            name,
            messages: Mutex::new(MessagePlay::new(&script)),
            script,
            started: Instant::now(),
            record: Mutex::new(record),
        })
    }

    /// Who meddles with a bus in its name.
    pub fn meddler(self: &Arc<Self>) -> Arc<dyn Meddler> {
        Arc::new(OnBus(Arc::clone(self)))
    }

    /// What has been done so far.
    pub fn summary(&self) -> Summary {
        let record = lock(&self.record);
        let rules = self.script.rules.iter().zip(&record.counts);
        let rules = rules.map(|(rule, count)| RuleSummary {
            name: rule.name.clone(),
            action: rule.action.name(),
            fired: *count,
        });
        let (seed, rules) = (self.script.seed, rules.collect());
        Summary { seed, rules, events: record.events.clone() }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// What is done, now that a rule has fired, which goes into the record.
    fn fired(&self, fired: Fired, place: &str, at: &str) -> Option<&Action> {
        let rule = self.script.rules.get(fired.rule)?;
        let (now, number) = (self.now(), fired.number);
        let mut record = lock(&self.record);
        let Record { counts, events, limits } = &mut *record;
        if let Some(count) = counts.get_mut(fired.rule) {
            *count += 1;
        }
        let at = format!("{at} {number}");
        if let Some(seen) = limits.get_mut(fired.rule).and_then(LogLimit::next) {
            let (rule, action) = (&rule.name, rule.action.name());
            warn!("fault: {rule}: {action} at {at} of {place}{seen}");
        }
        if events.len() < LISTED {
            let seconds = now.as_millis() as f64 / 1000.0;
            events.push(Event { seconds, rule: fired.rule, place: place.to_owned(), at });
        }
        Some(&rule.action)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let Summary { seed, rules, .. } = self.summary();
        let said = rules.iter().map(|rule| format!("{} {} times", rule.name, rule.fired));
        let said: Vec<_> = said.collect();
        warn!("{}: seed {seed}; {}", self.name, said.join(", "));
    }
}

/// The script on a bus.
struct OnBus(Arc<Faults>);

impl Meddler for OnBus {
    fn message(&self, _side: Side, kind: MessageType, class: Option<Guid>) -> MessageFate {
        let faults = &self.0;
        let fired = lock(&faults.messages).message(kind, class, faults.now());
        let place = class.map_or_else(|| "messages".to_owned(), device);
        let name = kind.to_string();
        match fired.and_then(|fired| faults.fired(fired, &place, &name)) {
            Some(Action::Drop) => MessageFate::Lost,
            Some(Action::Duplicate) => MessageFate::Twice,
            Some(Action::Refuse) => MessageFate::Refused,
            _ => MessageFate::Passes,
        }
    }

    fn channel(&self, place: &Place) -> Result<Option<Box<dyn ChannelMeddler>>, Fault> {
        let Place { key, class, instance, subchannel, .. } = *place;
        let channel = OnChannel { number: key.number(), class, instance, subchannel };
        let Some(play) = ChannelPlay::new(&self.0.script, &channel) else {
            return Ok(None);
        };
        let name = format!("{}#{}", device(class), key.number());
        let meddler = channel::Playing::new(Arc::clone(&self.0), play, name);
        Ok(Some(Box::new(meddler.map_err(Fault::host)?)))
    }
}

fn device(class: Guid) -> String {
    class::name(class).map_or_else(|| class.to_string(), str::to_owned)
}
