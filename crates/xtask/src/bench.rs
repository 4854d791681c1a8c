// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask bench`: every measurement, in one table.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::workspace;

/// Take the project's measurements and print them as one table.
///
/// Each figure stands beside a limit taken in the same run, because machines differ: what the
/// machine does with nothing of ours in between. The ratio says how close the figure comes; 1 is
/// the limit itself, below 1 is worse.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the lines whose name contains one of these, such as `ring` or `storage/ram`
    names: Vec<String>,

    /// Also write the table as a JSON array of {name, params, value, unit, limit, ratio}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A line of the table, as the bench program prints it.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    name: String,
    params: String,
    value: f64,
    unit: String,
    limit: Option<f64>,
    ratio: Option<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<std::process::ExitCode> {
    let lines = in_process(&arguments.names)?;
    if lines.is_empty() {
        bail!("no measurement has such a name; without names all are taken");
    }
    print!("{}", table(&lines));
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&lines)? + "\n";
        fs::write(path, json).with_context(|| format!("--json {}", path.display()))?;
    }
    Ok(std::process::ExitCode::SUCCESS)
}

/// The measurements that need no guest, by the package `busway-bench`.
fn in_process(names: &[String]) -> anyhow::Result<Vec<Line>> {
    let mut command =
        workspace::cargo(&["run", "--quiet", "--release", "-p", "busway-bench", "--"]);
    let output =
        command.args(names).stderr(Stdio::inherit()).output().context("could not run cargo")?;
    if !output.status.success() {
        bail!("the bench program failed: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the bench program's table")
}

fn table(lines: &[Line]) -> String {
    let number = |value: f64| match value {
        value if value.abs() >= 1000.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    };
    let width = lines.iter().map(|line| line.params.len()).max().unwrap_or_default();
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
        row(&line.name, &line.params, &number(line.value), &line.unit, &limit, &ratio);
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
            value,
            unit: "ns".to_owned(),
            limit,
            ratio,
        };
        let lines =
            [line("n=1", 12.34, Some(6.17), Some(0.5)), line("n=32 wide", 12_345.6, None, None)];
        let expected = "\
name              what           value unit       limit  ratio
ring/packet       n=1             12.3 ns           6.2   0.50
ring/packet       n=32 wide      12346 ns
";
        assert_eq!(table(&lines), expected);
    }
}
