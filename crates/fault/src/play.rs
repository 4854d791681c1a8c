// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules at work: what each has counted, and its random numbers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use busway_wire::Guid;
use busway_wire::control::MessageType;
use busway_wire::packet::PacketType;
use fastrand::Rng;

use crate::rule::{End, Often, Rule, Subject};
use crate::script::Script;

/// An open channel, as rules and random numbers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnChannel {
    /// The host's number for it.
    pub number: u32,
    /// Which driver is meant.
    pub class: Guid,
    /// Which device.
    pub instance: Guid,
    /// 0 for the primary channel.
    pub subchannel: u16,
}

/// A rule has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Its place in [`Script::rules`].
    pub rule: usize,
    /// What it fired at, counted from 1: which packet of that end on the channel, which message of
    /// that type, which interrupt.
    pub number: u64,
}

/// A packet that passes, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'a> {
    /// Whose it is.
    pub from: End,
    /// What it is.
    pub kind: PacketType,
    /// Its name; an answer has that of what it answers.
    pub transaction_id: u64,
    /// What is in it.
    pub payload: &'a [u8],
}

/// Requests without answer that a rule keeps in mind: a guest decides how many there are.
const REQUESTS: usize = 16_384;

/// What one rule has seen in one place.
#[derive(Clone, Debug)]
struct Track {
    rule: usize,
    seen: u64,
    fired: u64,
    random: Rng,
    /// The names of the guest's requests whose answers are meant.
    requests: HashSet<u64>,
}

impl Track {
    fn new(seed: u64, rule: usize, place: &[u64]) -> Self {
        let mix = |seed, word: &u64| Rng::with_seed(seed ^ word).u64(..);
        let seed = place.iter().fold(mix(seed, &(rule as u64)), mix);
        let (random, requests) = (Rng::with_seed(seed), HashSet::new());
        Self { rule, seen: 0, fired: 0, random, requests }
    }

    /// Whether it does not matter which request `packet` answers, or it is the answer to one that is
    /// meant. A name is the guest's to give again once it is answered.
    fn follows(&mut self, subject: &Subject, packet: &Passing<'_>) -> bool {
        if !subject.follows_requests() {
            return true;
        }
        let id = packet.transaction_id;
        match (packet.from, packet.kind) {
            (End::Host, PacketType::COMPLETION) => self.requests.remove(&id),
            (End::Host, _) | (End::Guest, PacketType::COMPLETION) => false,
            (End::Guest, _) => {
                if !subject.is_request(packet.payload) {
                    self.requests.remove(&id);
                } else if self.requests.len() < REQUESTS {
                    self.requests.insert(id);
                }
                false
            }
        }
    }

    /// Counts one more of what `rule` is about; whether it fires.
    fn counts(&mut self, rule: &Rule, now: Duration) -> bool {
        if now < rule.after || self.fired >= rule.times {
            return false;
        }
        self.seen += 1;
        let fires = match rule.often {
            Often::Nth(nth) => self.seen == nth,
            Often::Every(every) => self.seen.is_multiple_of(every),
            Often::Probability(probability) => self.random.f64() < probability,
        };
        self.fired += u64::from(fires);
        fires
    }
}

/// The first of the rules on `tracks` that is about this and fires.
fn first(
    script: &Script,
    tracks: &mut [Track],
    now: Duration,
    number: u64,
    is_about: impl Fn(&Rule) -> bool,
) -> Option<Fired> {
    let fires = |track: &mut &mut Track| {
        let rule = script.rules.get(track.rule);
        rule.is_some_and(|rule| is_about(rule) && track.counts(rule, now))
    };
    let track = tracks.iter_mut().find_map(|mut track| fires(&mut track).then_some(track))?;
    Some(Fired { rule: track.rule, number })
}

/// What the rules of a script from `first` on, that are about `channel`, have seen so far: nothing.
fn tracks(script: &Script, channel: &OnChannel, first: usize) -> Vec<Track> {
    let OnChannel { number, class, instance, subchannel } = *channel;
    let halves = |guid: Guid| {
        let value = u128::from_le_bytes(guid.0);
        [value as u64, (value >> 64) as u64]
    };
    let ([a, b], [c, d]) = (halves(class), halves(instance));
    let place = [a, b, c, d, u64::from(subchannel)];
    let is_about = |rule: &Rule| {
        !matches!(rule.subject, Subject::Message(_))
            && rule.class.is_none_or(|wanted| wanted == class)
            && rule.channel.is_none_or(|wanted| wanted == number)
    };
    let rules = script.active().filter(|(at, rule)| *at >= first && is_about(rule));
    rules.map(|(at, rule)| Track::new(rule.seed, at, &place)).collect()
}

