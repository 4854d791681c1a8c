// SPDX-License-Identifier: MIT OR Apache-2.0

//! Captures as a timeline: the trace event format that Perfetto and chrome://tracing open. A row for
//! each channel, a slice for each transaction.
//!
//! Transactions of one channel overlap, and slices of one row must not: a channel has as many rows
//! as it has had transactions at once.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::decode::{Channel, Decoded};
use crate::layout::Kind;

/// Rows of one channel at most; a transaction that finds none shares the last.
const MOST_ROWS: usize = 256;

/// A channel's rows, or the bus's: until when each is taken, in nanoseconds.
#[derive(Default)]
struct Rows(Vec<u64>);

/// Writes a timeline.
pub struct Timeline<W> {
    out: W,
    rows: BTreeMap<Option<Channel>, Rows>,
    /// Transactions, until all that began before them are known.
    waiting: Vec<Slice>,
    any: bool,
}

struct Slice {
    channel: Option<Channel>,
    from: u64,
    to: u64,
    name: String,
    text: String,
    request: u64,
    answer: u64,
}

impl<W: Write> Timeline<W> {
    /// A timeline that is written to `out`.
    pub fn start(mut out: W) -> io::Result<Self> {
        out.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n")?;
        Ok(Self { out, rows: BTreeMap::new(), waiting: Vec::new(), any: false })
    }

    /// Adds what a record tells.
    pub fn add(&mut self, decoded: &Decoded) {
        let Some(answered) = &decoded.answers else {
            return;
        };
        let channel = decoded.channel.filter(|_| decoded.kind != Some(Kind::Message));
        self.waiting.push(Slice {
            channel,
            from: decoded.time.saturating_sub(answered.latency),
            to: decoded.time,
            name: answered.name.clone(),
            text: decoded.text.clone(),
            request: answered.request,
            answer: decoded.number,
        });
    }

    /// Writes what is left, and the names of the rows.
    pub fn finish(mut self) -> io::Result<()> {
        // By their beginnings, so that each finds the first row that is free then.
        self.waiting.sort_by_key(|slice| (slice.from, slice.request));
        for slice in std::mem::take(&mut self.waiting) {
            let row = self.rows.entry(slice.channel).or_default().take(slice.from, slice.to);
            let event = json!({
                "ph": "X", "pid": 1, "tid": tid(slice.channel, row), "name": slice.name,
                "ts": micros(slice.from), "dur": micros(slice.to - slice.from),
                "args": {"answer": slice.text, "records": [slice.request, slice.answer]},
            });
            self.event(&event)?;
        }
        self.event(&json!({
            "ph": "M", "pid": 1, "name": "process_name", "args": {"name": "busway"},
        }))?;
        for (channel, Rows(rows)) in std::mem::take(&mut self.rows) {
            for row in 0..rows.len() {
                let mut name = channel.map_or_else(|| "bus".to_owned(), |it| it.to_string());
                if row != 0 {
                    name.push_str(&format!(" ({})", row + 1));
                }
                let tid = tid(channel, row);
                let args = json!({"name": name});
                self.event(&json!({
                    "ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": args,
                }))?;
                let args = json!({"sort_index": tid});
                self.event(&json!({
                    "ph": "M", "pid": 1, "tid": tid, "name": "thread_sort_index", "args": args,
                }))?;
            }
        }
        self.out.write_all(b"\n]}\n")?;
        self.out.flush()
    }

    fn event(&mut self, event: &Value) -> io::Result<()> {
        if std::mem::replace(&mut self.any, true) {
            self.out.write_all(b",\n")?;
        }
        serde_json::to_writer(&mut self.out, event)?;
        Ok(())
    }
}

impl Rows {
    /// A row that is free from then on.
    fn take(&mut self, from: u64, to: u64) -> usize {
        let free = self.0.iter().position(|taken| *taken <= from);
        let row = free.unwrap_or_else(|| {
            if self.0.len() < MOST_ROWS {
                self.0.push(0);
            }
            self.0.len() - 1
        });
        if let Some(taken) = self.0.get_mut(row) {
            *taken = (*taken).max(to);
        }
        row
    }
}

/// The number of a row: those of a channel stand together.
fn tid(channel: Option<Channel>, row: usize) -> u64 {
    let channel = channel.map_or(0, |channel| u64::from(channel.number) + 1);
    channel * MOST_ROWS as u64 + row as u64
}

/// The format counts in microseconds.
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}
