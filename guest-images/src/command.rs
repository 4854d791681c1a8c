// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs the system's own tools, with errors that carry what the tool said.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// What the tool wrote to its standard output; an error with its last words where it failed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("could not run {name}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.lines().rev().find(|line| !line.trim().is_empty());
        bail!("{name}: {}, {}", words.unwrap_or("no reason given").trim(), output.status);
    }
    Ok(output.stdout)
}

/// The same for tools that answer in text.
pub(crate) fn text(command: &mut Command) -> anyhow::Result<String> {
    String::from_utf8(output(command)?).context("the answer is not UTF-8")
}
