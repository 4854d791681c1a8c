// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask matrix`: which features work in which guest on which engine, by the boot tests.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use busway_guest_images::manifest::Manifest;

use crate::test::boots;
use crate::test::tally::Tally;
use crate::{tools, workspace};
use results::{Outcome, Reader, Results};

mod results;
mod table;

/// Boot the guests of guest-images on both engines, and print what works as a table.
///
/// A row is a guest on an engine, a column a feature: a file of tests/boot. A cell is the number of tests that
/// passed, out of how many where some failed; a dash where none is for that guest. Below the table
/// stand the tests that failed or were skipped, and why. The exit status is 0 only if nothing failed.
///
/// Each guest has a run of its own, which takes half an hour and more in an emulated host.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A guest of guest-images/manifest.toml; may be repeated. All of them if none is named.
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Only the tests whose names contain this, or one of several (A,B).
    #[arg(long, value_name = "FILTER")]
    boots: Option<String>,
    /// Keep the results in this file. Those that it has of tests that do not run now stay, and are in the
    /// table too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run nothing: print what the file has.
    #[arg(long, requires = "json", conflicts_with_all = ["kernel", "boots"])]
    show: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask matrix --json matrix.json
  cargo xtask matrix --json matrix.json --kernel sid-cloud --boots bus::,everything::
  cargo xtask matrix --json matrix.json --show";

/// Does what the command line asks.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut results = match &arguments.json {
        Some(path) if arguments.show || path.exists() => Results::read(path)?,
        _ => Results::default(),
    };
    let mut complete = true;
    if !arguments.show {
        tools::ensure_images()?;
        for guest in guests(arguments)? {
            complete &= boot(&guest, arguments, &mut results)?;
            if let Some(path) = &arguments.json {
                results.write(path)?;
            }
        }
    }
    let mut out = std::io::stdout().lock();
    write!(out, "\n{}", table::Table(&results)).context("the table cannot be printed")?;
    let failed = results.iter().any(|result| result.outcome == Outcome::Failed);
    Ok(if failed || !complete { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn guests(arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    let manifest = Manifest::load()?;
    for name in &arguments.kernel {
        manifest.image(name)?;
    }
    if arguments.kernel.is_empty() {
        return Ok(manifest.images.into_iter().map(|image| image.name).collect());
    }
    Ok(arguments.kernel.clone())
}

/// Runs the tests on one guest; says whether they came to an end. That one guest's run broke does not keep
/// the others from theirs.
fn boot(guest: &str, arguments: &Arguments, results: &mut Results) -> anyhow::Result<bool> {
    let image = workspace::images().image(Manifest::load()?.image(guest)?, false)?;
    let mut reader = Reader::new(&image.release);
    let words: Vec<_> = arguments.boots.iter().cloned().collect();
    let mut tally = Tally::default();
    let run = boots::run(&[guest.to_owned()], &words, &mut tally, &mut |bytes| reader.feed(bytes));
    for remark in &tally.remarks {
        eprintln!("xtask: {guest}: {remark}");
    }
    let ended = reader.is_whole();
    if let Err(error) = run {
        eprintln!("xtask: {guest}: {error:#}");
    }
    if !ended {
        eprintln!("xtask: {guest}: the tests did not come to their end");
    }
    results.take(reader);
    Ok(ended)
}
