// SPDX-License-Identifier: MIT OR Apache-2.0

//! `--strict` on stock guests, which are its calibration: docs/strict.md says what is found on them.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::thread;

use crate::case::{Case, Outcome, Skip, tests};

tests![a_stock_guest_with_all_devices_breaks_the_rules_that_are_written_down];

/// What is to be found on a stock guest, as docs/strict.md has it.
const DOCUMENTED: &[&str] = &[];

/// Every device at work, then all drivers that can be unbound and bound again.
fn a_stock_guest_with_all_devices_breaks_the_rules_that_are_written_down(case: &Case) -> Outcome {
    if case.kernel.version != (6, 1) {
        return Err(Skip("the rules are calibrated on Linux 6.1".to_owned()));
    }
    let (control, disk) = (case.control(), case.disk(32));
    let (sockets, shot) = (case.path("vsock"), case.path("shot"));
    fs::create_dir(&sockets).unwrap();
    let listener = UnixListener::bind(sockets.join("vsock_1024")).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut chunk = vec![0; 64 << 10];
            while let Ok(len) = stream.read(&mut chunk) {
                if len == 0 || stream.write_all(&chunk[..len]).is_err() {
                    break;
                }
            }
            let _ = stream.shutdown(Shutdown::Write);
        }
    });
    let guest = case.guest().cpus(2).disk(&disk).flag("--strict=fail").flag("-v");
    let guest = guest.flag("--control").flag(control.path()).flag("--vsock").flag(&sockets);
    let guest = guest.flag("--net").flag("loopback").flag("--integration").flag("all");
    let guest = guest.flag("--keyboard").flag("--mouse").flag("--balloon");
    let guest = guest.flag("--display").flag(format!("png={}", shot.display()));
    let mut guest = guest.start(
        "modprobe hyperv_fb 2>/dev/null || modprobe hyperv_drm 2>/dev/null || true
        ifconfig eth0 10.9.9.1 up
        echo ready=yes
        ping -c 20 -i 0.05 -w 5 -s 3000 10.9.9.2 >/dev/null 2>&1 || true
        agent churn $(disk 0) count=300 >/dev/null
        agent call 1024 bytes=200k turns=2 >/dev/null
        echo worked=yes
        sleep 1
        ifconfig eth0 down
        for driver in hv_netvsc hv_storvsc hv_utils hyperv_keyboard hid_hyperv hv_balloon; do
            for device in /sys/bus/vmbus/drivers/$driver/*-*-*-*-*; do
                [ -e $device ] || continue
                echo ${device##*/} >/sys/bus/vmbus/drivers/$driver/unbind
                echo ${device##*/} >/sys/bus/vmbus/drivers/$driver/bind || true
                echo bound=$driver
            done
        done
        usleep 300000",
    );
    guest.wait_for("ready=");
    control.ask(&["type", "abc\n"]);
    control.ask(&["point", "100", "200"]);
    control.ask(&["balloon", "480M"]);
    guest.wait_for("worked=");
    let report = guest.end();
    assert!(report.all("bound").len() >= 5, "{:?}", report.all("bound"));
    let mut rules: Vec<&str> = report
        .busway
        .lines()
        .filter_map(|line| line.strip_prefix("busway: strict: ")?.split_once(": "))
        .map(|(rule, _)| rule)
        .collect();
    rules.sort_unstable();
    rules.dedup();
    assert_eq!(rules, DOCUMENTED, "{}", report.busway);
    let (_, seen) = report.busway.split_once(" messages and ").unwrap();
    let packets: u32 = seen.split(' ').next().unwrap().parse().unwrap();
    assert!(packets > 300, "{packets} are too few to say anything");
    assert_eq!(report.status, i32::from(!DOCUMENTED.is_empty()), "{}", report.busway);
    Ok(())
}
