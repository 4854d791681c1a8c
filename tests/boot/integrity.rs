// SPDX-License-Identifier: MIT OR Apache-2.0

//! A soak of disks, in which no byte may be wrong or missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use busway_guest_agent::Blocks;
use serde_json::Value;

use crate::case::{Case, Outcome, number, tests};
use crate::guest::script_status;
use crate::image::Image;

tests![nothing_is_lost_whatever_happens];

/// How long it goes on unless BUSWAY_SOAK_SECONDS says so: five minutes for both engines.
const SECONDS: u32 = 150;

/// How long a machine is loaded until it is killed or switched off.
const ROUND: Duration = Duration::from_secs(60);

/// Machines at the least: one that is killed, and one that is switched off.
const ROUNDS: u64 = 2;

/// How often a disk is plugged in and taken out again in each.
const TURNS: u32 = 3;

const RAW_MIB: usize = 32;
const OVERLAY_MIB: usize = 24;

/// Of blocks that are written one by one, each of which the guest knows to be safe when it says so.
const SAFE: u64 = 400;

/// The disk on a controller of its own goes in the middle of writes. What is under way then is answered by nobody,
/// and hv_storvsc waits for it for ever; so the machine is killed afterwards.
const RESCIND: &str = "[[rule]]\ndevice = \"storage\"\nfrom = \"guest\"\n\
    payload = { at = 19, bytes = [5] }\nnth = 150\ndo = \"rescind\"";

/// F32, F35, F39, F45, and what is done to disks at run time, all at once: fio checks what it has written to a
/// raw image and to a qcow2 overlay, at depths from 1 to 128 and in lengths from 4 to 128 KiB; one controller
/// is reset again and again while its disk is written, and rescinded in the middle of writes; a disk comes and goes;
/// busway is killed. What the guest knew to be safe is there, and qemu-img finds no error.
fn nothing_is_lost_whatever_happens(case: &Case) -> Outcome {
    let soak = Duration::from_secs(number("BUSWAY_SOAK_SECONDS").unwrap_or(SECONDS).into());
    let (raw, base, overlay) = (case.disk(RAW_MIB), case.disk(OVERLAY_MIB), case.path("overlay"));
    let images = Images { raw, base, overlay, reset: case.disk(8), plugged: case.disk(4) };
    let begun = Instant::now();
    for round in (0..).take_while(|&round| round < ROUNDS || begun.elapsed() < soak) {
        images.round(case, round)?;
    }
    Ok(())
}

struct Images {
    raw: Image,
    base: Image,
    overlay: PathBuf,
    reset: Image,
    plugged: Image,
}

impl Images {
    fn round(&self, case: &Case, round: u64) -> Outcome {
        let control = case.control();
        let overlay = format!("overlay={}", self.overlay.display());
        let guest = case.guest().program("fio")?.cpus(2).disk(&self.raw);
        let guest = guest.disk_with(&self.base, &overlay);
        let guest = guest.disk_with(&self.reset, "controller=1,lun=5");
        let guest = guest.flag("--control").flag(control.path());
        let begun = Instant::now();
        let mut guest = guest.start(&script(round));
        guest.wait_for("raw=128");
        let path = self.plugged.path().to_str().unwrap();
        for _ in 0..TURNS {
            control.ask(&["disk", "add", &format!("{path},lun=2,serial=PLUGGED")]);
            guest.wait_for("churned=");
            control.ask(&["disk", "remove", "PLUGGED"]);
            guest.wait_for("unplugged=");
        }
        while begun.elapsed() < ROUND {
            guest.wait_for("layered=");
        }
        guest.wait_for("reset=");
        guest.type_in("\r");
        guest.wait_for("calm=");
        let is_killed = round.is_multiple_of(2);
        if is_killed {
            control.fault(RESCIND);
        }
        guest.type_in("\r");
        guest.wait_for("safe=150");
        if is_killed {
            let fired = |reply: &Value| reply["done"]["rules"][0]["fired"] == 1;
            control.wait_until(&["fault", "list"], fired);
            guest.kill();
        } else {
            guest.type_in("\r");
        }
        let report = guest.end();
        if !is_killed {
            assert_eq!((script_status(&report), report.status), (Some(0), 0));
        }
        let failed = report.all("failed");
        assert!(failed.is_empty(), "round {round}: {failed:?}");
        self.raw.must_hold(&safe(round, 24 << 20), report.all("safe").len() as u64);
        self.reset.must_hold(&safe(round, 0), report.all("gone").len() as u64);
        must_be_consistent(&self.overlay);
        let layered = Image::at(case.path("layered"));
        qemu_img(&[
            "convert".as_ref(),
            "-O".as_ref(),
            "raw".as_ref(),
            &self.overlay,
            layered.path(),
        ]);
        layered.must_hold(&safe(round, 16 << 20), report.all("kept").len() as u64);
        Ok(())
    }
}

