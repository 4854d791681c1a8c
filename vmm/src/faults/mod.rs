// SPDX-License-Identifier: MIT OR Apache-2.0

//! `--faults`: a script played out on this machine's bus, and a record of what it did.
//!
//! [`busway_fault`] decides; the clock, the timers and the record are here. The lock on the record is
//! taken when a rule fires, and for each channel message, never for a packet that passes.

mod channel;
#[cfg(test)]
mod tests;
mod timer;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use busway_fault::{Action, ChannelPlay, Fired, Later, MessagePlay, OnChannel, Rule, Script};
use busway_vmbus::{ChannelMeddler, Fault, LogLimit, Meddler, MessageFate, Place, Side};
use busway_wire::control::MessageType;
use busway_wire::{Guid, class};
use log::warn;
use serde::Serialize;

use crate::lock;
use timer::Timer;

/// Faults that a report lists; more are only counted.
const LISTED: usize = 1000;

/// Devices of which it is known how often they were away: a guest makes as many sockets as it likes.
const DEVICES: usize = 4096;

/// The script of a machine, all its lives long.
pub struct Faults {
    /// Where rules come from, for the log.
    name: String,
    script: Mutex<Arc<Script>>,
    started: Instant,
    messages: Mutex<MessagePlay>,
    put_off: Mutex<PutOff>,
    /// How often a rule has taken a device away for a time.
    vanished: Mutex<HashMap<(usize, Guid), u64>>,
    record: Mutex<Record>,
}

/// Messages and offers that are to be sent later, by their names.
struct PutOff {
    late: Later<u64>,
    next_name: u64,
    timer: Timer,
}

impl PutOff {
    /// The name of one more, for whom there is room, to be sent at `due`.
    fn push(&mut self, due: Duration, now: Duration) -> Option<u64> {
        let name = self.next_name;
        if self.late.push(due, name).is_some() {
            return None;
        }
        self.next_name += 1;
        self.timer.set(self.late.next(), now);
        Some(name)
    }

    /// Nobody has any use for the names any more.
    fn clear(&mut self, now: Duration) {
        drop(self.late.take());
        self.timer.set(None, now);
    }

    /// The name of the next that is due.
    fn pop(&mut self, now: Duration) -> Option<u64> {
        let name = self.late.pop(now);
        self.timer.set(self.late.next(), now);
        name
    }
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

impl Record {
    fn grow(&mut self, rules: usize) {
        self.counts.resize(rules, 0);
        self.limits.resize_with(rules, LogLimit::default);
    }
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
    ///
    /// # Errors
    /// Of the host's kernel, which has no timer for it.
    pub fn start(file: &Path, script: Script) -> io::Result<Arc<Self>> {
        let name = format!("--faults {}", file.display());
        let (rules, seed) = (script.rules.len(), script.seed);
        warn!("{name}: {rules} rules; --fault-seed {seed} repeats this run");
        Self::new(name, script)
    }

    /// No faults yet, for a machine that starts now.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub fn none() -> io::Result<Arc<Self>> {
        Self::new("faults".to_owned(), Script::empty())
    }

    fn new(name: String, script: Script) -> io::Result<Arc<Self>> {
        let mut record = Record::default();
        record.grow(script.rules.len());
        let script = Arc::new(script);
        let put_off = PutOff { late: Later::default(), next_name: 0, timer: Timer::new()? };
        Ok(Arc::new(Self {
            name,
            messages: Mutex::new(MessagePlay::new(&script)),
            script: Mutex::new(script),
            started: Instant::now(),
            put_off: Mutex::new(put_off),
            vanished: Mutex::default(),
            record: Mutex::new(record),
        }))
    }

    /// Readable when a message that was put off is due: the bus is to look for it.
    pub fn timer(&self) -> RawFd {
        lock(&self.put_off).timer.as_raw_fd()
    }

    /// Whether anything can go wrong now.
    pub fn is_active(&self) -> bool {
        self.script().active().next().is_some()
    }

    /// Adds the rules of a script, whose time begins now. [`meddler`](Self::meddler) is for the bus,
    /// then and for channels that are open.
    pub fn add(&self, more: Script) {
        let now = self.now();
        let mut script = lock(&self.script);
        let mut all = Script::clone(&script);
        if all.rules.is_empty() {
            all.seed = more.seed;
        }
        let later = |rule: Rule| Rule { after: now + rule.after, ..rule };
        all.rules.extend(more.rules.into_iter().map(later));
        lock(&self.record).grow(all.rules.len());
        *script = Arc::new(all);
        lock(&self.messages).renew(&script);
    }

