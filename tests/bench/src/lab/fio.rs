// SPDX-License-Identifier: MIT OR Apache-2.0

//! guest/fio: fio on a disk of a stock guest with two processors. Beside it, QEMU's virtio-blk with an
//! I/O thread and io_uring: the same kernel, the same file in the host's page cache, the same KVM.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use super::guest::{CMDLINE, Running, disk, initrd, ours, qemu};
use crate::report::Line;

struct Load {
    pattern: &'static str,
    block: &'static str,
    depth: u32,
    jobs: u32,
}

const fn load(pattern: &'static str, block: &'static str, depth: u32, jobs: u32) -> Load {
    Load { pattern, block, depth, jobs }
}

const LOADS: [Load; 9] = [
    load("randread", "4k", 1, 1),
    load("randread", "4k", 32, 1),
    load("randread", "4k", 32, 4),
    load("randwrite", "4k", 32, 1),
    load("randwrite", "4k", 32, 4),
    load("read", "128k", 8, 1),
    load("read", "128k", 8, 4),
    load("write", "128k", 8, 1),
    load("write", "128k", 8, 4),
];

/// Where the requests a second of reads and of writes stand in fio's terse line, version 3 (fio's HOWTO,
/// "Terse output").
const READS: usize = 7;
const WRITES: usize = 48;

const PREPARE: &str = "for module in /virtio/*; do insmod $module; done
until disk=$(ls /dev/[sv]da 2>/dev/null) && [ -b $disk ]; do usleep 20000; done";

pub fn run(lines: &mut Vec<Line>) {
    let initrd = fio_initrd();
    let disk = disk();
    let mut busway = ours(&initrd, CMDLINE);
    busway.args(["--cpus", "2", "--memory", "512M"]).arg("--disk").arg(&disk);
    let values = figures(&mut busway);
    let mut peer = qemu(&initrd, CMDLINE);
    let drive = format!("file={},format=raw,if=none,id=disk,aio=io_uring", disk.display());
    peer.args(["-smp", "2", "-object", "iothread,id=io", "-drive", &drive]);
    peer.args(["-device", "virtio-blk-pci,drive=disk,iothread=io"]);
    let limits = figures(&mut peer);
    for ((load, value), limit) in LOADS.iter().zip(values).zip(limits) {
        let Load { pattern, block, depth, jobs } = load;
        let params = format!("{pattern} {block} depth={depth} jobs={jobs}, limit: QEMU virtio-blk");
        lines.push(Line::less("guest/fio", params, value, "us", Some(limit)));
    }
}

/// The stock initramfs with fio, the modules of a virtio disk, and a script that does it all.
fn fio_initrd() -> PathBuf {
    let mut script = format!("#!/bin/sh\n{PREPARE}\n");
    for Load { pattern, block, depth, jobs } in &LOADS {
        script += &format!(
            "fio --minimal --name=load --filename=$disk --direct=1 --ioengine=io_uring --group_reporting \
                --time_based --ramp_time=1 --runtime=4 \
                --rw={pattern} --bs={block} --iodepth={depth} --numjobs={jobs} | grep '^3;'\n"
        );
    }
    let path = initrd("test/run", &script);
    let mut whole = File::options().append(true).open(&path).expect("the initramfs");
    for part in ["fio.cpio", "virtio.cpio"] {
        let mut part = File::open(part).expect("an archive");
        io::copy(&mut part, &mut whole).expect("room for an archive");
    }
    path
}

/// Microseconds a request, of each load.
fn figures(command: &mut Command) -> Vec<f64> {
    let mut guest = Running::start(command);
    let figure = |load: &Load| {
        let line = guest.whole_line("3;fio");
        eprintln!("bench: {:?}: {} {}", command.get_program(), load.pattern, load.block);
        let place = if load.pattern.ends_with("write") { WRITES } else { READS };
        let rate = line.split(';').nth(place).and_then(|rate| rate.parse::<f64>().ok());
        1e6 / rate.filter(|rate| *rate > 0.0).expect("fio's requests a second")
    };
    LOADS.iter().map(figure).collect()
}
