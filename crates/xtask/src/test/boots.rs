// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tests of tests/boot: built here, carried into one boot of a KVM host, run there.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use busway_guest_images::manifest::Manifest;

use super::tally::Tally;
use crate::lab::{FileIn, Host, Job, Machine};
use crate::{tools, workspace};

/// The guest that tests run on unless others are named.
pub(crate) const KERNEL: &str = "bookworm-cloud";

/// For all of them together, on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(40 * 60);

/// Runs the tests whose names contain one of `filters`, or all, on each kernel; says whether all passed.
pub(crate) fn run(kernels: &[String], words: &[String], tally: &mut Tally) -> anyhow::Result<bool> {
    // First what can fail for reasons outside of the checkout.
    let (images, data) = (images(kernels)?, workspace::images().disk()?);
    let mut files = vec![
        file("boot", workspace::test_program("busway-tests", "boot")?),
        file("agent", workspace::agent()?),
        file("data.img", data),
    ];
    let releases = tempfile::tempdir()?;
    for image in images {
        let directory = format!("images/{}", image.name);
        let release = releases.path().join(&image.name);
        fs::write(&release, &image.release)?;
        files.push(file(&format!("{directory}/vmlinuz"), image.vmlinuz));
        files.push(file(&format!("{directory}/initrd.cpio"), image.initrd));
        files.push(file(&format!("{directory}/release"), release));
    }
    let command = ["./boot"].into_iter().map(OsString::from);
    let job = Job {
        command: command.chain(words.iter().map(OsString::from)).collect(),
        terminal: false,
        programs: vec![workspace::busway()?],
        files,
        outs: Vec::new(),
        timeout: Some(TIMEOUT),
    };
    let host = Host::choose(Machine { memory_mib: 6 << 10, cpus: 2 })?;
    let status = host.run(&job, &mut |bytes| tally.feed(bytes))?;
    if tally.is_empty() && !words.iter().any(|word| word == "--list") {
        bail!("no test ran (exit status {status})");
    }
    Ok(status == 0)
}

fn file(name: &str, source: PathBuf) -> FileIn {
    FileIn { name: name.to_owned(), source }
}

fn images(kernels: &[String]) -> anyhow::Result<Vec<busway_guest_images::store::Image>> {
    tools::ensure_images()?;
    let (store, manifest) = (workspace::images(), Manifest::load()?);
    kernels.iter().map(|name| store.image(manifest.image(name)?, false)).collect()
}