/// The blocks that become safe one by one.
fn safe(round: u64, start: u64) -> Blocks {
    Blocks { seed: 1000 * round, block: 12 << 10, count: SAFE, start, stride: 16 << 10 }
}

fn script(round: u64) -> String {
    let Blocks { seed, count, .. } = safe(round, 0);
    format!(
        "cd /tmp
        modprobe sg 2>/dev/null || true
        raw=$(disk 0)
        layered=$(disk 1)
        reset=$(disk 5)
        # Writes all over 8 MiB, reads them back and compares, at one depth after another.
        verify() {{
            until [ -e enough ]; do
                for depth in 1 8 32 128; do
                    if fio --name=$1 --filename=$2 --offset=$3 --size=8m --direct=1 --ioengine=io_uring \\
                        --rw=randwrite --bsrange=4k-128k --iodepth=$depth --verify=crc32c --verify_fatal=1 \\
                        --randseed=$RANDOM --verify_state_save=0 --minimal >fio.$1 2>&1; then
                        echo $1=$depth
                    else
                        cat fio.$1
                        echo failed=fio on $1 at $depth
                    fi
                done
            done
        }}
        verify raw $raw 0 &
        verify second $raw 8m &
        verify layered $layered 0 &
        {{
            until [ -e calm ]; do
                agent reset $reset seed=$RANDOM block=8k count=64 || echo failed=reset
                echo reset=yes
            done
            echo calm=yes
            until [ -e write ]; do usleep 20000; done
            agent write $reset direct sync=dsync seed={seed} block=12k count={count} stride=16k says=gone &
            agent write $layered direct sync=dsync seed={seed} block=12k count={count} start=16m stride=16k says=kept &
            agent write $raw direct sync=dsync seed={seed} block=12k count={count} start=24m stride=16k says=safe ||
                echo failed=safe writes
            wait
        }} &
        {{
            until [ -e enough ]; do
                name=$(ls /sys/class/scsi_disk/*:0:0:2/device/block 2>/dev/null || true)
                if [ -n \"$name\" ] && [ -b /dev/$name ]; then
                    while agent churn /dev/$name threads=2 count=10 region=2m >churn.said 2>&1; do
                        echo churned=yes
                    done
                    ! grep differ churn.said || echo failed=$(cat churn.said)
                    while [ -e /sys/block/$name ]; do usleep 50000; done
                    echo unplugged=yes
                fi
                usleep 50000
            done
        }} &
        read line
        touch calm
        read line
        touch write
        read line
        touch enough
        wait
        dmesg | grep -E 'BUG:|WARNING: CPU|Call Trace|blocked for more|Oops' && echo failed=a complaint || true"
    )
}

/// By QEMU's own program: no cluster is used twice, none is lost that is referred to.
fn must_be_consistent(image: &Path) {
    let output = qemu_img(&["check".as_ref(), image]);
    // Clusters that nothing refers to are what a kill may leave: room, not data (its status is 3).
    assert!(matches!(output.status.code(), Some(0 | 3)), "qemu-img check: {output:?}");
}

fn qemu_img(words: &[&Path]) -> Output {
    let mut command = Command::new("qemu-img/lib/ld-linux-x86-64.so.2");
    let command = command.args(["--inhibit-cache", "--library-path", "qemu-img/lib"]);
    command.arg("qemu-img/qemu-img").args(words).output().unwrap()
}
