// SPDX-License-Identifier: MIT OR Apache-2.0

//! Integration components, message by message, against a driver that answers as `hv_utils` does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use busway_integration::{Clock, Failure, Heartbeat, Phase, Reading, Shutdown, TimeSync, Vss};
use busway_ring::Outgoing;
use busway_testkit::{GuestChannel, Pair, PairConfig};
use busway_vmbus::Device;
use busway_wire::Version;
use busway_wire::ic::shutdown::Action;
use busway_wire::ic::{self, Status};

/// So often that no test waits.
const OFTEN: Duration = Duration::from_millis(2);

/// The guest's driver of one component.
pub struct Utils {
    pub pair: Pair,
    pub channel: GuestChannel,
}

/// A question as it stands in the packet: 28 bytes of headers, then the body.
pub struct Question {
    pub id: u64,
    pub payload: Vec<u8>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Question {
    pub fn kind(&self) -> u16 {
        u16_at(&self.payload, 12)
    }

    pub fn body(&self) -> &[u8] {
        &self.payload[28..]
    }
}

impl Utils {
    /// A driver that has opened the channel and not read a word.
    pub fn opened(device: impl Device + 'static) -> Self {
        let class = device.offer().interface_type;
        let mut pair = Pair::new(PairConfig::default());
        pair.add(device);
        let offer = *pair.connect(Version::V5_3).offer(class);
        let channel = pair.open(&offer, 8, 0).unwrap();
        Self { pair, channel }
    }

    /// A driver that has agreed on this version of its messages.
    pub fn agreed(device: impl Device + 'static, major: u16, minor: u16) -> Self {
        let mut utils = Self::opened(device);
        utils.negotiate(major, minor);
        utils
    }

    pub fn negotiate(&mut self, major: u16, minor: u16) {
        let question = self.question();
        assert_eq!(question.kind(), 0, "versions come first");
        self.choose(&question, 3, 0, (major, minor));
    }

    /// `vmbus_prep_negotiate_resp`: one of each, in front, in a packet of the same length.
    fn choose(&mut self, question: &Question, fw: u16, fw_minor: u16, message: (u16, u16)) {
        let words = [1, 1, 0, 0, fw, fw_minor, message.0, message.1];
        let choice: Vec<u8> = words.into_iter().flat_map(u16::to_le_bytes).collect();
        self.answer(question, Status::OK, &choice);
        self.pair.work();
    }

    pub fn question(&mut self) -> Question {
        let packet = self.channel.receive(&mut self.pair);
        let payload = packet.payload;
        assert_eq!(payload[..4], 1_u32.to_le_bytes(), "a pipe's data");
        assert_eq!(payload[25], 3, "a request, in a transaction");
        Question { id: packet.descriptor.transaction_id, payload }
    }

    /// Sends the packet back with a status and another front of its body.
    pub fn answer(&mut self, question: &Question, status: Status, body: &[u8]) {
        let mut payload = question.payload.clone();
        payload[20..24].copy_from_slice(&status.0.to_le_bytes());
        payload[25] = 5;
        payload[28..28 + body.len()].copy_from_slice(body);
        self.channel.send(&mut self.pair, &Outgoing::in_band(question.id, &payload));
    }
}

/// Asks from a thread of its own, as whoever asks does, while the guest lives here.
pub fn asking<T: Send>(guest: impl FnOnce(), ask: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let asked = scope.spawn(ask);
        guest();
        asked.join().unwrap()
    })
}

#[test]
fn all_versions_are_offered_and_the_guests_choice_is_taken() {
    let shutdown = Shutdown::new().unwrap();
    assert_eq!(shutdown.phase(), Phase::Closed);
    let mut utils = Utils::opened(shutdown.device());
    let question = utils.question();
    assert_eq!(shutdown.phase(), Phase::Negotiating);
    // Two of the framework, four of the messages.
    assert_eq!(question.body()[..4], [2, 0, 4, 0]);
    let versions = [1, 0, 3, 0, 1, 0, 3, 0, 3, 1, 3, 2];
    let offered: Vec<u16> = (0..12).map(|at| u16_at(question.body(), 8 + 2 * at)).collect();
    assert_eq!(offered, versions);
    utils.choose(&question, 3, 0, (3, 2));
    assert_eq!(shutdown.phase().to_string(), "version 3.2");
}