/// The same of rules about messages.
fn message_tracks(script: &Script, first: usize) -> Vec<Track> {
    let is_about = |rule: &Rule| matches!(rule.subject, Subject::Message(_));
    let rules = script.active().filter(|(at, rule)| *at >= first && is_about(rule));
    rules.map(|(at, rule)| Track::new(rule.seed, at, &[])).collect()
}

/// The rules about one channel, from its opening on.
#[derive(Clone, Debug)]
pub struct ChannelPlay {
    script: Arc<Script>,
    channel: OnChannel,
    tracks: Vec<Track>,
    /// The guest's, and the host's.
    packets: [u64; 2],
    /// Not due, and due.
    interrupts: [u64; 2],
}

impl ChannelPlay {
    /// The play for a channel that is opened now; `None` if no rule is about it.
    pub fn new(script: &Arc<Script>, channel: &OnChannel) -> Option<Self> {
        let tracks = tracks(script, channel, script.retired);
        let (packets, interrupts) = ([0; 2], [0; 2]);
        let (script, channel) = (Arc::clone(script), *channel);
        let play = Self { script, channel, tracks, packets, interrupts };
        (!play.tracks.is_empty()).then_some(play)
    }

    /// A rule has fired so often on the channel's device before this was opened, and that counts.
    pub fn has_fired(&mut self, rule: usize, times: u64) {
        if let Some(track) = self.tracks.iter_mut().find(|track| track.rule == rule) {
            track.fired += times;
        }
    }

    /// Goes on with a script that has more rules behind those of the last, and fewer that are asked.
    /// What it has counted stays.
    pub fn renew(&mut self, script: &Arc<Script>) {
        let known = self.script.rules.len().max(script.retired);
        self.tracks.retain(|track| track.rule >= script.retired);
        self.tracks.extend(tracks(script, &self.channel, known));
        self.script = Arc::clone(script);
    }

    /// A packet passes at `now`, measured from the machine's start.
    pub fn packet(&mut self, packet: &Passing<'_>, now: Duration) -> Option<Fired> {
        let Passing { from, kind, payload, .. } = *packet;
        let [guest, host] = &mut self.packets;
        let count = if from == End::Guest { guest } else { host };
        *count += 1;
        let number = *count;
        // All are asked, those too that an earlier rule keeps from seeing it.
        let mut fired = None;
        for track in &mut self.tracks {
            let Some(rule) = self.script.rules.get(track.rule) else {
                continue;
            };
            let is_meant =
                track.follows(&rule.subject, packet) && rule.subject.is_packet(from, kind, payload);
            if is_meant && fired.is_none() && track.counts(rule, now) {
                fired = Some(Fired { rule: track.rule, number });
            }
        }
        fired
    }

    /// The guest is to be interrupted now, or not.
    pub fn interrupt(&mut self, is_due: bool, now: Duration) -> Option<Fired> {
        let [other, due] = &mut self.interrupts;
        let count = if is_due { due } else { other };
        *count += 1;
        let number = *count;
        first(&self.script, &mut self.tracks, now, number, |rule| {
            rule.subject == Subject::Interrupt { due: is_due }
        })
    }
}

/// The rules about messages.
#[derive(Clone, Debug)]
pub struct MessagePlay {
    script: Arc<Script>,
    tracks: Vec<Track>,
    /// How many of each type have passed.
    passed: Vec<(MessageType, u64)>,
}

impl MessagePlay {
    /// Nothing has passed yet.
    pub fn new(script: &Arc<Script>) -> Self {
        let tracks = message_tracks(script, 0);
        let passed = MessageType::KNOWN.iter().map(|kind| (*kind, 0)).collect();
        Self { script: Arc::clone(script), tracks, passed }
    }

    /// As [`ChannelPlay::renew`].
    pub fn renew(&mut self, script: &Arc<Script>) {
        let known = self.script.rules.len().max(script.retired);
        self.tracks.retain(|track| track.rule >= script.retired);
        self.tracks.extend(message_tracks(script, known));
        self.script = Arc::clone(script);
    }

    /// A message passes, about a channel of `class` if it is about one.
    pub fn message(
        &mut self,
        kind: MessageType,
        class: Option<Guid>,
        now: Duration,
    ) -> Option<Fired> {
        let (_, count) = self.passed.iter_mut().find(|(known, _)| *known == kind)?;
        *count += 1;
        let number = *count;
        first(&self.script, &mut self.tracks, now, number, |rule| {
            rule.subject == Subject::Message(kind) && (rule.class.is_none() || rule.class == class)
        })
    }
}
