// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where things lie in the checkout, and cargo itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use busway_guest_images::store::Store;
use serde_json::Value;

/// The top of the checkout.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two levels below the top")
}

/// cargo's target directory, where everything built or fetched goes.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// Fetched kernels and finished guest images.
pub(crate) fn images() -> Store {
    Store::new(target().join("images"))
}

/// A cargo command in the checkout.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    eprintln!("xtask: cargo {}", arguments.join(" "));
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(root());
    command
}

/// Builds the `busway` program.
pub(crate) fn busway() -> anyhow::Result<PathBuf> {
    let status = cargo(&["build", "--quiet", "--package", "busway", "--bin", "busway"])
        .status()
        .context("could not run cargo")?;
    if !status.success() {
        bail!("busway does not build");
    }
    Ok(target().join("debug/busway"))
}

/// Builds the program for inside the guests, which have no libraries.
pub(crate) fn agent() -> anyhow::Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let package = ["--package", "busway-guest-agent", "--bin", "agent", "--target", TARGET];
    let flags = ["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"];
    let words = [&["rustc", "--quiet"][..], &package, &flags].concat();
    let status = cargo(&words).status().context("could not run cargo")?;
    if !status.success() {
        bail!("the guests' agent does not build");
    }
    Ok(target().join(TARGET).join("debug/agent"))
}

/// Builds a package's test target and says where it is, for those that run elsewhere.
pub(crate) fn test_program(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let words = ["test", "--quiet", "--no-run", "--package", package, "--test", name];
    let mut command = cargo(&words);
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = command.output().context("could not run cargo")?;
    if !output.status.success() {
        bail!("test {name} of {package} does not build");
    }
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let program = messages.filter(|message| message["target"]["name"] == name);
    let mut program =
        program.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.next_back().with_context(|| format!("cargo does not say where test {name} is"))
}
