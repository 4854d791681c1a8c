// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask test`: format, lints, tests in process, and boots of real guests.

use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;
use tally::Tally;

use crate::{tools, workspace};

mod tally;

/// Run everything that CI runs: format, lints, tests in process, boots of real guests.
///
/// All parts run even if one fails. The last line says how many tests passed, failed and were skipped; a
/// part that fails without a failing test (a file that is not formatted, a warning) counts as one failed, a
/// part that is left out as one skipped.
/// The exit status is 0 only if nothing failed.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out what needs a real guest. Takes under two minutes once built.
    #[arg(long)]
    quick: bool,
}

/// Parts that need neither KVM nor root.
const IN_PROCESS: [(&str, &[&str]); 3] = [
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    ("tests in process", &["test", "--workspace", "--no-fail-fast", "--quiet"]),
];

/// Does what the command line asks.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    tools::ensure(tools::TESTS)?;
    let mut report = Report::default();
    for (name, command) in IN_PROCESS {
        let mut tally = Tally::default();
        let passed = cargo(command, &mut tally)?;
        report.add(name, passed, tally);
    }
    report.leave_out(
        "boots in real guests",
        if arguments.quick { "--quick" } else { "this checkout has no tests/boot" },
    );
    Ok(report.close())
}

/// Runs cargo with its output passed on, and says whether it was content.
fn cargo(arguments: &[&str], tally: &mut Tally) -> anyhow::Result<bool> {
    let mut command: Command = workspace::cargo(arguments);
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
        self.lines.push(format!("  {name}: left out ({reason})"));
        self.total.skipped += 1;
    }

    fn close(self) -> ExitCode {
        println!("\nWhat ran:");
        for line in &self.lines {
            println!("{line}");
        }
        println!("{}", self.total);
        if self.total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
