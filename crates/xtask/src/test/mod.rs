// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask test`: format, lints, tests in process, instruction counts, and boots of real guests.

use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;
use tally::Tally;

use crate::bench::instructions::Verdict;
use crate::{bench, tools, workspace};

pub(crate) mod boots;
pub(crate) mod lines;
pub(crate) mod tally;

/// Run everything that CI runs: format, lints, tests in process, instruction counts, boots of real guests.
///
/// All parts run even if one fails. The last line says how many tests passed, failed and were skipped; a
/// part that fails without a failing test (a file that is not formatted, a warning) counts as one failed, a
/// part that is left out as one skipped.
/// The exit status is 0 only if nothing failed.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Leave out what needs a real guest. Takes under two minutes once built.
    #[arg(long)]
    quick: bool,
    /// Only the boots; with FILTER, only those whose names contain it, or one of several (A,B).
    #[arg(long, value_name = "FILTER", num_args = 0..=1, conflicts_with = "quick")]
    boots: Option<Option<String>>,
    /// A guest of guest-images/manifest.toml that the boots run on; may be repeated.
    #[arg(long, value_name = "NAME", default_value = boots::KERNEL, conflicts_with = "quick")]
    kernel: Vec<String>,
    /// Seconds of random input for each target of tests/fuzz; 1 with --quick, else 60.
    #[arg(long, value_name = "SECONDS")]
    fuzz: Option<u32>,
    /// Only list the boots.
    #[arg(long, conflicts_with = "quick")]
    list: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask test --quick
  cargo xtask test --quick --fuzz 600
  cargo xtask test --boots storage::
  cargo xtask test --boots --kernel trixie-cloud";

/// Parts that need neither KVM nor root.
const IN_PROCESS: [(&str, &[&str]); 4] = [
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    // Their `test = false` hides them from --all-targets.
    ("lints of boots", &["clippy", "-p=busway-tests", "--test=boot", "-q", "--", "-D", "warnings"]),
    ("tests in process", &["test", "--workspace", "--no-fail-fast", "--quiet"]),
];

/// Does what the command line asks.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.list {
        let list = ["--list".to_owned()];
        boots::run(&arguments.kernel, &list, &mut Tally::default(), &mut |_| {})?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = Report::default();
    if arguments.boots.is_none() {
        tools::ensure(tools::TESTS)?;
        let fuzz = arguments.fuzz.unwrap_or(if arguments.quick { 1 } else { 60 });
        for (name, command) in IN_PROCESS {
            let mut tally = Tally::default();
            let passed = cargo(command, fuzz, &mut tally)?;
            report.add(name, passed, tally);
        }
    }
    const BOOTS: &str = "boots in real guests";
    if arguments.quick {
        report.leave_out(COUNTS, "--quick");
        report.leave_out(BOOTS, "--quick");
        return Ok(report.close());
    }
    if arguments.boots.is_none() {
        count_instructions(&mut report);
    }
    let filter: Vec<_> = arguments.boots.iter().flatten().cloned().collect();
    let mut tally = Tally::default();
    // That they could not even start is a failure of theirs, not a reason to say nothing of the rest.
    let passed = boots::run(&arguments.kernel, &filter, &mut tally, &mut |_| {});
    let passed = passed.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        false
    });
    report.add(BOOTS, passed, tally);
    Ok(report.close())
}

const COUNTS: &str = "instruction counts";

fn count_instructions(report: &mut Report) {
    let passed = match bench::counts() {
        Ok(Verdict::NotComparable(reason)) => return report.leave_out(COUNTS, &reason),
        Ok(verdict) => bench::instructions::hold(&verdict),
        Err(error) => Err(error),
    };
    let passed = passed.inspect_err(|error| eprintln!("xtask: {error:#}")).is_ok();
    report.add(COUNTS, passed, Tally::default());
}

/// Runs cargo with its output passed on, and says whether it was content. Fuzz targets get `fuzz` seconds.
fn cargo(arguments: &[&str], fuzz: u32, tally: &mut Tally) -> anyhow::Result<bool> {
    let mut command: Command = workspace::cargo(arguments);
    command.env("BUSWAY_FUZZ_SECONDS", fuzz.to_string());
    let mut child = command.stdout(Stdio::piped()).spawn().context("could not run cargo")?;
    if let Some(mut stdout) = child.stdout.take() {
        let mut chunk = vec![0; 64 << 10];
        loop {
            let length = stdout.read(&mut chunk)?;
            let bytes = chunk.get(..length).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            io::stdout().write_all(bytes)?;
            tally.feed(bytes);
        }
    }
    Ok(child.wait()?.success())
}

/// What ran and how it went, part by part.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    total: Tally,
}

impl Report {
    fn add(&mut self, name: &str, passed: bool, mut tally: Tally) {
        if !passed && tally.failed == 0 {
            tally.failed = 1;
        }
        let verdict = if passed { "ok" } else { "FAILED" };
        self.lines.push(if tally.is_empty() {
            format!("  {name}: {verdict}")
        } else {
            format!("  {name}: {verdict}, {tally}")
        });
        self.total.add(&tally);
    }

    fn leave_out(&mut self, name: &str, reason: &str) {
        self.lines.push(format!("  {name}: left out"));
        self.total.skipped += 1;
        self.total.reasons.push(format!("{name}: {reason}"));
    }

    fn close(self) -> ExitCode {
        println!("\nWhat ran:");
        for line in &self.lines {
            println!("{line}");
        }
        for remark in &self.total.remarks {
            println!("  {remark}");
        }
        if !self.total.reasons.is_empty() {
            println!("Skipped:");
        }
        for reason in &self.total.reasons {
            println!("  {reason}");
        }
        println!("{}", self.total);
        if self.total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
