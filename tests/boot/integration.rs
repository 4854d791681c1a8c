// SPDX-License-Identifier: MIT OR Apache-2.0

//! Integration components, as hv_utils and its daemons see them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::case::{Case, Outcome, tests};
use crate::terminal::Terminal;

tests![
    hv_utils_takes_up_each_component,
    the_guest_has_the_hosts_time,
    the_guest_starts_over_and_switches_off_when_asked,
    a_guest_that_does_not_switch_off_loses_its_power_after_the_grace,
];

/// F63. The guest goes on as long as the test looks at it.
fn hv_utils_takes_up_each_component(case: &Case) -> Outcome {
    let control = case.control();
    let mut guest = case.guest().flag("--control").flag(control.path()).start(
        "echo ready
        dmesg | sed -n 's/.*hv_utils: \\(\\(Heart\\|Shut\\|Time\\).* IC version\\) /ic=\\1 /p'
        sleep 1000",
    );
    guest.wait_for("ready");
    let versions =
        ["Heartbeat IC version 3.0", "Shutdown IC version 3.2", "TimeSync IC version 4.0"];
    let mut said: Vec<_> = versions.iter().map(|_| guest.wait_for("ic=")).collect();
    said.sort();
    assert_eq!(said, versions);
    let mut beats = 0;
    while beats < 3 {
        let status = control.ask(&["status"]);
        let heartbeat = &status["done"]["heartbeat"];
        assert_eq!(heartbeat["alive"], beats > 0 || heartbeat["answered"] != 0, "{status}");
        beats = heartbeat["answered"].as_u64().unwrap();
    }
    control.ask(&["shutdown"]);
    assert_eq!(guest.end().status, 0);
    Ok(())
}

/// F65: a reading lies between two of the host's own, and agrees with the guest's clock within 1 ms.
fn the_guest_has_the_hosts_time(case: &Case) -> Outcome {
    const MILLISECOND: i128 = 1_000_000;
    let host = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().cast_signed();
    let terminal = Terminal::open();
    let script = "for clock in /sys/class/ptp/*; do
            [ $(cat $clock/clock_name) = hyperv ] && device=/dev/$(basename $clock)
        done
        usleep 500000
        echo ready
        while read line; do agent ptp $device; done";
    let mut guest = terminal.start(case.guest(), case, script);
    guest.wait_for("ready");
    for _ in 0..5 {
        let asked = host();
        terminal.type_in("\r");
        let mut time = |name| guest.wait_for(name).parse::<i128>().unwrap();
        let (before, ptp, after) = (time("before="), time("ptp="), time("after="));
        let answered = host();
        let (early, late) = (ptp - MILLISECOND, ptp + MILLISECOND);
        assert!(asked <= late && early <= answered, "{asked} {ptp} {answered}");
        assert!(before <= late && early <= after, "{before} {ptp} {after}");
    }
    terminal.type_in("\x01x");
    assert_eq!(guest.end().status, 0);
    Ok(())
}

/// F64.
fn the_guest_starts_over_and_switches_off_when_asked(case: &Case) -> Outcome {
    let control = case.control();
    let guest = case.guest().flag("--control").flag(control.path());
    // What the kernel runs when it is asked politely.
    let mut guest = guest.start(
        "mkdir -p /sbin
        for name in poweroff reboot; do
            printf '#!/bin/sh\\necho asked=%s >/dev/console; busybox %s -f' $name $name >/sbin/$name
            chmod +x /sbin/$name
        done
        echo ready
        sleep 1000",
    );
    guest.wait_for("ready");
    control.ask(&["shutdown", "reboot"]);
    assert_eq!(guest.wait_for("asked="), "reboot");
    guest.wait_for("ready");
    // The machine has nothing to hibernate with, and its driver says so.
    assert_eq!(control.refused(&["shutdown", "hibernate"]), "the guest refuses: FAIL");
    control.ask(&["shutdown", "--force"]);
    assert_eq!(guest.wait_for("asked="), "poweroff");
    let report = guest.end();
    assert_eq!((report.status, &*report.busway), (0, ""));
    assert!(!control.path().exists(), "the socket is gone with the machine");
    Ok(())
}

/// Ctrl-A S asks, SIGTERM asks and waits.
fn a_guest_that_does_not_switch_off_loses_its_power_after_the_grace(case: &Case) -> Outcome {
    let terminal = Terminal::open();
    let machine = case.guest().flag("--grace").flag("1");
    let script = "mkdir -p /sbin
        printf '#!/bin/sh\\necho asked=again >/dev/console' >/sbin/poweroff
        chmod +x /sbin/poweroff
        echo ready
        sleep 1000";
    let mut guest = terminal.start(machine, case, script);
    guest.wait_for("ready");
    terminal.type_in("\x01s");
    guest.wait_for("asked=");
    guest.terminate();
    guest.wait_for("asked=");
    let report = guest.end();
    assert_eq!(report.status, 128 + 15);
    assert!(report.busway.contains("--grace 1"), "{}", report.busway);
    Ok(())
}
