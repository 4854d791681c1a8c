// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lines that need guests: what takes them is built here, carried to a KVM host and run there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use busway_guest_images::cpio::Archive;
use busway_guest_images::manifest::Manifest;
use busway_guest_images::modules::Modules;
use busway_guest_images::store::Image;

use super::Line;
use crate::lab::{FileIn, FileOut, Host, Job, Machine};
use crate::{carried, tools, workspace};

/// What there is, in the table's order.
pub(crate) const NAMES: [&str; 6] =
    ["vmm/start", "guest/exits", "guest/fio", "guest/network", "guest/signal", "guest/boot"];

const KERNEL: &str = "bookworm-cloud";

/// For all of them together, on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Where the job leaves its lines.
const LINES: &str = "out/lines.json";

/// QEMU's program and what of its firmware a PC needs that boots a kernel directly.
const QEMU: &str = "usr/bin/qemu-system-x86_64";
const FIRMWARE: [&str; 3] = [
    "usr/share/seabios/bios-256k.bin",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/qemu/kvmvapic.bin",
];

/// Takes the lines of these names; `built` is cargo's directory of release builds.
pub(crate) fn run(built: &Path, names: &[String]) -> anyhow::Result<Vec<Line>> {
    tools::ensure_images()?;
    tools::ensure(tools::BENCH)?;
    let (store, manifest) = (workspace::images(), Manifest::load()?);
    let entry = manifest.image(KERNEL)?;
    let image = store.image(entry, false)?;
    let scratch = tempfile::tempdir()?;
    let scratch = scratch.path();
    let stripped = |name: &str| strip(&built.join(name), &scratch.join(name));
    let qemu = scratch.join("qemu");
    carried::copy(&store.tool(manifest.tool("qemu")?)?, QEMU, &FIRMWARE, &qemu)?;
    let virtio = scratch.join("virtio.cpio");
    virtio_modules(&image, &virtio)?;
    let lines = scratch.join("lines.json");
    let file = |name: &str, source: PathBuf| FileIn { name: name.to_owned(), source };
    let command = ["./busway-bench", "--lab", LINES].map(OsString::from);
    let job = Job {
        command: command.into_iter().chain(names.iter().map(OsString::from)).collect(),
        terminal: false,
        programs: vec![stripped("busway")?],
        files: vec![
            file("busway-bench", stripped("busway-bench")?),
            file("empty-vm", stripped("empty-vm")?),
            file("agent", workspace::agent()?),
            file("fio.cpio", store.program(entry, manifest.program("fio")?)?),
            file("virtio.cpio", virtio),
            file("vmlinuz", image.vmlinuz),
            file("initrd.cpio", image.initrd),
            file("qemu", qemu),
        ],
        outs: vec![FileOut { name: LINES.to_owned(), target: lines.clone() }],
        timeout: Some(TIMEOUT),
    };
    let host = Host::choose(Machine { memory_mib: 4 << 10, cpus: 2 })?;
    let status = host.run(&job, &mut |_| {})?;
    if status != 0 {
        bail!("the bench program failed (exit status {status})");
    }
    Ok(serde_json::from_slice(&fs::read(lines)?)?)
}

/// An archive of what a virtio disk takes, by the order in which it is to be loaded.
fn virtio_modules(image: &Image, target: &Path) -> anyhow::Result<()> {
    let modules = Modules::open(&image.tree, &image.release)?;
    let mut archive = Archive::new(File::create(target)?);
    let (order, _) = modules.order(&["virtio_pci", "virtio_blk"]);
    for (number, name) in order.iter().enumerate() {
        archive.file(&format!("virtio/{number:02}-{name}.ko"), 0o644, &modules.contents(name)?)?;
    }
    archive.finish()?;
    Ok(())
}

/// The program as it would be installed.
fn strip(program: &Path, target: &Path) -> anyhow::Result<PathBuf> {
    let status = Command::new("strip").arg("-o").arg(target).arg(program).status();
    if !status.context("could not run strip")?.success() {
        bail!("strip refuses {}", program.display());
    }
    Ok(target.to_owned())
}
