// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes over each open channel, for `busway ctl SOCKET counters` and `busway top`.
//!
//! A channel counts for itself and says what it has counted when it shows its rings to the guest, so
//! that this costs a lock for each batch of packets, and only where there is a control socket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use busway_vmbus::{Event, InterruptTarget, Passing, Place, Published, Tap};
use busway_wire::class;

use crate::capture::Capture;
use crate::control::protocol::ChannelState;
use crate::lock;

/// What goes over the channels of a machine; what passes goes on to its capture.
pub struct Traffic {
    capture: Option<Arc<Capture>>,
    channels: Mutex<BTreeMap<u32, ChannelState>>,
    started: Instant,
    /// Until when requests are timed, in nanoseconds since the start; 0 while they are not.
    timed_until: AtomicU64,
}

/// How long requests are timed after somebody has looked.
const LOOKING: u64 = 60_000_000_000;

/// [Names](class::name) of the devices whose driver sends something while the guest does nothing.
const IDLE: [&str; 5] = ["heartbeat", "timesync", "kvp", "balloon", "video"];

impl Traffic {
    /// Nothing yet.
    pub fn new(capture: Option<Arc<Capture>>) -> Self {
        let (channels, started) = (Mutex::default(), Instant::now());
        Self { capture, channels, started, timed_until: AtomicU64::new(0) }
    }

    /// The machine starts over, and its channels' numbers do.
    pub fn clear(&self) {
        lock(&self.channels).clear();
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Somebody wants to know how long requests take, and will look again within a minute.
    pub fn look(&self) {
        self.timed_until.store(self.elapsed().saturating_add(LOOKING), Ordering::Relaxed);
    }

    /// Each open channel.
    pub fn channels(&self) -> Vec<ChannelState> {
        lock(&self.channels).values().cloned().collect()
    }

    /// Packets that the guest has sent of its drivers' own accord: none of what answers the host's
    /// clockwork or reports each second, and no picture, in which a cursor blinks. Less when a channel has closed.
    pub fn work(&self) -> u64 {
        let channels = lock(&self.channels);
        let own = channels.values().filter(|state| !IDLE.contains(&&*state.device));
        own.map(|state| state.packets_in).sum()
    }

    fn count(&self, place: &Place, event: &Event<'_>) {
        let number = place.key.number();
        match *event {
            Event::Opened { target, incoming_len, outgoing_len } => {
                let (vp, relid) = match target {
                    InterruptTarget::Polled => (None, None),
                    InterruptTarget::EventFlag { vp, flag, .. } => (Some(vp), Some(flag)),
                    InterruptTarget::InterruptPage { bit, .. } => (Some(0), Some(bit)),
                };
                let device = class::name(place.class);
                let state = ChannelState {
                    number,
                    subchannel: place.subchannel,
                    device: device.map_or_else(|| place.class.to_string(), str::to_owned),
                    instance: place.instance.to_string(),
                    vp,
                    relid,
                    incoming_len,
                    outgoing_len,
                    ..ChannelState::default()
                };
                lock(&self.channels).insert(number, state);
            }
            Event::Published(published) => {
                if let Some(state) = lock(&self.channels).get_mut(&number) {
                    add(state, &published);
                }
            }
            Event::Timed(latency) => {
                if let Some(state) = lock(&self.channels).get_mut(&number) {
                    state.latency.add(latency);
                }
            }
            Event::Closed => {
                lock(&self.channels).remove(&number);
            }
            Event::Turn(_) | Event::Packet { .. } | Event::Outside { .. } => {}
        }
    }
}

fn add(state: &mut ChannelState, published: &Published) {
    // The guest's own index may be anything.
    let used = |write: u32, read: u32, len: u32| match write.checked_sub(read) {
        Some(used) => used.min(len),
        None => len.saturating_sub(read - write),
    };
    let Published { incoming_read, incoming_write, outgoing_read, outgoing_write, .. } = *published;
    state.incoming_used = used(incoming_write, incoming_read, state.incoming_len);
    state.outgoing_used = used(outgoing_write, outgoing_read, state.outgoing_len);
    state.packets_in += published.taken.packets;
    state.bytes_in += published.taken.bytes;
    state.packets_out += published.put.packets;
    state.bytes_out += published.put.bytes;
    state.batches += 1;
    state.interrupts += u64::from(published.reader_waits || published.writer_waits);
    let spared = published.put.packets != 0 && !published.reader_waits;
    state.spared += u64::from(spared);
    state.masked += u64::from(spared && published.outgoing_mask != 0);
}

impl Tap for Traffic {
    fn passes(&self, what: &Passing<'_>) {
        if let Passing::Channel(place, event) = what {
            self.count(place, event);
        }
        if let Some(capture) = &self.capture {
            capture.passes(what);
        }
    }

    fn now(&self) -> Option<u64> {
        let until = self.timed_until.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        let now = self.elapsed();
        if now > until {
            self.timed_until.store(0, Ordering::Relaxed);
            return None;
        }
        Some(now)
    }

