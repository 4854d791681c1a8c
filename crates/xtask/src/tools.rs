// SPDX-License-Identifier: MIT OR Apache-2.0

//! The system's tools that commands here need: found, or installed by apt when root, or named.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// A file that shows that a Debian package is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    /// A program's name, looked up as a shell and root's shell do; or an absolute path.
    file: &'static str,
    package: &'static str,
}

const fn tool(file: &'static str, package: &'static str) -> Tool {
    Tool { file, package }
}

/// What fetching and unpacking guest images takes.
const IMAGES: &[Tool] = &[
    tool("apt-get", "apt"),
    tool("dpkg-deb", "dpkg"),
    tool("depmod", "kmod"),
    tool("mke2fs", "e2fsprogs"),
    tool("xz", "xz-utils"),
    tool("zstd", "zstd"),
    tool("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
];

/// What tests in process compare with.
pub(crate) const TESTS: &[Tool] = &[tool("cpio", "cpio"), tool("tshark", "tshark")];

/// What the emulated host takes besides.
pub(crate) const LAB: &[Tool] = &[
    tool("ldd", "libc-bin"),
    tool("cp", "coreutils"),
    tool("setpriv", "util-linux"),
    tool("tar", "tar"),
];

/// What counting instructions takes.
pub(crate) const COUNTS: &[Tool] = &[tool("valgrind", "valgrind")];

/// What `bench` takes besides.
pub(crate) const BENCH: &[Tool] = &[tool("strip", "binutils")];

/// Makes sure that images can be fetched, from a mirror that somebody here knows.
pub(crate) fn ensure_images() -> anyhow::Result<()> {
    ensure(IMAGES)?;
    if busway_guest_images::apt::knows_mirror() {
        return Ok(());
    }
    ensure(&[tool("debootstrap", "debootstrap")])
}

/// Makes sure that all of them are there.
pub(crate) fn ensure(tools: &[Tool]) -> anyhow::Result<()> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        bail!(
            "tools are missing; install them with: sudo apt-get install -y {}",
            missing.join(" ")
        );
    }
    eprintln!("xtask: apt-get install {}", missing.join(" "));
    if !apt_get(&["install", "-y", "--no-install-recommends"], &missing)? {
        // A fresh machine may have no package lists at all.
        apt_get(&["update"], &[])?;
        if !apt_get(&["install", "-y", "--no-install-recommends"], &missing)? {
            bail!("apt-get could not install {}", missing.join(" "));
        }
    }
    Ok(())
}

fn missing(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for tool in tools {
        if !found(tool.file) && !packages.contains(&tool.package) {
            packages.push(tool.package);
        }
    }
    packages
}

fn found(file: &str) -> bool {
    if file.starts_with('/') {
        return Path::new(file).exists();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    // An ordinary user's PATH often lacks the sbin directories, which are readable all the same.
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .any(|directory| Path::new(directory).join(file).exists())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

fn apt_get(arguments: &[&str], packages: &[&str]) -> anyhow::Result<bool> {
    let status = Command::new("apt-get")
        .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("could not run apt-get")?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_package_is_named_once() {
        let tools = [
            tool("sh", "dash"),
            tool("no-such-tool-a", "imaginary"),
            tool("no-such-tool-b", "imaginary"),
            tool("/no/such/file", "other"),
        ];
        assert_eq!(missing(&tools), ["imaginary", "other"]);
    }
}
