// SPDX-License-Identifier: MIT OR Apache-2.0

//! Open channels: how they stand, and what has gone over them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An open channel, and what has gone over it since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    /// Its number, as captures have it.
    pub number: u32,
    /// 0 for a primary channel.
    pub subchannel: u16,
    /// The device's name, or its class.
    pub device: String,
    /// Which device.
    pub instance: String,
    /// The VP that was to be interrupted when the channel was opened.
    pub vp: Option<u32>,
    /// The guest's number of it.
    pub relid: Option<u16>,
    /// Bytes that the guest's ring holds.
    pub incoming_len: u32,
    /// Bytes that stood in it when that was last looked at.
    pub incoming_used: u32,
    /// Bytes that the host's ring holds.
    pub outgoing_len: u32,
    /// Bytes that stood in it when that was last looked at.
    pub outgoing_used: u32,
    /// Packets from the guest.
    pub packets_in: u64,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Packets to the guest.
    pub packets_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Times that the rings were shown to the guest.
    pub batches: u64,
    /// Times that it had to be interrupted then.
    pub interrupts: u64,
    /// Times that it got packets without an interrupt: it was still reading, or
    pub spared: u64,
    /// of these, it had masked interrupts.
    pub masked: u64,
    /// How long its requests took, while somebody asked for counters again and again.
    #[serde(default)]
    pub latency: Latency,
}

impl ChannelState {
    /// The device, and which of its channels.
    pub fn name(&self) -> String {
        match self.subchannel {
            0 => self.device.clone(),
            index => format!("{}.{index}", self.device),
        }
    }
}

/// How long a guest's requests took: from when the host took them out of the ring to its answer.
/// Measured for a minute after counters were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub requests: u64,
    /// Nanoseconds of all together.
    pub total_ns: u64,
    /// Nanoseconds of the one that took longest.
    pub longest_ns: u64,
    /// How many took less than 1 us, 2 us, 4 us and so on, each counted once; the last has all that
    /// took longer.
    pub buckets: Vec<u64>,
}

impl Latency {
    /// Adds what a channel has measured.
    pub fn add(&mut self, measured: &busway_vmbus::Latency) {
        let busway_vmbus::Latency { requests, total, longest, buckets } = measured;
        self.requests += requests;
        self.total_ns = self.total_ns.saturating_add(*total);
        self.longest_ns = self.longest_ns.max(*longest);
        self.buckets.resize(buckets.len(), 0);
        for (sum, count) in self.buckets.iter_mut().zip(buckets) {
            *sum += u64::from(*count);
        }
    }

    /// What was measured since `before`, but for the longest.
    pub fn since(&self, before: &Self) -> Self {
        let before_in = |at: usize| before.buckets.get(at).copied().unwrap_or_default();
        let buckets = self.buckets.iter().enumerate();
        Self {
            requests: self.requests.saturating_sub(before.requests),
            total_ns: self.total_ns.saturating_sub(before.total_ns),
            longest_ns: self.longest_ns,
            buckets: buckets.map(|(at, count)| count.saturating_sub(before_in(at))).collect(),
        }
    }

    /// Microseconds on average; `None` if nothing was measured.
    pub fn mean_us(&self) -> Option<u64> {
        (self.total_ns / 1000).checked_div(self.requests)
    }

    /// Microseconds that 99 of 100 do not reach, as a power of two.
    pub fn most_us(&self) -> Option<u64> {
        let (all, mut so_far) = (self.buckets.iter().sum::<u64>(), 0);
        let bucket = self.buckets.iter().position(|count| {
            so_far += count;
            so_far != 0 && so_far * 100 >= all * 99
        })?;
        Some(1 << bucket)
    }
}

pub(super) fn print_channels(f: &mut fmt::Formatter<'_>, channels: &[ChannelState]) -> fmt::Result {
    let (ch, device, vp, relid) = ("ch", "device", "vp", "relid");
    writeln!(f, "{ch:>3} {device:<12} {vp:>3} {relid:>5}  guest's ring, host's ring; instance")?;
    for state in channels {
        let number = |number: Option<u32>| number.map_or("-".to_owned(), |it| it.to_string());
        let (vp, relid) = (number(state.vp), number(state.relid.map(u32::from)));
        write!(f, "{:>3} {:<12} {vp:>3} {relid:>5}", state.number, state.name())?;
        write!(f, "  {} of {} B,", state.incoming_used, state.incoming_len)?;
        write!(f, " {} of {} B;", state.outgoing_used, state.outgoing_len)?;
        writeln!(f, " {}", state.instance)?;
    }
    Ok(())
}

pub(super) fn print_counters(f: &mut fmt::Formatter<'_>, channels: &[ChannelState]) -> fmt::Result {
    for state in channels {
        let ChannelState { packets_in, bytes_in, packets_out, bytes_out, .. } = state;
        let ChannelState { interrupts, spared, masked, batches, .. } = state;
        write!(f, "{:>3} {:<12} ", state.number, state.name())?;
        write!(f, "in {packets_in} packets, {bytes_in} B; out {packets_out} packets, ")?;
        write!(f, "{bytes_out} B; {batches} batches, {interrupts} interrupts, ")?;
        write!(f, "{spared} times none for packets ({masked} masked)")?;
        let latency = &state.latency;
        if let (Some(mean), Some(most)) = (latency.mean_us(), latency.most_us()) {
            let (requests, longest) = (latency.requests, latency.longest_ns / 1000);
            write!(f, "; {requests} requests took {mean} us on average, ")?;
            write!(f, "99 % less than {most} us, the longest {longest} us")?;
        }
        writeln!(f)?;
    }
    Ok(())
}
