// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tests of tests/boot: built here, carried into one boot of a KVM host, run there.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use busway_guest_images::manifest::Manifest;

use super::tally::Tally;
use crate::lab::{FileIn, Host, HostCrashed, Job, Machine};
use crate::{carried, tools, workspace};

/// The guest that tests run on unless others are named.
pub(crate) const KERNEL: &str = "bookworm-cloud";

/// What tests take along into their guests.
const PROGRAMS: [&str; 7] = [
    "ethtool",
    "fio",
    "sg3-utils",
    "hyperv-daemons",
    "hyperv-fcopy",
    "hyperv-fcopy-uio",
    "kexec-tools",
];

/// Files of guest-images/manifest.toml that tests need on the host.
const FILES: [&str; 2] = ["ipxe.lkrn", "passt"];

/// The program that tells whether an image is consistent, in its package.
const QEMU_IMG: &str = "usr/bin/qemu-img";

/// Names of the tests that have passed before, for `tests/boot` to leave out.
const DONE: &str = "done";

/// For all of them together, on a slow machine; and where one of [`NUMBERS`] makes some of them long.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);
const LONG_TIMEOUT: Duration = Duration::from_secs(8 * 60 * 60);

/// Environment variables by which tests do more of what takes long (CONTRIBUTING.md).
const NUMBERS: [&str; 14] = [
    "BUSWAY_REBOOTS",
    "BUSWAY_TCP_MIB",
    "BUSWAY_TURNS",
    "BUSWAY_MINUTES",
    "BUSWAY_CPUS",
    "BUSWAY_DISKS",
    "BUSWAY_NETBOOT",
    "BUSWAY_SOCK_MIB",
    "BUSWAY_SOCKETS",
    "BUSWAY_SOAK_SECONDS",
    "BUSWAY_FREEZE_SECONDS",
    "BUSWAY_PAUSE_SECONDS",
    "BUSWAY_SILENT",
    "BUSWAY_STUCK",
];

/// How often a crashed host is started again for the tests that are left; each time costs two minutes.
const CRASHES: usize = 3;

/// Runs the tests whose names contain one of `filters`, or all, on each kernel; says whether all passed.
///
/// An emulated host that crashes is started again for the tests that have not passed yet, and the report
/// says so: what they say of busway counts, whatever becomes of an emulator.
///
/// `watch` sees what they say.
pub(crate) fn run(
    kernels: &[String],
    words: &[String],
    tally: &mut Tally,
    watch: &mut (dyn FnMut(&[u8]) + Send),
) -> anyhow::Result<bool> {
    let scratch = tempfile::tempdir()?;
    let mut job = job(kernels, words, scratch.path())?;
    let host = Host::choose(Machine { memory_mib: 6 << 10, cpus: 2 })?;
    let started = Instant::now();
    let timeout = if numbers().next().is_some() { LONG_TIMEOUT } else { TIMEOUT };
    let mut done = Vec::new();
    let mut crashes = 0;
    let status = loop {
        fs::write(scratch.path().join(DONE), done.join("\n"))?;
        job.timeout = Some(timeout.saturating_sub(started.elapsed()));
        let mut feed = |bytes: &[u8]| {
            tally.feed(bytes);
            watch(bytes);
        };
        match host.run(&job, &mut feed) {
            Err(error) if error.is::<HostCrashed>() && crashes < CRASHES => {
                crashes += 1;
                done.extend(tally.interrupted());
                let again = format!("{error}; started again for what was left");
                eprintln!("xtask: {again}");
                tally.remarks.push(again);
            }
            result => break result?,
        }
    };
    if tally.is_empty() && !words.iter().any(|word| word == "--list") {
        bail!("no test ran (exit status {status})");
    }
    Ok(status == 0)
}

fn job(kernels: &[String], words: &[String], scratch: &Path) -> anyhow::Result<Job> {
    // First what can fail for reasons outside of the checkout.
    let mut files = images(kernels, scratch)?;
    files.push(file("data.img", workspace::images().disk()?));
    let manifest = Manifest::load()?;
    for name in FILES {
        files.push(file(name, workspace::images().file(manifest.file(name)?)?));
    }
    let qemu_img = scratch.join("qemu-img");
    carried::copy(
        &workspace::images().tool(manifest.tool("qemu-img")?)?,
        QEMU_IMG,
        &[],
        &qemu_img,
    )?;
    files.push(file("qemu-img", qemu_img));
    files.push(file("agent", workspace::agent()?));
    files.push(file("boot", workspace::test_program("busway-tests", "boot")?));
    files.push(file(DONE, scratch.join(DONE)));
    // The job's own environment is another machine's.
    let command = ["env".to_owned()].into_iter().chain(numbers()).chain(["./boot".to_owned()]);
    Ok(Job {
        command: command.chain(words.iter().cloned()).map(OsString::from).collect(),
        terminal: false,
        programs: vec![workspace::busway()?],
        files,
        outs: Vec::new(),
        timeout: None,
    })
}

/// Those that are set, as `env` takes them.
fn numbers() -> impl Iterator<Item = String> {
    let assign = |name| std::env::var(name).ok().map(|value| format!("{name}={value}"));
    NUMBERS.into_iter().filter_map(assign)
}

fn file(name: &str, source: PathBuf) -> FileIn {
    FileIn { name: name.to_owned(), source }
}

/// The kernels with all that belongs to them; what is not a file yet is written below `scratch`.
fn images(kernels: &[String], scratch: &Path) -> anyhow::Result<Vec<FileIn>> {
    tools::ensure_images()?;
    let (store, manifest) = (workspace::images(), Manifest::load()?);
    let mut files = Vec::new();
    for name in kernels {
        let entry = manifest.image(name)?;
        let image = store.image(entry, false)?;
        let mut add =
            |what: &str, source| files.push(file(&format!("images/{name}/{what}"), source));
        add("vmlinuz", image.vmlinuz);
        add("initrd.cpio", image.initrd);
        let release = scratch.join(name);
        fs::write(&release, &image.release)?;
        add("release", release);
        for program in PROGRAMS {
            let package = manifest.program(program)?;
            if package.is_in(&entry.suite) {
                add(&format!("programs/{program}.cpio"), store.program(entry, package)?);
            }
        }
    }
    Ok(files)
}
