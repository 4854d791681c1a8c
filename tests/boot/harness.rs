// SPDX-License-Identifier: MIT OR Apache-2.0

//! What docs/harness.md promises: commands in a stock guest's own shell, a mistake of the host's, a trace.

use busway_harness::Trace;

use crate::case::{Case, Outcome, tests};

tests![commands_run_in_the_guests_shell];

/// A rule by what is asked for, too: of all answers to READ (10) from then on the first.
fn commands_run_in_the_guests_shell(case: &Case) -> Outcome {
    let (control, capture) = (case.control(), case.path("pcapng"));
    let guest = case.guest().disk(&case.empty_disk(4)).flag("--control").flag(control.path());
    let guest = guest.flag("--capture").flag(&capture);
    let mut guest = guest.word("busway.shell").start("true");
    guest.wait_for("busway-guest: a shell");
    let version = guest.run("uname -r").text;
    let (major, minor) = case.kernel.version;
    assert!(version.contains(&format!("{major}.{minor}.")), "{version}");
    assert_eq!(guest.run("grep -q no-such-thing /proc/modules").status, 1);
    let modules = guest.run("cat /proc/modules\necho done").text;
    assert!(modules.contains("hv_storvsc ") && modules.contains("done"), "{modules}");
    control.fault(
        "[[rule]]
        device = 'storage'
        from = 'host'
        operation = 'READ_10'
        times = 1
        do = { set = { at = 14, bytes = [0x04] } }   # srb_status: SRB_STATUS_ERROR",
    );
    // Linux asks again.
    assert_eq!(guest.run("dd if=/dev/sda of=/dev/null bs=4k count=1 skip=100").status, 0);
    control.wait_until_ready("shutdown");
    control.ask(&["shutdown", "power-off"]);
    assert_eq!(guest.end().status, 0);
    assert_eq!(Trace::read(&capture).of("storage", "srb=ERROR").count(), 1);
    Ok(())
}
