// SPDX-License-Identifier: MIT OR Apache-2.0

//! guest/boot: from exec to the guest's init. Beside it, QEMU with the same kernel on the same KVM.

use std::path::Path;
use std::process::Command;

use super::guest::{Running, busway, initrd};
use crate::report::{Line, median_of};

const INIT: &str = "#!/bin/busybox sh\necho init is here\nexec /bin/busybox sleep 1000\n";
const CMDLINE: &str = "console=ttyS0 quiet loglevel=1 panic=-1 rdinit=/bench-init";
const ROUNDS: usize = 3;

pub fn run(lines: &mut Vec<Line>) {
    let initrd = initrd("bench-init", INIT);
    let (values, limits) =
        (0..ROUNDS).map(|_| (seconds(ours(&initrd)), seconds(qemu(&initrd)))).unzip();
    let limit = Some(median_of(limits));
    let params = "exec to init, limit: QEMU q35";
    lines.push(Line::less("guest/boot", params, median_of(values), "s", limit));
}

fn seconds(mut command: Command) -> f64 {
    let seconds = Running::start(&mut command).line("init is here").as_secs_f64();
    eprintln!("bench: {:?}: {seconds:.2} s", command.get_program());
    seconds
}

fn ours(initrd: &Path) -> Command {
    let mut command = busway(Path::new("vmlinuz"));
    command.arg("--initrd").arg(initrd).args(["--cmdline", CMDLINE]);
    command
}

fn qemu(initrd: &Path) -> Command {
    let mut command = Command::new("qemu/lib/ld-linux-x86-64.so.2");
    let mut say = |words: &str| {
        command.args(words.split(' '));
    };
    say("--inhibit-cache --library-path qemu/lib qemu/qemu-system-x86_64 -L qemu/share");
    say("-nodefaults -no-user-config -display none -no-reboot");
    say("-M q35 -accel kvm -cpu host -smp 1 -m 512M -serial stdio -kernel vmlinuz");
    command.arg("-initrd").arg(initrd).args(["-append", CMDLINE]);
    command
}
