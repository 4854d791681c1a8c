// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway top`: what goes over the channels of a running machine, again and again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::control::client::{Client, ClientError, Ending};
use crate::control::protocol::{ChannelState, Reply, Request};

/// Which machine, and how often.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The socket that `busway run --control` names
    #[arg(value_name = "SOCKET")]
    pub socket: PathBuf,

    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub interval: u64,

    /// End after so many looks [default: with the machine]
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// Clears a terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Looks until the machine ends, or long enough.
pub fn top(arguments: &TopArgs) -> Result<(), ClientError> {
    let mut client = Client::connect(&arguments.socket, false)?;
    let clear = if io::stdout().is_terminal() { CLEAR } else { "" };
    let (mut before, mut then) = (Vec::new(), Instant::now());
    let mut looks = 0;
    while arguments.count.is_none_or(|count| looks < count) {
        if looks != 0 {
            thread::sleep(Duration::from_secs(arguments.interval));
        }
        let now = match client.fetch(&Request::Counters) {
            Ok(Ending::Done(Reply::Counters { channels })) => channels,
            // The machine has ended.
            Err(ClientError::Broken(_)) if looks != 0 => return Ok(()),
            Ok(Ending::Failed(_) | Ending::Done(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let seconds = then.elapsed().as_secs_f64();
        then = Instant::now();
        let text = format!("{clear}{}", table(&before, &now, seconds));
        let mut stdout = io::stdout().lock();
        if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            return Ok(());
        }
        before = now;
        looks += 1;
    }
    Ok(())
}

/// A value in a column, or that there is none.
fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A line for each channel: what went over it in `seconds`.
fn table(before: &[ChannelState], now: &[ChannelState], seconds: f64) -> String {
    let before: HashMap<_, _> = before.iter().map(|state| (state.number, state)).collect();
    let mut text = format!(
        "{:>3} {:<12} {:>3}  {:>9} {:>9}  {:>9} {:>9}  {:>7} {:>7}  {:>7} {:>7}  {:>5} {:>5}\n",
        "ch",
        "device",
        "vp",
        "in/s",
        "kB/s",
        "out/s",
        "kB/s",
        "irq/s",
        "none/s",
        "us",
        "99% us",
        "in %",
        "out %"
    );
    for state in now {
        let last = before.get(&state.number);
        let rate = |of: fn(&ChannelState) -> u64| {
            let since = last.map_or(of(state), |last| of(state).saturating_sub(of(last)));
            // Before the second look there is no time that anything could be measured by.
            last.map_or(0.0, |_| since as f64 / seconds.max(0.001))
        };
        let latency = last.map(|last| state.latency.since(&last.latency)).unwrap_or_default();
        let percent = |used: u32, len: u32| u64::from(used) * 100 / u64::from(len.max(1));
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:>3} {:<12} {:>3}  {:>9.0} {:>9.1}  {:>9.0} {:>9.1}  {:>7.0} {:>7.0}  {:>7} {:>7}  {:>5} {:>5}",
            state.number,
            state.name(),
            or_none(state.vp),
            rate(|state| state.packets_in),
            rate(|state| state.bytes_in) / 1000.0,
            rate(|state| state.packets_out),
            rate(|state| state.bytes_out) / 1000.0,
            rate(|state| state.interrupts),
            rate(|state| state.spared),
            or_none(latency.mean_us()),
            or_none(latency.most_us().map(|most| format!("<{most}"))),
            percent(state.incoming_used, state.incoming_len),
            percent(state.outgoing_used, state.outgoing_len),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Latency;

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let state = |packets_in, bytes_in| ChannelState {
            number: 3,
            device: "storage".to_owned(),
            vp: Some(1),
            incoming_len: 1000,
            incoming_used: 250,
            packets_in,
            bytes_in,
            latency: Latency {
                requests: packets_in,
                total_ns: bytes_in * 1000,
                longest_ns: 5000,
                buckets: vec![7, 0, 0, 0, 0, packets_in],
            },
            ..ChannelState::default()
        };
        let words = |text: &str| {
            let line = text.lines().nth(1).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let first = words(&table(&[], &[state(100, 5000)], 0.0));
        assert_eq!(first[..5], ["3", "storage", "1", "0", "0.0"]);
        let second = words(&table(&[state(100, 5000)], &[state(300, 9000)], 2.0));
        assert_eq!(second[..5], ["3", "storage", "1", "100", "2.0"]);
        // Between the looks 200 requests took 4 ms, each of them 16 to 32 us.
        assert_eq!(second[9..], ["20", "<32", "25", "0"]);
        assert_eq!(first[9..], ["-", "-", "25", "0"]);
        // A channel that was opened anew counts from the start.
        let third = words(&table(&[state(100, 5000)], &[state(1, 1)], 2.0));
        assert_eq!(third[3], "0");
    }
}
