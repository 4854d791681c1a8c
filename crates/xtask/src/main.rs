// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask`: everything that a developer or CI does with the project.

use std::process::Command;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "busway's own commands")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run everything that CI runs: format, lints, tests.
    Test {
        /// Leave out what needs a real guest.
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Test { quick: _ } => test(),
    }
}

fn test() -> anyhow::Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(&["test", "--workspace", "--quiet"])
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    eprintln!("xtask: cargo {}", arguments.join(" "));
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .status()
        .with_context(|| format!("could not run cargo {}", arguments.join(" ")))?;
    if !status.success() {
        bail!("cargo {} failed: {status}", arguments.join(" "));
    }
    Ok(())
}
