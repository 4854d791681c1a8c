// SPDX-License-Identifier: MIT OR Apache-2.0

//! `cargo xtask demo`: Debian's stock kernel on busway, seen through the eyes of its own drivers.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use busway_guest_images::cpio::Archive;
use busway_guest_images::manifest::Manifest;
use busway_guest_images::store::Image;

use crate::lab::{FileIn, Host, Job, Machine};
use crate::{tools, workspace};

const SCRIPT: &[u8] = include_bytes!("guest.sh");

/// What the guest's line begins with that the program here compares.
const INSIDE: &str = "  sha256 inside     ";
const OUTSIDE: &str = "  sha256 outside    ";

/// Generous: the slowest machine takes a tenth of it.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Boot Debian's stock kernel on busway, with a disk on VMBus, and show what its own drivers say.
///
/// Builds, fetches what is not there yet, and boots; on a machine whose KVM is not whole, in an emulated KVM
/// host. Exit status 0 means that the guest found its VMBus and read the disk as it is.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave a shell in the guest when all has been shown; leaving it powers off.
    #[arg(long)]
    shell: bool,
    /// The guest, by its name in guest-images/manifest.toml.
    #[arg(long, value_name = "NAME", default_value = "bookworm-cloud")]
    kernel: String,
    /// Number of vCPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
}

/// Does what the command line asks.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let busway = workspace::busway()?;
    tools::ensure_images()?;
    let store = workspace::images();
    let image = store.image(Manifest::load()?.image(&arguments.kernel)?, false)?;
    let disk = store.disk()?;
    let outside = sha256(&disk)?;

    let scratch = tempfile::tempdir()?;
    let initrd = scratch.path().join("initrd.cpio");
    fs::write(&initrd, initramfs(&image)?)?;
    let file = |name: &str, source: &Path| FileIn { name: name.into(), source: source.into() };
    let job = Job {
        command: command(arguments),
        terminal: arguments.shell,
        programs: vec![busway],
        files: vec![
            file("vmlinuz", &image.vmlinuz),
            file("initrd.cpio", &initrd),
            file("disk.img", &disk),
        ],
        outs: Vec::new(),
        timeout: (!arguments.shell).then_some(TIMEOUT),
    };
    let host = Host::choose(Machine { memory_mib: 3 << 10, cpus: 2 })?;
    eprintln!("demo: booting {}, package version {}", image.name, image.package_version);
    if arguments.shell {
        println!("{OUTSIDE}{outside}");
    }
    let mut said = Vec::new();
    let status = host.run(&job, &mut |bytes| said.extend_from_slice(bytes))?;
    if status != 0 {
        bail!("the guest did not get through: busway ended with status {status}");
    }
    if !arguments.shell {
        compare(&String::from_utf8_lossy(&said), &outside)?;
        println!(
            "\nThe guest read what is there. All of this took {} s.",
            started.elapsed().as_secs()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts the checksum from outside below the one from inside.
fn compare(said: &str, outside: &str) -> anyhow::Result<()> {
    let inside = said.lines().find_map(|line| line.strip_prefix(INSIDE));
    let inside = inside.context("the guest did not say what it read from its disk")?;
    println!("{OUTSIDE}{outside}");
    if inside.trim() != outside {
        bail!("the guest read something else than what is on the disk");
    }
    Ok(())
}

fn command(arguments: &Arguments) -> Vec<OsString> {
    let cpus = arguments.cpus.to_string();
    let shell = if arguments.shell { " busway.shell" } else { "" };
    let cmdline = format!("console=ttyS0 quiet loglevel=1 panic=-1{shell}");
    let words =
        ["busway", "run", "--kernel", "vmlinuz", "--initrd", "initrd.cpio", "--cpus", &cpus];
    let rest = ["--disk", "disk.img,readonly,serial=BUSWAY-DEMO", "--cmdline", &cmdline];
    words.into_iter().chain(rest).map(OsString::from).collect()
}

/// The kernel's initramfs with the script behind it.
fn initramfs(image: &Image) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::new(fs::read(&image.initrd)?);
    archive.file("test/run", 0o755, SCRIPT)?;
    Ok(archive.finish()?)
}

/// By the system's own program, not by code of ours.
fn sha256(path: &Path) -> anyhow::Result<String> {
    let output = Command::new("sha256sum").arg(path).output().context("could not run sha256sum")?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_compared() {
        let said = format!("The disk\n{INSIDE}abc\r\nbusway-guest: exit 0\n");
        assert!(compare(&said, "abc").is_ok());
        assert!(compare(&said, "abd").is_err());
        assert!(compare("nothing", "abc").is_err());
    }

    #[test]
    fn the_guests_line_is_the_one_that_is_looked_for() {
        let script = String::from_utf8_lossy(SCRIPT);
        assert!(script.contains("printf '  %-17s %s\\n'"));
        assert_eq!(INSIDE, format!("  {:<17} ", "sha256 inside"));
        assert_eq!(OUTSIDE, format!("  {:<17} ", "sha256 outside"));
    }
}