    fn wants_packets(&self) -> bool {
        self.capture.is_some()
    }

    fn wants_data(&self) -> bool {
        self.capture.as_ref().is_some_and(|capture| capture.wants_data())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use busway_integration::Heartbeat;
    use busway_ring::Packet;
    use busway_testkit::{GuestChannel, Pair, PairConfig};
    use busway_vmbus::{ChannelHandler, Device, Fault, Io, Offer, Opening};
    use busway_wire::{Guid, Version};

    use super::*;
    use crate::control::protocol::Latency;

    #[test]
    fn a_channel_counts_as_long_as_it_is_open() {
        let traffic = Arc::new(Traffic::new(None));
        let mut pair = Pair::new(PairConfig::default());
        pair.bus.tap(traffic.clone());
        pair.add(Heartbeat::new(Duration::from_secs(2)).unwrap().device());
        let offer = *pair.connect(Version::V5_3).offer(class::HEARTBEAT);
        assert!(traffic.channels().is_empty());
        let channel = pair.open(&offer, 4, 0).unwrap();
        let [state] = &*traffic.channels() else { panic!("one channel is open") };
        assert_eq!((&*state.device, state.vp), ("heartbeat", Some(0)));
        assert_eq!(state.relid.map(u32::from), Some(offer.relid));
        assert_eq!((state.incoming_len, state.outgoing_len), (12288, 12288));
        // It asks for versions at once: pipe, header and the lists.
        assert_eq!((state.packets_in, state.packets_out, state.interrupts), (0, 1, 1));
        assert_eq!(u64::from(state.outgoing_used), state.bytes_out + 8);
        pair.close(channel);
        assert!(traffic.channels().is_empty());
    }

    /// Answers each request at once.
    #[derive(Clone, Copy)]
    struct Echo(Guid);

    impl Device for Echo {
        fn offer(&self) -> Offer {
            Offer::new(self.0, self.0)
        }

        fn open(&mut self, _opening: &Opening) -> Result<Box<dyn ChannelHandler>, Fault> {
            Ok(Box::new(*self))
        }
    }

    impl ChannelHandler for Echo {
        fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
            io.complete(packet.descriptor.transaction_id, &[])
        }
    }

    #[test]
    fn requests_are_timed_while_somebody_looks() {
        let traffic = Arc::new(Traffic::new(None));
        let mut pair = Pair::new(PairConfig::default());
        pair.bus.tap(traffic.clone());
        pair.add(Echo(class::SCSI));
        let offer = *pair.connect(Version::V5_3).offer(class::SCSI);
        let mut channel = pair.open(&offer, 4, 0).unwrap();
        let timed = |pair: &mut Pair, channel: &mut GuestChannel| {
            channel.request(pair, 7, &[0; 8]);
            channel.receive(pair);
            traffic.channels()[0].latency.clone()
        };
        assert_eq!(timed(&mut pair, &mut channel), Latency::default());
        traffic.look();
        let latency = timed(&mut pair, &mut channel);
        assert_eq!(latency.requests, 1);
        assert_eq!(latency.buckets.iter().sum::<u64>(), 1);
        assert_eq!(latency.total_ns, latency.longest_ns);
        assert_eq!(timed(&mut pair, &mut channel).requests, 2);
        // A minute later nobody has looked again.
        traffic.timed_until.store(1, Ordering::Relaxed);
        assert_eq!(timed(&mut pair, &mut channel).requests, 2);
        assert_eq!(traffic.timed_until.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_index_that_makes_no_sense_is_no_harm() {
        let mut state = ChannelState { incoming_len: 100, ..ChannelState::default() };
        let rings = Published {
            incoming_read: 0,
            incoming_write: u32::MAX,
            incoming_pending: 0,
            outgoing_read: u32::MAX,
            outgoing_write: 0,
            outgoing_mask: 1,
            reader_waits: false,
            writer_waits: false,
            taken: Default::default(),
            put: Default::default(),
        };
        add(&mut state, &rings);
        assert_eq!((state.incoming_used, state.outgoing_used, state.spared), (100, 0, 0));
    }

    #[test]
    fn the_hosts_clockwork_is_no_work_of_the_guests() {
        let traffic = Arc::new(Traffic::new(None));
        let mut pair = Pair::new(PairConfig::default());
        pair.bus.tap(traffic.clone());
        let classes = [class::HEARTBEAT, class::SCSI, class::VIDEO, class::NETWORK];
        for class in classes {
            pair.add(Echo(class));
        }
        let greeting = pair.connect(Version::V5_3);
        let work = classes.map(|class| {
            let offer = *greeting.offer(class);
            let mut channel = pair.open(&offer, 4, 0).unwrap();
            channel.request(&mut pair, 7, &[0; 8]);
            channel.receive(&mut pair);
            traffic.work()
        });
        assert_eq!(work, [0, 1, 1, 2]);
    }
}
