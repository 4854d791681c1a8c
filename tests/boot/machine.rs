// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a machine starts over and ends, and what busway's exit status says of it.

use std::time::Duration;

use crate::case::{Case, Outcome, tests};
use crate::terminal::Terminal;

tests![
    power_off_is_success,
    a_reboot_starts_the_machine_again_in_place,
    a_reset_in_the_middle_of_writes_starts_over,
    a_reboot_ends_it_where_that_is_asked,
    a_panic_is_reported_with_the_guests_last_words,
    a_panic_before_the_bus_is_reported_too,
    a_triple_fault_is_the_guests_failure,
    a_guest_that_does_not_end_in_time_has_failed,
    sigterm_ends_it_with_the_disk_in_order,
    the_terminal_is_as_it_was,
    ctrl_a_x_ends_it,
    a_disk_in_use_is_refused,
];

fn power_off_is_success(case: &Case) -> Outcome {
    let report = case.guest().run("true");
    assert_eq!(report.busway, "", "nothing is worth a word");
    Ok(())
}

/// F24: five times over, and the guest finds what it left, where it left it.
fn a_reboot_starts_the_machine_again_in_place(case: &Case) -> Outcome {
    let disk = case.empty_disk(4);
    let guest = case.guest().cpus(2).disk(&disk).run(
        "disk=$(disk 0)
        life=$(dd if=$disk bs=1 count=1 2>/dev/null | tr -d '\\0')
        fact life ${life:=0}
        fact device $(basename $(bound_to hv_storvsc)):$(cat $(bound_to hv_storvsc)/id)
        fact uptime $(cut -d . -f 1 /proc/uptime)
        [ $life = 5 ] || {
            printf $((life + 1)) | dd of=$disk conv=fsync 2>/dev/null
            reboot -f
            sleep 1000
        }",
    );
    assert_eq!(guest.all("life"), ["0", "1", "2", "3", "4", "5"]);
    let devices = guest.all("device");
    assert_eq!(devices, vec![devices[0]; 6]);
    Ok(())
}

/// No driver says farewell, requests are on their way, and the next life finds all as new.
fn a_reset_in_the_middle_of_writes_starts_over(case: &Case) -> Outcome {
    let disk = case.empty_disk(64);
    let guest = case.guest().cpus(2).disk(&disk).run(
        "disk=$(disk 0)
        if agent check $disk seed=41 start=60m; then
            agent churn $disk threads=2 count=20 region=4m
            fact life second
        else
            agent write $disk seed=41 start=60m
            agent churn $disk threads=8 count=100000 region=4m &
            while [ $(awk '{ print $5 }' /sys/block/${disk#/dev/}/stat) -lt 200 ]; do usleep 20000; done
            echo b >/proc/sysrq-trigger
            sleep 1000
        fi",
    );
    assert_eq!(guest.fact("life"), "second");
    Ok(())
}

fn a_reboot_ends_it_where_that_is_asked(case: &Case) -> Outcome {
    let report = case.guest().flag("--no-reboot").word("reboot=k").start("reboot -f").end();
    assert_eq!(report.status, 0);
    assert_eq!(report.lines.iter().filter(|line| line.contains("reboot:")).count(), 1);
    Ok(())
}

/// F22, F23: from a CPU that is not the first, in the words of the guest's own log.
fn a_panic_is_reported_with_the_guests_last_words(case: &Case) -> Outcome {
    let disk = case.empty_disk(4);
    let guest = case.guest().cpus(2).disk(&disk);
    let report = guest.start("taskset 2 sh -c 'echo c >/proc/sysrq-trigger'").end();
    assert_eq!(report.status, 1);
    assert!(report.busway.contains("vCPU 1"));
    assert!(report.busway.contains("sysrq triggered crash"));
    assert!(report.busway.contains("rip"));
    Ok(())
}

/// F23: the crash registers do not wait for the bus. Older kernels have only numbers to put into them then.
fn a_panic_before_the_bus_is_reported_too(case: &Case) -> Outcome {
    let guest = case.guest().word("busway.modules=none");
    let report = guest.start("echo c >/proc/sysrq-trigger").end();
    assert_eq!(report.status, 1);
    assert!(report.busway.contains("sysrq triggered crash") || report.busway.contains("P4 0x"));
    assert!(report.busway.contains("rip"));
    Ok(())
}

fn a_triple_fault_is_the_guests_failure(case: &Case) -> Outcome {
    let report = case.guest().word("reboot=t").start("reboot -f").end();
    assert_eq!(report.status, 1);
    assert!(report.busway.contains("triple fault"));
    Ok(())
}

fn a_guest_that_does_not_end_in_time_has_failed(case: &Case) -> Outcome {
    let report = case.guest().timeout(Duration::from_secs(3)).start("sleep 1000").end();
    assert_eq!(report.status, 1);
    assert!(report.busway.contains("no progress within --timeout 3"));
    Ok(())
}

/// What the guest has synced is there, and nobody is left who could still write.
fn sigterm_ends_it_with_the_disk_in_order(case: &Case) -> Outcome {
    let disk = case.empty_disk(64);
    let mut guest = case
        .guest()
        .cpus(2)
        .disk(&disk)
        .start("agent write $(disk 0) seed=31 count=10000 sync=each");
    guest.wait_for("synced=20");
    guest.terminate();
    let report = guest.end();
    assert_eq!(report.status, 128 + 15);
    let blocks =
        busway_guest_agent::Blocks { seed: 31, block: 4096, count: 10_000, start: 0, stride: 4096 };
    disk.must_hold(&blocks, report.all("synced").len() as u64);
    Ok(())
}

/// The terminal is raw while the guest has it.
fn the_terminal_is_as_it_was(case: &Case) -> Outcome {
    let terminal = Terminal::open();
    let before = terminal.modes();
    let mut guest = terminal.start(case.guest(), case, "echo ready; sleep 1000");
    guest.wait_for("ready");
    let meanwhile = terminal.modes();
    guest.terminate();
    assert_eq!(guest.end().status, 128 + 15);
    assert_ne!(meanwhile, before);
    assert_eq!(terminal.modes(), before);
    Ok(())
}

fn ctrl_a_x_ends_it(case: &Case) -> Outcome {
    let terminal = Terminal::open();
    let before = terminal.modes();
    let mut guest =
        terminal.start(case.guest(), case, "echo ready; read line; echo \"got=$line\"; sleep 1000");
    guest.wait_for("ready");
    terminal.type_in("hello\r");
    assert_eq!(guest.wait_for("got="), "hello");
    terminal.type_in("\x01x");
    assert_eq!(guest.end().status, 0);
    assert_eq!(terminal.modes(), before);
    Ok(())
}

fn a_disk_in_use_is_refused(case: &Case) -> Outcome {
    let disk = case.empty_disk(1);
    let mut first = case.guest().disk(&disk).start("echo ready; sleep 1000");
    first.wait_for("ready");
    let second = case.guest().disk(&disk).start("true").end();
    assert_eq!(second.status, 2);
    assert_eq!(second.busway.lines().count(), 1);
    assert!(second.busway.contains("--disk") && second.busway.contains("in use"));
    first.terminate();
    assert_eq!(first.end().status, 128 + 15);
    Ok(())
}
