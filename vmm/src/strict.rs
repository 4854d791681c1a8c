// SPDX-License-Identifier: MIT OR Apache-2.0

//! `--strict`: what the guest does that real hosts or the documents forbid, in the log as it
//! happens and in a table at the end.

use std::fmt;
use std::sync::{Arc, Mutex};

use busway_strict::{Checker, Finding, Tally};
use busway_vmbus::{Event, Passing, Side, Tap};
use log::warn;
use serde::Serialize;

use crate::capture::Capture;
use crate::lock;
use crate::spec::{Strictness, VmSpec};
use crate::traffic::Traffic;

/// The rules, and what a machine makes of them.
pub struct Strict {
    strictness: Strictness,
    state: Mutex<State>,
    /// What sees all that passes too.
    next: Option<Arc<dyn Tap>>,
    /// Nobody minds that data outside of packets is shown.
    data: bool,
}

#[derive(Default)]
struct State {
    checker: Checker,
    tally: Tally,
    found: Vec<Finding>,
    messages: u64,
    packets: u64,
}

/// The rules, if the machine is to keep to any. What passes goes on to whoever looks on anyway.
pub fn open(
    spec: &VmSpec,
    capture: Option<&Arc<Capture>>,
    traffic: &Arc<Traffic>,
) -> Option<Arc<Strict>> {
    let data = capture.is_none_or(|capture| capture.wants_data());
    let next: Option<Arc<dyn Tap>> = match (spec.control.is_some(), capture) {
        // Which hands it on to the capture.
        (true, _) => Some(traffic.clone()),
        (false, Some(capture)) => Some(capture.clone()),
        (false, None) => None,
    };
    Some(Arc::new(Strict::new(spec.strict?, next, data)))
}

impl Strict {
    /// Checks what passes, and lets `next` see it too. What lies outside of packets is looked at
    /// only with `data`.
    pub fn new(strictness: Strictness, next: Option<Arc<dyn Tap>>, data: bool) -> Self {
        Self { strictness, state: Mutex::default(), next, data }
    }

    /// The machine starts over; what was found stays.
    pub fn restart(&self) {
        lock(&self.state).checker = Checker::default();
    }

    /// What was found in all lives of the machine.
    pub fn summary(&self) -> Summary {
        let state = lock(&self.state);
        let rules = state.tally.lines().map(|(rule, count, first)| Line {
            rule: rule.name(),
            count,
            demand: rule.demand(),
            source: rule.source(),
            first: First::from(first),
        });
        let rules: Vec<_> = rules.collect();
        let findings = rules.iter().map(|line| line.count).sum();
        let failed = self.strictness == Strictness::Fail && findings != 0;
        let State { messages, packets, .. } = *state;
        Summary { failed, findings, messages, packets, rules }
    }
}

impl Tap for Strict {
    fn passes(&self, what: &Passing<'_>) {
        if let Some(next) = &self.next {
            next.passes(what);
        }
        let mut state = lock(&self.state);
        let State { checker, tally, found, messages, packets } = &mut *state;
        match what {
            Passing::GuestMessage(_) => *messages += 1,
            Passing::Channel(_, Event::Packet { side: Side::Guest, .. }) => *packets += 1,
            _ => {}
        }
        checker.see(what, found);
        for finding in found.drain(..) {
            if let Some(seen) = tally.add(&finding) {
                warn!("strict: {finding}{seen}");
            }
        }
    }

    fn now(&self) -> Option<u64> {
        self.next.as_ref()?.now()
    }

    fn wants_data(&self) -> bool {
        self.data
    }
}

/// What was found, for reports. Its JSON form is stable: fields are added, not changed.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// A finding fails the guest, and there is one.
    pub failed: bool,
    /// How many there are.
    pub findings: u64,
    /// Messages of the guest's that were looked at.
    pub messages: u64,
    /// Packets of the guest's that were looked at.
    pub packets: u64,
    /// Each rule that was broken.
    pub rules: Vec<Line>,
}

/// A rule that was broken.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its name.
    pub rule: &'static str,
    /// How often.
    pub count: u64,
    /// What it demands.
    pub demand: &'static str,
    /// Where that stands.
    pub source: &'static str,
    /// What broke it first.
    pub first: First,
}

/// What broke a rule first.
#[derive(Clone, Debug, Serialize)]
pub struct First {
    /// Which device's channel it was on; none for a channel message.
    pub device: Option<String>,
    /// Which channel, by the host's number.
    pub channel: Option<u32>,
    /// Which channel of the device.
    pub subchannel: u16,
    /// The packet's transaction id, as hexadecimal text.
    pub transaction_id: Option<String>,
    /// What it was.
    pub kind: String,
    /// Which field was wrong.
    pub field: &'static str,
    /// What it held.
    pub value: String,
    /// What it should have held.
    pub expected: String,
}

impl From<&Finding> for First {
    fn from(finding: &Finding) -> Self {
        let Finding { at, field, value, expected, .. } = finding.clone();
        Self {
            device: at.device,
            channel: at.channel,
            subchannel: at.subchannel,
            transaction_id: at.transaction_id.map(|id| format!("{id:#x}")),
            kind: at.kind,
            field,
            value,
            expected,
        }
    }
}

impl fmt::Display for Summary {
    /// The table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.findings == 0 {
            f.write_str("strict: nothing")?;
        } else {
            write!(f, "strict: {} findings", self.findings)?;
        }
        write!(f, " in {} messages and {} packets of the guest's", self.messages, self.packets)?;
        for line in &self.rules {
            let Line { rule, count, demand, .. } = line;
            write!(f, "\n  {rule:<20} {count:>8}  {demand}")?;
        }
        Ok(())
    }
}
