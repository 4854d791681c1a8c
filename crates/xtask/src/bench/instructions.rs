// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask bench --instructions`: what callgrind counts for each packet, request or frame, beside
//! what it counted when `tests/bench/instructions.json` was saved. A busy machine counts the same as a
//! quiet one, which is why CI can hold on to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::Line;
use crate::{tools, workspace};

/// By how much a count may grow before CI fails.
const GROWTH: f64 = 1.03;

/// How often a turn is done; what comes before the first is the same in both, and falls out.
const TIMES: (u32, u32) = (100, 300);

/// A machine's own part in the counts: the C library has a copy for each kind of processor.
const MACHINE: &str = "memcpy";

const UNIT: &str = "instr";

/// What was counted, and by what compiler's code.
#[derive(Debug, Deserialize, Serialize)]
struct Saved {
    rustc: String,
    counts: Vec<Count>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Count {
    name: String,
    params: String,
    value: f64,
}

/// What `busway-bench --turns` can do.
#[derive(Debug, Deserialize)]
struct Work {
    name: String,
    params: String,
    /// Packets, requests or frames in a turn.
    count: u32,
}

/// How the counts compare with those that were saved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// None has grown.
    Kept,
    /// These have, by more than [`GROWTH`].
    Grown(Vec<String>),
    /// They say nothing of each other, for this reason.
    NotComparable(String),
}

/// Counts, and compares with what was saved.
pub(crate) fn run(built: &Path) -> anyhow::Result<(Vec<Line>, Verdict)> {
    let now = count(built)?;
    let path = saved_path();
    let saved = fs::read(&path).with_context(|| path.display().to_string())?;
    let saved = serde_json::from_slice(&saved).with_context(|| path.display().to_string())?;
    Ok(compare(&now, &saved))
}

/// Counts, and saves that for later comparisons.
pub(crate) fn save(built: &Path) -> anyhow::Result<Vec<Line>> {
    let now = count(built)?;
    fs::write(saved_path(), serde_json::to_string_pretty(&now)? + "\n")?;
    Ok(compare(&now, &now).0)
}

fn saved_path() -> PathBuf {
    workspace::root().join("tests/bench/instructions.json")
}

fn count(built: &Path) -> anyhow::Result<Saved> {
    tools::ensure(tools::COUNTS)?;
    let bench = built.join("busway-bench");
    let works = Command::new(&bench).arg("--turns").output().context("the bench program")?;
    let works: Vec<Work> = serde_json::from_slice(&works.stdout)?;
    let mut counts = Vec::new();
    for (number, work) in works.into_iter().enumerate() {
        eprintln!("xtask: callgrind, {} {}", work.name, work.params);
        let (few, many) = TIMES;
        let more = instructions(&bench, number, many)? - instructions(&bench, number, few)?;
        let value = more / f64::from((many - few) * work.count);
        counts.push(Count { name: work.name, params: work.params, value });
    }
    Ok(Saved { rustc: rustc()?, counts })
}

fn rustc() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("rustc --version")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn instructions(bench: &Path, number: usize, times: u32) -> anyhow::Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(bench)
        .args(["--turns", &number.to_string(), &times.to_string()])
        .output()
        .context("could not run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let collected = collected.and_then(|(_, number)| number.trim().parse().ok());
    collected.with_context(|| format!("callgrind counted nothing: {}", said.trim()))
}

fn compare(now: &Saved, saved: &Saved) -> (Vec<Line>, Verdict) {
    let before = |count: &Count| {
        let mut all = saved.counts.iter();
        let same = all.find(|old| old.name == count.name && old.params == count.params);
        same.map(|old| old.value)
    };
    let lines = now.counts.iter().map(|count| Line {
        name: count.name.clone(),
        params: count.params.clone(),
        value: Some(count.value),
        unit: UNIT.to_owned(),
        limit: before(count),
        ratio: before(count).map(|old| old / count.value),
    });
    let verdict = if now.rustc != saved.rustc {
        Verdict::NotComparable(format!(
            "the counts were saved with {}, this is {}",
            saved.rustc, now.rustc
        ))
    } else if now.counts.iter().any(|count| count.name == MACHINE && differs(count, before(count)))
    {
        Verdict::NotComparable("this processor's memcpy is another than the saved one".to_owned())
    } else {
        judge(now, before)
    };
    (lines.collect(), verdict)
}

fn differs(count: &Count, before: Option<f64>) -> bool {
    before.is_none_or(|before| (count.value - before).abs() > 1.0)
}

fn judge(now: &Saved, before: impl Fn(&Count) -> Option<f64>) -> Verdict {
    let grown = now.counts.iter().filter_map(|count| {
        let what = format!("{} {}", count.name, count.params);
        match before(count) {
            Some(old) if count.value <= old * GROWTH => None,
            Some(old) => Some(format!("{what}: {:.1} instructions, {old:.1} before", count.value)),
            None => Some(format!("{what}: not saved yet; cargo xtask bench --instructions=save")),
        }
    });
    let grown: Vec<_> = grown.collect();
    if grown.is_empty() { Verdict::Kept } else { Verdict::Grown(grown) }
}

/// Fails for those that have grown, and says so if that cannot be told.
pub(crate) fn hold(verdict: &Verdict) -> anyhow::Result<()> {
    match verdict {
        Verdict::Kept => Ok(()),
        Verdict::Grown(grown) => bail!("{}", grown.join("; ")),
        Verdict::NotComparable(reason) => {
            eprintln!("xtask: not compared: {reason}");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(rustc: &str, memcpy: f64, ring: f64) -> Saved {
        let count =
            |name: &str, value| Count { name: name.to_owned(), params: String::new(), value };
        Saved {
            rustc: rustc.to_owned(),
            counts: vec![count("memcpy", memcpy), count("ring", ring)],
        }
    }

    #[test]
    fn a_count_may_grow_by_three_in_a_hundred() {
        let before = saved("1.95", 185.0, 100.0);
        assert_eq!(compare(&saved("1.95", 185.0, 102.9), &before).1, Verdict::Kept);
        assert!(matches!(compare(&saved("1.95", 185.0, 103.1), &before).1, Verdict::Grown(_)));
    }

    #[test]
    fn another_compiler_or_processor_is_no_comparison() {
        let before = saved("1.95", 185.0, 100.0);
        let verdicts = [saved("1.96", 185.0, 200.0), saved("1.95", 120.0, 200.0)]
            .map(|now| matches!(compare(&now, &before).1, Verdict::NotComparable(_)));
        assert_eq!(verdicts, [true, true]);
    }
}
