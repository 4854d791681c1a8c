// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where things lie in the checkout, and cargo itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use busway_guest_images::store::Store;

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

/// Builds the `busway` program; none as long as the checkout has no VMM.
pub(crate) fn busway() -> anyhow::Result<Option<PathBuf>> {
    if !root().join("vmm/Cargo.toml").exists() {
        return Ok(None);
    }
    let status = cargo(&["build", "--quiet", "--package", "busway", "--bin", "busway"])
        .status()
        .context("could not run cargo")?;
    if !status.success() {
        bail!("busway does not build");
    }
    Ok(Some(target().join("debug/busway")))
}
