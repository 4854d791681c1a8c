// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a running busway holds of the host: what a guest's life cycle must not make it keep.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// Time in which what has been given up is gone.
const MOMENT: Duration = Duration::from_millis(500);

/// By what the kernel calls each of them, how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resources {
    descriptors: BTreeMap<String, usize>,
    threads: BTreeMap<String, usize>,
    /// Bytes of guest memory and of the views of it that rings are. (How many areas these are depends on
    /// where the guest's pages lie.)
    mapped: usize,
}

impl Resources {
    /// What the process has now.
    fn of(pid: u32) -> Self {
        let directory = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        let entries = |name: &str| fs::read_dir(directory(name)).unwrap().flatten();
        let links = entries("fd").filter_map(|entry| fs::read_link(entry.path()).ok());
        // A socket's name has its number.
        let descriptors = links.map(|link| kind(&link.to_string_lossy()));
        let names = entries("task").map(|entry| fs::read_to_string(entry.path().join("comm")));
        let threads = names.flatten().map(|name| kind(name.trim_end()));
        let maps = fs::read_to_string(directory("maps")).unwrap();
        let shared = maps.lines().filter(|line| line.contains("/memfd:"));
        let mapped = shared.map(length).sum();
        Self { descriptors: count(descriptors), threads: count(threads), mapped }
    }

    /// What it has once that stays the same for a moment.
    pub(crate) fn settled(pid: u32, deadline: Instant) -> Self {
        let mut seen = Self::of(pid);
        loop {
            thread::sleep(MOMENT);
            let now = Self::of(pid);
            if now == seen {
                return now;
            }
            assert!(Instant::now() < deadline, "it never stands still: {now:?}");
            seen = now;
        }
    }
}

/// A name without the numbers in it.
fn kind(name: &str) -> String {
    name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '[' || c == ']').to_owned()
}

/// Of the area in a line of /proc/PID/maps.
fn length(line: &str) -> usize {
    let (range, _) = line.split_once(' ').unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let number = |hex| usize::from_str_radix(hex, 16).unwrap();
    number(end) - number(start)
}

fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}
