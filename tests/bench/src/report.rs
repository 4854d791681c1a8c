// SPDX-License-Identifier: MIT OR Apache-2.0

//! One line of the table, and how its figures are taken.

use std::time::{Duration, Instant};

use serde::Serialize;

/// A figure and the limit beside it, both from this run.
#[derive(Debug, Serialize)]
pub struct Line {
    /// The line of the design's table.
    pub name: &'static str,
    /// What was varied.
    pub params: String,
    /// The figure.
    pub value: f64,
    /// Its unit; the limit has the same.
    pub unit: &'static str,
    /// What the machine does with nothing of ours in between, where that can be said.
    pub limit: Option<f64>,
    /// How close the figure comes: 1 is the limit, below 1 is worse.
    pub ratio: Option<f64>,
}

impl Line {
    /// A duration.
    pub fn nanoseconds(
        name: &'static str,
        params: impl Into<String>,
        value: f64,
        limit: Option<f64>,
    ) -> Self {
        Self::less(name, params, value, "ns", limit)
    }

    /// What is better the less it is.
    pub fn less(
        name: &'static str,
        params: impl Into<String>,
        value: f64,
        unit: &'static str,
        limit: Option<f64>,
    ) -> Self {
        // Where nothing at all can be reached and is, that is the limit itself.
        let ratio = limit.map(|limit| if value == limit { 1.0 } else { limit / value });
        Self { name, params: params.into(), value, unit, limit, ratio }
    }
}

/// How long a figure is measured, and how often: the median of the rounds counts.
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(60);

/// How long each of two that are compared works before the other does, and how often both do: what else goes
/// on in the machine then meets both alike.
const SLICE: Duration = Duration::from_millis(4);
const PAIRS: usize = 101;

/// Nanoseconds that one of `count` operations takes, where `work` does `count` of them.
pub fn time(count: u64, work: impl FnMut()) -> f64 {
    let origin = Instant::now();
    time_by(|| origin.elapsed(), count, work)
}

/// The same in time of the processor, the kernel's for this thread counted: for work that never
/// sleeps, which others may keep from the processor.
pub fn cpu_time(count: u64, work: impl FnMut()) -> f64 {
    time_by(thread_time, count, work)
}

/// [`cpu_time`] of `work`, and what that of `bare`, which does as many operations, is beside it: both take
/// turns in short slices, and the median of the ratios of neighbours counts.
pub fn cpu_times(count: u64, mut work: impl FnMut(), mut bare: impl FnMut()) -> (f64, f64) {
    let runs = runs(thread_time, SLICE, &mut work);
    let bare_runs = self::runs(thread_time, SLICE, &mut bare);
    let pairs = (0..PAIRS).map(|_| {
        let value = figure(thread_time, runs, &mut work);
        (value, figure(thread_time, bare_runs, &mut bare) / value)
    });
    let (values, ratios) = pairs.unzip();
    let value = median_of(values);
    (value / count as f64, value * median_of(ratios) / count as f64)
}

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

fn time_by(now: impl Fn() -> Duration, count: u64, mut work: impl FnMut()) -> f64 {
    let runs = runs(&now, ROUND, &mut work);
    median_of((0..ROUNDS).map(|_| figure(&now, runs, &mut work)).collect()) / count as f64
}

/// How often `work` is done in `time`.
fn runs(now: impl Fn() -> Duration, time: Duration, mut work: impl FnMut()) -> u64 {
    let mut runs = 1_u32;
    let per_run = loop {
        let started = now();
        (0..runs).for_each(|_| work());
        let elapsed = now() - started;
        if elapsed * 4 > time {
            break elapsed.as_secs_f64() / f64::from(runs);
        }
        runs *= 2;
    };
    (time.as_secs_f64() / per_run).ceil().max(1.0) as u64
}

/// Nanoseconds of one of `runs`.
fn figure(now: impl Fn() -> Duration, runs: u64, mut work: impl FnMut()) -> f64 {
    let started = now();
    (0..runs).for_each(|_| work());
    (now() - started).as_secs_f64() * 1e9 / runs as f64
}

/// The median of what `measure` returns in three goes, for figures that take long.
pub fn median(mut measure: impl FnMut() -> f64) -> f64 {
    median_of((0..3).map(|_| measure()).collect())
}

/// The median of an odd number of figures.
pub fn median_of(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
