// SPDX-License-Identifier: MIT OR Apache-2.0

//! What docs/harness.md promises: commands in a stock guest's own shell.

use crate::case::{Case, Outcome, tests};

tests![commands_run_in_the_guests_shell];

fn commands_run_in_the_guests_shell(case: &Case) -> Outcome {
    let control = case.control();
    let guest = case.guest().disk(&case.empty_disk(4)).flag("--control").flag(control.path());
    let mut guest = guest.word("busway.shell").start("true");
    guest.wait_for("busway-guest: a shell");
    let version = guest.run("uname -r").text;
    let (major, minor) = case.kernel.version;
    assert!(version.contains(&format!("{major}.{minor}.")), "{version}");
    assert_eq!(guest.run("grep -q no-such-thing /proc/modules").status, 1);
    let modules = guest.run("cat /proc/modules\necho done").text;
    assert!(modules.contains("hv_storvsc ") && modules.contains("done"), "{modules}");
    control.wait_until_ready("shutdown");
    control.ask(&["shutdown", "power-off"]);
    assert_eq!(guest.end().status, 0);
    Ok(())
}