/// Of a component with one version, that one.
#[test]
fn an_older_host_offers_what_it_speaks() {
    let offered = |mut utils: Utils| {
        let question = utils.question();
        let versions = question.body()[8..].chunks_exact(2).map(|word| u16_at(word, 0));
        let counts = u16_at(question.body(), 0) + u16_at(question.body(), 2);
        versions.take(2 * usize::from(counts)).collect::<Vec<_>>()
    };
    let shutdown = |major, minor| {
        let shutdown = Shutdown::new().unwrap();
        Utils::opened(shutdown.with_newest_version(ic::Version::new(major, minor)).device())
    };
    let vss = |major, minor| {
        let vss = Vss::new().unwrap();
        Utils::opened(vss.with_newest_version(ic::Version::new(major, minor)).device())
    };
    assert_eq!(offered(shutdown(3, 1)), [1, 0, 3, 0, 1, 0, 3, 0, 3, 1]);
    assert_eq!(offered(shutdown(1, 0)), [1, 0, 1, 0]);
    assert_eq!(offered(vss(4, 0)), [1, 0, 3, 0, 5, 0]);
    assert_eq!(offered(vss(1, 0)), [1, 0, 5, 0]);
    // A newer one, of either, is no choice.
    for (framework, message) in [((3, 0), (1, 0)), ((1, 0), (3, 0))] {
        let mut utils = shutdown(1, 0);
        let question = utils.question();
        utils.choose(&question, framework.0, framework.1, message);
        assert!(utils.pair.faults[0].to_string().contains("not offered"));
    }
}

#[test]
fn a_guest_that_speaks_no_version_is_left_alone() {
    let shutdown = Shutdown::new().unwrap();
    let mut utils = Utils::opened(shutdown.device());
    let question = utils.question();
    utils.answer(&question, Status::OK, &[0; 8]);
    utils.pair.work();
    assert_eq!(shutdown.phase(), Phase::NoneSpoken);
    let failure = shutdown.ask(Action::REBOOT);
    assert_eq!(failure, Err(Failure::NotReady(Phase::NoneSpoken)));
}

#[test]
fn a_version_that_was_not_offered_closes_the_channel() {
    for (framework, message) in [((3, 0), (4, 0)), ((2, 0), (3, 2))] {
        let shutdown = Shutdown::new().unwrap();
        let mut utils = Utils::opened(shutdown.device());
        let question = utils.question();
        utils.choose(&question, framework.0, framework.1, message);
        assert!(utils.pair.faults[0].to_string().contains("not offered"));
    }
}

#[test]
fn a_guest_is_asked_to_switch_off_and_says_what_it_will_do() {
    let shutdown = Shutdown::new().unwrap();
    let mut utils = Utils::agreed(shutdown.device(), 3, 2);
    for (action, flags, status, expected) in [
        (Action::POWER_OFF, 0, Status::OK, Ok(())),
        (Action::REBOOT, 2, Status::OK, Ok(())),
        (Action::HIBERNATE, 4, Status::FAIL, Err(Failure::Refused(Status::FAIL))),
    ] {
        let guest = || {
            let question = utils.question();
            assert_eq!(question.kind(), 3);
            assert_eq!(question.payload[14..18], [3, 0, 2, 0], "in the version agreed on");
            // The whole of `struct shutdown_msg_data`, or the guest drops it.
            assert!(question.payload.len() >= 2088);
            assert_eq!(question.body()[8], flags);
            utils.answer(&question, status, &[]);
            utils.pair.work();
        };
        assert_eq!(asking(guest, || shutdown.ask(action)), expected);
    }
}

#[test]
fn who_waits_for_a_guest_that_goes_is_told() {
    let shutdown = Shutdown::new().unwrap();
    let mut utils = Utils::agreed(shutdown.device(), 3, 0);
    let clone = shutdown.clone();
    let guest = || {
        utils.question();
        utils.pair.close(utils.channel);
    };
    let failure = asking(guest, || clone.ask(Action::POWER_OFF));
    assert_eq!(failure, Err(Failure::Gone));
    assert_eq!(shutdown.ask(Action::POWER_OFF), Err(Failure::NotReady(Phase::Closed)));
}

#[test]
fn a_driver_that_comes_again_is_asked_for_its_versions_again() {
    let shutdown = Shutdown::new().unwrap();
    let mut utils = Utils::agreed(shutdown.device(), 3, 2);
    let relid = utils.channel.relid();
    utils.pair.close(utils.channel);
    utils.pair.unload();
    let offers = utils.pair.connect(Version::V5_3).offers;
    let offer = offers.into_iter().find(|offer| offer.relid == relid).unwrap();
    utils.channel = utils.pair.open(&offer, 8, 0).unwrap();
    utils.negotiate(3, 0);
    assert_eq!(shutdown.phase().to_string(), "version 3.0");
}

