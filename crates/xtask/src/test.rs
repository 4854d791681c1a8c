// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask test`.

use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::workspace;

/// Run everything that CI runs: format, lints, tests.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out what needs a real guest.
    #[arg(long)]
    quick: bool,
}

/// Does what the command line asks.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let _ = arguments.quick;
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])?;
    cargo(&["test", "--workspace", "--quiet"])?;
    Ok(ExitCode::SUCCESS)
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    let status = workspace::cargo(arguments)
        .status()
        .context("could not run cargo")?;
    if !status.success() {
        bail!("cargo {} failed: {status}", arguments.join(" "));
    }
    Ok(())
}
