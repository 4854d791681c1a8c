// SPDX-License-Identifier: MIT OR Apache-2.0

//! The emulated host's machine, as QEMU's command line.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;
use busway_guest_images::store::Image;
use busway_guest_images::tree::Tree;

use super::Machine;

/// Sockets in the run's directory, each the other end of `/dev/vport0p1` and on.
pub(crate) const PORTS: [&str; 3] = ["stdout", "stderr", "files"];

/// `tsc=reliable`: else the clock source is not the TSC, and KVM makes no TSC page for its guests.
/// `mitigations=off` saves a third of the start. An oops of KVM is a failure of the job, not a log line; a
/// host that hangs becomes one within half a minute. `isolcpus=0`: see [`SPARE`].
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 oops=panic tsc=reliable mitigations=off \
    rcupdate.rcu_cpu_stall_timeout=30 sysctl.kernel.panic_on_rcu_stall=1 isolcpus=0";

/// Processors that run no job: the first one, whose state other processors' threads write.
///
/// Where QEMU's TCG loads x87 state (`cpu_set_fpus` in target/i386/tcg/fpu_helper.c, by FXRSTOR for one), it
/// clears IGNNE of the first processor, whichever one it emulates, in a word without a lock that has that
/// processor's GIF and nested paging too. If the first processor enters or leaves a guest at that moment,
/// its change of these is lost: hosts took interrupts with the guest's registers, guests walked their page
/// tables without the host's, in one boot of some twenty. No guest, no such moment.
const SPARE: u32 = 1;

/// SVM with nested paging, which TCG has. What the processor lacks, KVM offers to no guest: XSAVE is off, and
/// AVX with it, because some QEMU's (7.2) made guests fail (Linux 5.10, 7.3), and the start is quicker.
const PROCESSOR: &str = "EPYC,+svm,+npt,-xsave,-xsaveopt,-xsavec,-xgetbv1,-avx,-avx2,-f16c,-fma";

/// QEMU from `tree`, running `image` with what lies in `directory`: `initrd.cpio` goes in; `console.log`,
/// `qemu.log` and the ports come out. With `terminal`, its hvc0 is our terminal.
pub(crate) fn command(
    tree: &Tree,
    machine: Machine,
    image: &Image,
    directory: &Path,
    terminal: bool,
) -> anyhow::Result<Command> {
    let program = tree.command("usr/bin/qemu-system-x86_64");
    // QEMU must not outlive an xtask that is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    command.arg(program.get_program()).args(program.get_args());
    for roms in ["usr/share/qemu", "usr/share/seabios"] {
        command.arg("-L").arg(tree.path(roms));
    }
    let mut say = |words: &str| {
        command.args(words.split(' '));
    };
    say("-nodefaults -no-user-config -display none -no-reboot");
    say("-M q35 -accel tcg,thread=multi");
    say(&format!("-cpu {PROCESSOR}"));
    say(&format!("-smp {} -m {}M", machine.cpus + SPARE, machine.memory_mib));
    say("-chardev file,id=console,path=console.log -serial chardev:console");
    say("-device virtio-serial-pci");
    for (number, port) in (1..).zip(PORTS) {
        say(&format!("-chardev socket,id={port},path={port}"));
        say(&format!("-device virtserialport,nr={number},chardev={port}"));
    }
    if terminal {
        say("-chardev stdio,id=terminal,signal=off");
        say("-device virtconsole,nr=0,chardev=terminal");
    }
    command.arg("-kernel").arg(&image.vmlinuz);
    command.args(["-initrd", "initrd.cpio", "-append", COMMAND_LINE]);
    if !terminal {
        command.stdin(Stdio::null()).stdout(Stdio::null());
    }
    let log = File::create(directory.join("qemu.log")).context("could not write qemu.log")?;
    // Paths are relative because a socket's has 107 bytes at most.
    command.current_dir(directory).stderr(log);
    Ok(command)
}
