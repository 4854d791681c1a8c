// SPDX-License-Identifier: MIT OR Apache-2.0

//! A script on one open channel: its clock, and what it has put off.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::timer::Timer;
use super::{Faults, device};
use busway_fault::{Action, ChannelPlay, End, Later, Passing, Write};
use busway_ring::{Outgoing, Packet};
use busway_vmbus::{Absence, ChannelMeddler, GuestFate, HeldPacket, HostFate, Place, Rewrite};

/// The play of one channel.
pub(super) struct Playing {
    faults: Arc<Faults>,
    play: ChannelPlay,
    place: Place,
    name: String,
    late: Later<HeldPacket>,
    /// A packet that goes behind the next, and when it goes if there is none.
    behind: Option<(Duration, HeldPacket)>,
    /// Until when the guest's packets stay in the ring.
    paused: Option<Duration>,
    /// When an interrupt is raised that was put off.
    interrupt: Option<Duration>,
    timer: Timer,
}

impl Playing {
    pub(super) fn new(faults: Arc<Faults>, play: ChannelPlay, place: Place) -> io::Result<Self> {
        let name = format!("{}#{}", device(place.class), place.key.number());
        let (late, behind, paused, interrupt) = (Later::default(), None, None, None);
        let timer = Timer::new()?;
        Ok(Self { faults, play, place, name, late, behind, paused, interrupt, timer })
    }

    /// Has the channel woken when the next thing is due.
    fn arm(&mut self) {
        let behind = self.behind.as_ref().map(|(due, _)| *due);
        let next = [self.late.next(), behind, self.paused, self.interrupt];
        self.timer.set(next.into_iter().flatten().min(), self.faults.now());
    }

    fn pause(&mut self, span: Duration) {
        self.paused = Some(self.faults.now() + span);
        self.arm();
    }

    /// What the script makes of a packet.
    fn fate(&mut self, packet: &Outgoing<'_>) -> HostFate {
        let now = self.faults.now();
        let Outgoing { kind, transaction_id, payload, .. } = *packet;
        let passing = Passing { from: End::Host, kind, transaction_id, payload };
        let fired = self.play.packet(&passing, now);
        let Some(fired) = fired else {
            return HostFate::Passes;
        };
        let faults = Arc::clone(&self.faults);
        match faults.fired(fired, &self.name, "host packet") {
            Some(Action::Drop) => HostFate::Becomes(Vec::new()),
            Some(Action::Delay(span)) => {
                let passed = self.late.push(now + span.0, HeldPacket::of(packet));
                self.arm();
                HostFate::Becomes(passed.into_iter().collect())
            }
            Some(Action::Duplicate) => {
                let packet = HeldPacket::of(packet);
                HostFate::Becomes(vec![packet.clone(), packet])
            }
            Some(Action::Reorder) => {
                self.behind = Some((now + ALONE, HeldPacket::of(packet)));
                self.arm();
                HostFate::Becomes(Vec::new())
            }
            Some(Action::Rescind) => HostFate::Rescinds(Absence::Lasting),
            Some(Action::RescindFor(span)) => {
                self.faults.vanishes(fired.rule, self.place.instance);
                HostFate::Rescinds(Absence::For(span.0))
            }
            Some(Action::Pause(span)) => {
                self.pause(span.0);
                HostFate::Passes
            }
            Some(Action::SetData(Write { at, bytes })) => HostFate::Rewrites(Rewrite { at, bytes }),
            Some(action) => {
                let mut packet = HeldPacket::of(packet);
                let HeldPacket { transaction_id, header, payload, .. } = &mut packet;
                action.edit(transaction_id, header, payload);
                HostFate::Becomes(vec![packet])
            }
            None => HostFate::Passes,
        }
    }
}

/// How long a packet waits for the one that it is to go behind.
const ALONE: Duration = Duration::from_secs(1);

impl ChannelMeddler for Playing {
    fn sends(&mut self, packet: &Outgoing<'_>) -> HostFate {
        let before = self.behind.take();
        let fate = self.fate(packet);
        let Some((due, before)) = before else {
            return fate;
        };
        match fate {
            HostFate::Passes => HostFate::Becomes(vec![HeldPacket::of(packet), before]),
            HostFate::Becomes(mut packets) => {
                packets.push(before);
                HostFate::Becomes(packets)
            }
            HostFate::Rewrites(_) | HostFate::Rescinds(_) => {
                self.behind = Some((due, before));
                fate
            }
        }
    }

    fn takes(&mut self, packet: &Packet<'_>) -> GuestFate {
        let Packet { descriptor, payload, .. } = packet;
        let (kind, transaction_id) = (descriptor.kind, descriptor.transaction_id);
        let passing = Passing { from: End::Guest, kind, transaction_id, payload };
        let fired = self.play.packet(&passing, self.faults.now());
        let Some(fired) = fired else {
            return GuestFate::Passes;
        };
        let faults = Arc::clone(&self.faults);
        match faults.fired(fired, &self.name, "guest packet") {
            Some(Action::Drop) => GuestFate::Lost,
            Some(Action::Rescind) => GuestFate::Rescinds(Absence::Lasting),
            Some(Action::RescindFor(span)) => {
                self.faults.vanishes(fired.rule, self.place.instance);
                GuestFate::Rescinds(Absence::For(span.0))
            }
            Some(Action::Pause(span)) => {
                self.pause(span.0);
                GuestFate::Passes
            }
            _ => GuestFate::Passes,
        }
    }

    fn interrupts(&mut self, is_due: bool) -> bool {
        let now = self.faults.now();
        let owed = self.interrupt.is_some_and(|due| due <= now);
        if owed {
            self.interrupt = None;
            self.arm();
        }
        let Some(fired) = self.play.interrupt(is_due, now) else {
            return is_due || owed;
        };
        let at = if is_due { "interrupt" } else { "quiet turn" };
        let faults = Arc::clone(&self.faults);
        match faults.fired(fired, &self.name, at) {
            Some(Action::NoInterrupt) => owed,
            Some(Action::InterruptLate(span)) => {
                self.interrupt.get_or_insert(now + span.0);
                self.arm();
                owed
            }
            Some(Action::Interrupt) => true,
            _ => is_due || owed,
        }
    }

    fn late(&mut self) -> Option<HeldPacket> {
        let now = self.faults.now();
        let is_due = |(due, _): &mut (Duration, HeldPacket)| *due <= now;
        let behind = self.behind.take_if(is_due).map(|(_, packet)| packet);
        let packet = behind.or_else(|| self.late.pop(now));
        if packet.is_none() {
            self.paused = self.paused.filter(|until| now < *until);
            self.arm();
        }
        packet
    }

    fn renew(&mut self) {
        self.play.renew(&self.faults.script());
    }

    fn let_go(&mut self) -> (Vec<HeldPacket>, bool) {
        let behind = self.behind.take().map(|(_, packet)| packet);
        (behind.into_iter().chain(self.late.take()).collect(), self.interrupt.take().is_some())
    }

    fn holds(&self) -> bool {
        self.paused.is_some()
    }

    fn wakeup(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
