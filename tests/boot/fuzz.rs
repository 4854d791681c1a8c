// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway fuzz-guest` on a stock driver.

use std::process::Command;

use crate::case::{Case, Outcome, tests};

tests![a_few_wrong_words_reach_a_network_driver];

/// Whether the guest stands them is the guest's: what counts is that they reach it, and that each boot ends.
fn a_few_wrong_words_reach_a_network_driver(case: &Case) -> Outcome {
    let initrd = case.guest().initrd(
        "ip link set eth0 up
        ip addr add 192.0.2.1/24 dev eth0
        while :; do
            ping -c 1 -W 1 192.0.2.2 >/dev/null 2>&1 || true
        done",
    );
    let findings = case.path("findings");
    let mut command = Command::new("busway");
    command
        .arg("fuzz-guest")
        .arg("--kernel")
        .arg(case.kernel.vmlinuz())
        .arg("--initrd")
        .arg(initrd);
    command.args(["--cmdline", "console=ttyS0 quiet panic=-1", "--net", "loopback"]);
    command.args(["--device", "network", "--seed", "1", "--cases", "8", "--per-boot", "8"]);
    command.args(["--watch", "5", "--hyperv", case.kernel.engine]);
    command.arg("--findings").arg(findings);
    case.transcript().line(&format!("--- {command:?}"));
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    case.transcript().line(&format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)));
    assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}", output.status);
    assert!(stdout.contains("8 cases, of which"), "{stdout}");
    assert!(stdout.contains("  RNDIS frame\n"), "each kind is counted");
    Ok(())
}
