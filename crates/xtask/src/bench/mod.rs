// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask bench`: every measurement, in one table.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::workspace;

mod guests;
pub(crate) mod instructions;

/// Take the project's measurements and print them as one table.
///
/// Each figure stands beside a limit taken in the same run, because machines differ: what the
/// machine does with nothing of ours in between. The ratio says how close the figure comes; 1 is
/// the limit itself, below 1 is worse, and above 1 better than what it is compared with.
///
/// vmm/* and guest/* boot guests, in an emulated KVM host where this machine's KVM is not whole:
/// times are longer there, for limits as well. Where they cannot run at all, their lines say why.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Only the lines whose name contains one of these, such as `ring` or `storage/ram`
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Also write the table as a JSON array of {name, params, value, unit, limit, ratio}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Count instructions instead, with callgrind: the same on a busy machine as on a quiet one
    ///
    /// The limit beside each is what tests/bench/instructions.json says, which `=save` writes anew; `cargo
    /// xtask test` fails if one has grown by more than 3 %.
    #[arg(long, value_name = "save", num_args = 0..=1, require_equals = true, conflicts_with = "names")]
    instructions: Option<Option<Save>>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Save {
    Save,
}

const EXAMPLES: &str = "\
Lines:
  ring/packet       packets into a ring and out again; limit: memcpy of the same bytes
  ring/two-threads  there and back between threads; limit: bare eventfds, a word in memory
  storage/ram       4 KiB reads of a RAM disk; limit: memcpy
  storage/virtio    the reads of storage/ram; limit: a virtio-blk loop on rust-vmm's virtio-queue
  storage/watched   those reads while somebody looks on or meddles; limit: the same alone
  storage/file      the whole device on a file; limit: io_uring on the same file
  network/frames    frames there and back and on a TAP; limit: a raw TAP
  bus/churn         offers, GPADLs, opens and closes a second
  vmm/start         start, size, memory and idle wake-ups; limit: a program that only runs HLT
  guest/exits       VM exits for each O_DIRECT read; limit: a signal and an interrupt
  guest/fio         fio on a disk of the guest's; limit: QEMU's virtio-blk
  guest/network     TCP each way, VM exits for each MiB; limits: the host to itself, 64 KiB at once
  guest/signal      HvSignalEvent on an open channel, by each engine; limit: KVM's
  guest/boot        exec to the guest's init; limit: QEMU q35 with the same kernel

Examples:
  cargo xtask bench
  cargo xtask bench ring storage/ram --json ring.json
  cargo xtask bench --instructions
  cargo xtask bench guest/boot";

/// A line of the table, as the bench program prints it.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Line {
    name: String,
    params: String,
    /// None where the line could not be taken.
    value: Option<f64>,
    unit: String,
    limit: Option<f64>,
    ratio: Option<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<std::process::ExitCode> {
    let built = build(&["--package", "busway", "--package", "busway-bench", "--bins"])?;
    let mut verdict = instructions::Verdict::Kept;
    let lines = match arguments.instructions {
        Some(Some(Save::Save)) => instructions::save(&built)?,
        Some(None) => {
            let (lines, seen) = instructions::run(&built)?;
            verdict = seen;
            lines
        }
        None => {
            let mut lines = in_process(&built, &arguments.names)?;
            lines.extend(in_guests(&built, &arguments.names));
            lines
        }
    };
    if lines.is_empty() {
        bail!("no measurement has such a name; without names all are taken");
    }
    print!("{}", table(&lines));
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&lines)? + "\n";
        fs::write(path, json).with_context(|| format!("--json {}", path.display()))?;
    }
    instructions::hold(&verdict)?;
    Ok(std::process::ExitCode::SUCCESS)
}

/// Builds what measures and what is measured; returns where it is.
fn build(packages: &[&str]) -> anyhow::Result<PathBuf> {
    let words = [&["build", "--quiet", "--release"][..], packages].concat();
    let status = workspace::cargo(&words).status().context("could not run cargo")?;
    if !status.success() {
        bail!("the bench program does not build");
    }
    Ok(workspace::target().join("release"))
}

/// For `cargo xtask test`: counts, and prints the table.
pub(crate) fn counts() -> anyhow::Result<instructions::Verdict> {
    let built = build(&["--package", "busway-bench", "--bin", "busway-bench"])?;
    let (lines, verdict) = instructions::run(&built)?;
    print!("{}", table(&lines));
    Ok(verdict)
}

/// The measurements that need no guest, by the package `busway-bench`.
fn in_process(built: &Path, names: &[String]) -> anyhow::Result<Vec<Line>> {
    let mut command = Command::new(built.join("busway-bench"));
    command.args(names).current_dir(workspace::root()).stderr(Stdio::inherit());
    let output = command.output().context("could not run the bench program")?;
    if !output.status.success() {
        bail!("the bench program failed: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the bench program's table")
}

/// Those that need guests, each once and with the reason where they cannot be taken.
fn in_guests(built: &Path, names: &[String]) -> Vec<Line> {
    let wanted =
        |name: &&str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
    let wanted: Vec<_> = guests::NAMES.into_iter().filter(wanted).map(str::to_owned).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    guests::run(built, &wanted).unwrap_or_else(|error| {
        wanted.into_iter().map(|name| skipped(name, &format!("{error:#}"))).collect()
    })
}

fn skipped(name: String, reason: &str) -> Line {
    let params = format!("skipped: {reason}");
    Line { name, params, value: None, unit: String::new(), limit: None, ratio: None }
}

fn table(lines: &[Line]) -> String {
    let number = |value: f64| match value {
        value if value.abs() >= 1000.0 => format!("{value:.0}"),
        value if value.abs() >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    };
    let taken = lines.iter().filter(|line| line.value.is_some());
    let width = taken.map(|line| line.params.len()).max().unwrap_or_default();
    let mut text = String::new();
    let mut row = |name: &str, params: &str, value: &str, unit: &str, limit: &str, ratio: &str| {
        let row =
            format!("{name:<17} {params:<width$} {value:>10} {unit:<5} {limit:>10} {ratio:>6}");
        text.push_str(row.trim_end());
        text.push('\n');
    };
    row("name", "what", "value", "unit", "limit", "ratio");
    for line in lines {
        let limit = line.limit.map(number).unwrap_or_default();
        let ratio = line.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let value = line.value.map(number).unwrap_or_default();
        row(&line.name, &line.params, &value, &line.unit, &limit, &ratio);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_in_columns_and_what_is_missing_is_blank() {
        let line = |params: &str, value, limit, ratio| Line {
            name: "ring/packet".to_owned(),
            params: params.to_owned(),
            value: Some(value),
            unit: "ns".to_owned(),
            limit,
            ratio,
        };
        let lines = [
            line("n=1", 12.34, Some(6.17), Some(0.5)),
            line("n=32 wide", 12_345.6, None, None),
            skipped("guest/boot".to_owned(), "there is no KVM, and no QEMU"),
        ];
        let expected = "\
name              what           value unit       limit  ratio
ring/packet       n=1             12.3 ns          6.17   0.50
ring/packet       n=32 wide      12346 ns
guest/boot        skipped: there is no KVM, and no QEMU
";
        assert_eq!(table(&lines), expected);
    }
}
