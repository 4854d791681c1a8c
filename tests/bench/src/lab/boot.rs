// SPDX-License-Identifier: MIT OR Apache-2.0

//! guest/boot: from exec to the guest's init. Beside it, QEMU with the same kernel on the same KVM.

use std::process::Command;

use super::guest::{Running, initrd, ours, qemu};
use crate::report::{Line, median_of};

const INIT: &str = "#!/bin/busybox sh\necho init is here\nexec /bin/busybox sleep 1000\n";
const CMDLINE: &str = "console=ttyS0 quiet loglevel=1 panic=-1 rdinit=/bench-init";
const ROUNDS: usize = 3;

pub fn run(lines: &mut Vec<Line>) {
    let initrd = initrd("bench-init", INIT);
    let (values, limits) = (0..ROUNDS)
        .map(|_| (seconds(ours(&initrd, CMDLINE)), seconds(qemu(&initrd, CMDLINE))))
        .unzip();
    let limit = Some(median_of(limits));
    let params = "exec to init, limit: QEMU q35";
    lines.push(Line::less("guest/boot", params, median_of(values), "s", limit));
}

fn seconds(mut command: Command) -> f64 {
    let seconds = Running::start(&mut command).line("init is here").as_secs_f64();
    eprintln!("bench: {:?}: {seconds:.2} s", command.get_program());
    seconds
}