    /// Takes all rules away. What they have done stays in the summary.
    pub fn clear(&self) {
        let mut script = lock(&self.script);
        let mut all = Script::clone(&script);
        all.retired = all.rules.len();
        *script = Arc::new(all);
        lock(&self.messages).renew(&script);
        lock(&self.put_off).clear(self.now());
    }

    /// The rules as they are now.
    pub fn script(&self) -> Arc<Script> {
        Arc::clone(&lock(&self.script))
    }

    /// Sums up when that is dropped.
    pub fn sum_up(self: &Arc<Self>) -> SumUp {
        SumUp(Arc::clone(self))
    }

    /// Who meddles with a bus in its name.
    pub fn meddler(self: &Arc<Self>) -> Arc<dyn Meddler> {
        Arc::new(OnBus(Arc::clone(self)))
    }

    /// What has been done so far.
    pub fn summary(&self) -> Summary {
        let script = self.script();
        let record = lock(&self.record);
        let rules = script.rules.iter().zip(&record.counts);
        let rules = rules.map(|(rule, count)| RuleSummary {
            name: rule.name.clone(),
            action: rule.action.name(),
            fired: *count,
        });
        let (seed, rules) = (script.seed, rules.collect());
        Summary { seed, rules, events: record.events.clone() }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// A rule has taken a device away for a time.
    fn vanishes(&self, rule: usize, instance: Guid) {
        let mut vanished = lock(&self.vanished);
        let is_known = vanished.contains_key(&(rule, instance));
        if is_known || vanished.len() < DEVICES {
            *vanished.entry((rule, instance)).or_default() += 1;
        }
    }

    /// What is done, now that a rule has fired, which goes into the record.
    fn fired(&self, fired: Fired, place: &str, at: &str) -> Option<Action> {
        let script = self.script();
        let rule = script.rules.get(fired.rule)?;
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
        Some(rule.action.clone())
    }
}

/// The end of a run, at which the log says what was done; others may hold the script longer.
pub struct SumUp(Arc<Faults>);

impl Drop for SumUp {
    fn drop(&mut self) {
        let Summary { seed, rules, .. } = self.0.summary();
        if rules.is_empty() {
            return;
        }
        let said = rules.iter().map(|rule| format!("{} {} times", rule.name, rule.fired));
        let said: Vec<_> = said.collect();
        warn!("{}: seed {seed}; {}", self.0.name, said.join(", "));
    }
}

/// The script on a bus.
struct OnBus(Arc<Faults>);

impl Meddler for OnBus {
    fn message(
        &self,
        _side: Side,
        kind: MessageType,
        class: Option<Guid>,
        message: &[u8],
    ) -> MessageFate {
        let faults = &self.0;
        let now = faults.now();
        let fired = lock(&faults.messages).message(kind, class, now);
        let place = class.map_or_else(|| "messages".to_owned(), device);
        let name = kind.to_string();
        match fired.and_then(|fired| faults.fired(fired, &place, &name)) {
            None => MessageFate::Passes,
            Some(Action::Drop) => MessageFate::Lost,
            Some(Action::Duplicate) => MessageFate::Twice,
            Some(Action::Refuse) => MessageFate::Refused,
            Some(Action::Delay(span)) => {
                let name = lock(&faults.put_off).push(now + span.0, now);
                name.map_or(MessageFate::Passes, MessageFate::PutOff)
            }
            Some(action) => {
                let mut message = message.to_vec();
                action.edit(&mut 0, &mut [], &mut message);
                MessageFate::Becomes(message)
            }
        }
    }

    fn overdue(&self) -> Option<u64> {
        lock(&self.0.put_off).pop(self.0.now())
    }

    fn remind(&self, after: Duration) -> Option<u64> {
        let now = self.0.now();
        lock(&self.0.put_off).push(now + after, now)
    }

    fn channel(&self, place: &Place) -> Result<Option<Box<dyn ChannelMeddler>>, Fault> {
        let Place { key, class, instance, subchannel, .. } = *place;
        let channel = OnChannel { number: key.number(), class, instance, subchannel };
        let Some(mut play) = ChannelPlay::new(&self.0.script(), &channel) else {
            return Ok(None);
        };
        for ((rule, _), times) in
            lock(&self.0.vanished).iter().filter(|((_, it), _)| *it == instance)
        {
            play.has_fired(*rule, *times);
        }
        let meddler = channel::Playing::new(Arc::clone(&self.0), play, *place);
        Ok(Some(Box::new(meddler.map_err(Fault::host)?)))
    }
}

fn device(class: Guid) -> String {
    class::name(class).map_or_else(|| class.to_string(), str::to_owned)
}
