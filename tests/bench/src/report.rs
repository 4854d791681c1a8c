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
    /// A duration, less is better.
    pub fn nanoseconds(
        name: &'static str,
        params: impl Into<String>,
        value: f64,
        limit: Option<f64>,
    ) -> Self {
        let ratio = limit.map(|limit| limit / value);
        Self { name, params: params.into(), value, unit: "ns", limit, ratio }
    }
}

/// How long a figure is measured, and how often: the median of the rounds counts.
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(60);

/// Nanoseconds that one of `count` operations takes, where `work` does `count` of them.
pub fn time(count: u64, mut work: impl FnMut()) -> f64 {
    let mut runs = 1_u32;
    let per_run = loop {
        let started = Instant::now();
        (0..runs).for_each(|_| work());
        let elapsed = started.elapsed();
        if elapsed * 4 > ROUND {
            break elapsed.as_secs_f64() / f64::from(runs);
        }
        runs *= 2;
    };
    let runs = (ROUND.as_secs_f64() / per_run).ceil().max(1.0);
    let mut figures: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            (0..runs as u64).for_each(|_| work());
            started.elapsed().as_secs_f64() * 1e9 / runs / count as f64
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    figures[ROUNDS / 2]
}

/// The median of what `measure` returns in three goes, for figures that take long.
pub fn median(mut measure: impl FnMut() -> f64) -> f64 {
    let mut figures: Vec<f64> = (0..3).map(|_| measure()).collect();
    figures.sort_by(f64::total_cmp);
    figures[1]
}