#[test]
fn answers_that_nobody_waits_for_do_no_harm() {
    let shutdown = Shutdown::new().unwrap();
    let mut utils = Utils::agreed(shutdown.device(), 3, 2);
    let guest = || {
        let mut question = utils.question();
        question.payload[24] ^= 0x40;
        utils.answer(&question, Status::FAIL, &[]);
        question.payload[24] ^= 0x40;
        // Its own request sent back is no answer.
        utils.channel.send(&mut utils.pair, &Outgoing::in_band(1, &question.payload));
        utils.answer(&question, Status::OK, &[]);
        utils.answer(&question, Status::FAIL, &[]);
        utils.pair.work();
    };
    assert_eq!(asking(guest, || shutdown.ask(Action::REBOOT)), Ok(()));
    assert!(utils.pair.faults.is_empty());
}

#[test]
fn a_packet_without_headers_closes_the_channel() {
    let mut utils = Utils::opened(Shutdown::new().unwrap().device());
    utils.channel.send(&mut utils.pair, &Outgoing::in_band(0, &[0; 24]));
    utils.pair.work();
    assert!(utils.pair.faults[0].to_string().contains("24 B is too short"));
}

#[test]
fn beats_are_counted_and_missed_ones_too() {
    let heartbeat = Heartbeat::new(OFTEN).unwrap();
    let mut utils = Utils::agreed(heartbeat.device(), 3, 0);
    for turn in 0..3 {
        let question = utils.question();
        assert_eq!(question.kind(), 1);
        let sequence = u64_at(question.body(), 0) + 1;
        utils.answer(&question, Status::OK, &sequence.to_le_bytes());
        utils.pair.work();
        assert_eq!(heartbeat.beats().answered, turn + 1);
    }
    let last = heartbeat.beats().last;
    assert!(last.is_some());
    // Two beats pass without an answer.
    utils.question();
    utils.question();
    utils.pair.work();
    let beats = heartbeat.beats();
    assert!(beats.missed >= 1, "{beats:?}");
    assert_eq!((beats.answered, beats.last), (3, last));
    // One that was only sent back was not counted up.
    let question = utils.question();
    utils.answer(&question, Status::OK, &[]);
    utils.pair.work();
    assert_eq!(heartbeat.beats().answered, 3);
}

/// Each reading is later than the one before.
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> Reading {
        let tick = self.0.fetch_add(1, Ordering::Relaxed);
        Reading { host: 1_000_000 + tick, reference: 500 + tick }
    }
}

fn time_sync(period: Duration) -> TimeSync {
    TimeSync::new(Arc::new(Ticks(AtomicU64::new(0))), period).unwrap()
}

#[test]
fn the_guest_sets_its_clock_once_and_notes_samples_then() {
    let time = time_sync(OFTEN);
    let mut utils = Utils::agreed(time.device(), 4, 0);
    for (turn, flags) in (0..).zip([1, 2, 2]) {
        let question = utils.question();
        assert_eq!(question.kind(), 4);
        let (host, reference) = (u64_at(question.body(), 0), u64_at(question.body(), 8));
        assert_eq!(host - 1_000_000, reference - 500, "both at one moment");
        assert_eq!(question.body()[16], flags);
        utils.answer(&question, Status::OK, &[]);
        utils.pair.work();
        assert_eq!(time.samples(), turn + 1);
    }
    let question = utils.question();
    time.sync();
    utils.answer(&question, Status::OK, &[]);
    assert_eq!(utils.question().body()[16], 1, "the machine went on after a pause");
}

/// The host's time alone goes on by a little, by much, and back.
struct Leaps(AtomicU64);

impl Clock for Leaps {
    fn now(&self) -> Reading {
        const SECOND: u64 = 10_000_000;
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        let host = [10, 10, 11, 13, 13, 3].map(|second| second * SECOND);
        Reading { host: host.get(turn as usize).copied().unwrap_or(3 * SECOND), reference: 500 }
    }
}

#[test]
fn the_guest_sets_its_clock_again_after_the_host_has_slept_or_its_clock_was_set() {
    let time = TimeSync::new(Arc::new(Leaps(AtomicU64::new(0))), OFTEN).unwrap();
    let mut utils = Utils::agreed(time.device(), 4, 0);
    let flags: Vec<u8> = (0..7).map(|_| utils.question().body()[16]).collect();
    assert_eq!(flags, [1, 2, 2, 1, 2, 1, 2]);
}

#[test]
fn older_guests_get_the_older_sample() {
    let mut utils = Utils::agreed(time_sync(OFTEN).device(), 3, 0);
    let question = utils.question();
    assert_eq!((u64_at(question.body(), 0), u64_at(question.body(), 8)), (1_000_000, 0));
    assert_eq!(question.body()[24], 1);
}

#[test]
fn a_guest_that_is_silent_is_told_the_time_all_the_same() {
    let mut utils = Utils::agreed(time_sync(OFTEN).device(), 4, 0);
    let times: Vec<u64> = (0..3).map(|_| u64_at(utils.question().body(), 0)).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
}
