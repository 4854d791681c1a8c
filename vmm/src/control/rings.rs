// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway ctl SOCKET ring N`: the rings of an open channel, and the packets in them.

use std::fmt;
use std::sync::mpsc;
use std::time::Duration;

use busway_capture::layout::{self, Header, Kind};
use busway_capture::{Decoder, Record};
use busway_ring::{Packet, Snapshot};
use busway_vmbus::{Place, RingSnapshots};
use busway_wire::class;
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use super::protocol::Reply;
use crate::bus::{BusLine, News};

/// How long a channel's worker may take: far longer than a turn does.
const PATIENCE: Duration = Duration::from_secs(10);

/// Packets of a ring that are shown; more are counted.
const LISTED: usize = 256;

/// Both rings of an open channel, at one moment between two turns of its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rings {
    /// The channel's number, as captures have it.
    pub number: u32,
    /// The guest's number of it.
    pub relid: u32,
    /// 0 for a primary channel.
    pub subchannel: u16,
    /// The device's name, or its class.
    pub device: String,
    /// Which device.
    pub instance: String,
    /// The channel has stopped: what the guest wrote made no sense.
    pub stopped: bool,
    /// The host's packets that found no room in its ring.
    pub backlog: usize,
    /// The guest's ring.
    pub incoming: Ring,
    /// The host's ring.
    pub outgoing: Ring,
}

/// One ring. Words are as they stand in its control page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Bytes that it holds.
    pub len: u32,
    /// Bytes of packets in it.
    pub used: usize,
    /// Where its writer goes on.
    pub write_index: u32,
    /// Where its reader does.
    pub read_index: u32,
    /// Where the host goes on, whatever the word says.
    pub position: u32,
    /// Not 0 while its reader wants no interrupts.
    pub interrupt_mask: u32,
    /// Bytes of room that its writer waits for, or 0.
    pub pending_send_size: u32,
    /// Bit 0: its writer says in `pending_send_size` when it waits.
    pub feature_bits: u32,
    /// How many packets are in it.
    pub packets_in_all: usize,
    /// The oldest of them.
    pub packets: Vec<RingPacket>,
    /// What makes no sense, if anything does not.
    pub broken: Option<String>,
}

/// A packet in a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingPacket {
    /// Where it begins.
    pub at: u32,
    /// Its bytes, without trailer.
    pub len: usize,
    /// Its transaction id, as hexadecimal text.
    pub transaction_id: String,
    /// Its writer wants an answer.
    pub wants_completion: bool,
    /// What it says.
    pub text: String,
    /// All of it was understood.
    pub known: bool,
}

/// Asks the channel's worker, and waits for it.
pub(super) fn ring(bus: &BusLine, relid: u32) -> Result<Reply, String> {
    let (to, from) = mpsc::sync_channel(1);
    bus.send(News::Show(relid, to));
    match from.recv_timeout(PATIENCE) {
        Ok(snapshots) => Ok(Reply::Ring(Box::new(Rings::new(relid, &snapshots)))),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(format!("no open channel has relid {relid}; `channels` lists them"))
        }
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(format!("the channel's worker has had no time for {} s", PATIENCE.as_secs()))
        }
    }
}

impl Rings {
    fn new(relid: u32, snapshots: &RingSnapshots) -> Self {
        let RingSnapshots { place, incoming, outgoing, backlog, faulted } = snapshots;
        let Place { key, class, instance, subchannel, .. } = *place;
        let mut decoder = Decoder::default();
        // Requests first, so that answers in the other ring are known by them.
        let incoming = Ring::new(incoming, place, layout::GUEST, &mut decoder);
        let outgoing = Ring::new(outgoing, place, layout::HOST, &mut decoder);
        Self {
            number: key.number(),
            relid,
            subchannel,
            device: class::name(class).map_or_else(|| class.to_string(), str::to_owned),
            instance: instance.to_string(),
            stopped: *faulted,
            backlog: *backlog,
            incoming,
            outgoing,
        }
    }
}

impl Ring {
    fn new(ring: &Snapshot, place: &Place, side: u8, decoder: &mut Decoder) -> Self {
        let mut broken = ring.broken_index().map(|error| error.to_string());
        let (mut packets, mut packets_in_all) = (Vec::new(), 0);
        for packet in ring.packets() {
            match packet {
                Ok((at, packet)) => {
                    packets_in_all += 1;
                    if packets.len() < LISTED {
                        packets.push(RingPacket::new(at, &packet, place, side, decoder));
                    }
                }
                Err(error) => broken = Some(error.to_string()),
            }
        }
        Self {
            len: ring.data_len,
            used: ring.data.len(),
            write_index: ring.write_index,
            read_index: ring.read_index,
            position: ring.position,
            interrupt_mask: ring.interrupt_mask,
            pending_send_size: ring.pending_send_size,
            feature_bits: ring.feature_bits,
            packets_in_all,
            packets,
            broken,
        }
    }
}

impl RingPacket {
    fn new(at: u32, packet: &Packet<'_>, place: &Place, side: u8, decoder: &mut Decoder) -> Self {
        let Packet { descriptor, header, payload } = *packet;
        let body = [descriptor.as_bytes(), header, payload].concat();
        let header = Header {
            channel: place.key.number(),
            subchannel: place.subchannel,
            class: place.class.0,
            instance: place.instance.0,
            at,
            len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            ..Header::new(Kind::Packet, side)
        };
        let decoded = decoder.decode(&Record { number: 0, time: 0, header, body });
        Self {
            at,
            len: descriptor.total_len(),
            transaction_id: format!("{:#x}", { descriptor.transaction_id }),
            wants_completion: descriptor.wants_completion(),
            text: decoded.text,
            known: decoded.known,
        }
    }
}

impl fmt::Display for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, relid, subchannel, device, instance, stopped, backlog, .. } = self;
        write!(f, "channel {number}, relid {relid}: {device}")?;
        if *subchannel != 0 {
            write!(f, ".{subchannel}")?;
        }
        writeln!(f, " {instance}{}", if *stopped { ", stopped" } else { "" })?;
        for (name, ring) in [("guest", &self.incoming), ("host", &self.outgoing)] {
            writeln!(f, "the {name}'s ring: {ring}")?;
            for packet in &ring.packets {
                let RingPacket { text, known, .. } = packet;
                writeln!(f, "  {text}{}", if *known { "" } else { " (unknown)" })?;
            }
            let more = ring.packets_in_all.saturating_sub(ring.packets.len());
            if more != 0 {
                writeln!(f, "  and {more} more")?;
            }
            if let Some(broken) = &ring.broken {
                writeln!(f, "  broken: {broken}")?;
            }
        }
        match backlog {
            0 => Ok(()),
            backlog => writeln!(f, "{backlog} packets of the host's find no room"),
        }
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, used, write_index, read_index, position, packets_in_all, .. } = self;
        write!(f, "{packets_in_all} packets, {used} of {len} B; ")?;
        write!(f, "write index {write_index:#x}, read index {read_index:#x}")?;
        if position != write_index && position != read_index {
            write!(f, ", the host at {position:#x}")?;
        }
        write!(f, "; interrupt mask {:#x}, ", self.interrupt_mask)?;
        write!(
            f,
            "pending send size {}, feature bits {:#x}",
            self.pending_send_size, self.feature_bits
        )
    }
}

#[cfg(test)]
#[path = "rings_tests.rs"]
mod tests;
