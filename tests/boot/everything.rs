// SPDX-License-Identifier: MIT OR Apache-2.0

//! All devices on one guest, all of them at work.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::case::{Case, Outcome, number, tests};

tests![all_devices_work_beside_each_other];

/// What the host does to the guest while that is loaded, so many times at the least.
const ROUNDS: u32 = 3;

/// Disk, network, sockets, screen, keyboard, mouse, memory and all services at once; then no error in the
/// guest's log, and it switches itself off. For as long as BUSWAY_SOAK_SECONDS says.
fn all_devices_work_beside_each_other(case: &Case) -> Outcome {
    let (control, disk) = (case.control(), case.disk(32));
    let (sockets, shot) = (case.path("vsock"), case.path("shot"));
    fs::create_dir(&sockets).unwrap();
    let listener = UnixListener::bind(sockets.join("vsock_1024")).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut chunk = vec![0; 64 << 10];
                while let Ok(len) = stream.read(&mut chunk) {
                    if len == 0 || stream.write_all(&chunk[..len]).is_err() {
                        break;
                    }
                }
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    let guest = case.guest().program("hyperv-daemons")?.cpus(2).disk(&disk);
    let guest = guest.flag("--control").flag(control.path()).flag("--vsock").flag(&sockets);
    let guest = guest.flag("--net").flag("loopback").flag("--integration").flag("all");
    let guest = guest.flag("--keyboard").flag("--mouse").flag("--balloon");
    let guest = guest.flag("--display").flag(format!("png={}", shot.display()));
    let guest = guest.flag("--raw").flag("11223344-5566-4000-8000-99aabbccddee");
    let mut guest = guest.start(
        "mkdir -p /var/lib/hyperv
        hv_kvp_daemon
        hv_vss_daemon
        modprobe hyperv_fb 2>/dev/null || modprobe hyperv_drm 2>/dev/null || true
        ifconfig eth0 10.9.9.1 up
        while true; do ping -c 2 -w 1 10.9.9.2 >/dev/null 2>&1 || true; done &
        while true; do
            if agent churn $(disk 0) count=50 >/tmp/churned; then echo disk=yes; else cat /tmp/churned; fi
        done &
        # Linux gives a connection 2 s, which a loaded emulator may not keep: it says so, and calls again.
        while true; do
            if agent call 1024 bytes=200k turns=2 >/tmp/called; then echo socket=yes; else cat /tmp/called; fi
        done &
        { while read line; do echo typed=$line; done </dev/tty1; } &
        echo ready=yes
        while [ ! -e /tmp/enough ]; do
            echo $RANDOM >/dev/tty1
            grep -q enough /var/lib/hyperv/.kvp_pool_0 2>/dev/null && touch /tmp/enough
            usleep 200000
        done
        fact frames $(cat /sys/class/net/eth0/statistics/tx_packets)
        dmesg -r | grep -v PCI: | sed -n 's/^<[0-3]>/complaint=/p'
        echo quiet=yes
        sleep 1000",
    );
    guest.wait_for("ready=");
    for service in ["shutdown", "heartbeat", "time", "kvp", "vss"] {
        control.wait_until_ready(service);
    }
    let soak = Duration::from_secs(number("BUSWAY_SOAK_SECONDS").unwrap_or(0).into());
    let begun = Instant::now();
    for round in (0_u32..).take_while(|&round| round < ROUNDS || begun.elapsed() < soak) {
        control.ask(&["balloon", if round % 2 == 0 { "448M" } else { "512M" }]);
        control.ask(&["type", &format!("round {round}\n")]);
        let (status, pointed) = control.run(&["point", "100", "200"]);
        assert!(status == Some(0) || pointed["failed"] == "the guest has no driver for it");
        control.ask(&["kvp", "set", "external", "round", &round.to_string()]);
        control.ask(&["backup", "true"]);
        control.ask(&["set-time"]);
        for what in ["typed=", "disk=", "socket="] {
            guest.wait_for(what);
        }
        let (status, shown) = control.run(&["screenshot", shot.to_str().unwrap()]);
        assert!(status == Some(0) || shown["failed"] == "the guest shows nothing on its screen");
        let status = control.ask(&["status"]);
        assert_eq!(status["done"]["heartbeat"]["alive"], true, "{status}");
    }
    control.ask(&["kvp", "set", "external", "enough", "yes"]);
    guest.wait_for("quiet=");
    control.ask(&["shutdown"]);
    let report = guest.end();
    assert_eq!(report.status, 0);
    assert!(report.all("complaint").is_empty(), "{:?}", report.all("complaint"));
    assert!(report.number("frames") > 0);
    // What the agent says when Linux has given a connection up (ETIMEDOUT).
    let failed = report.lines.iter().filter(|line| line.contains("agent: "));
    let failed: Vec<_> = failed.filter(|line| !line.ends_with("(os error 110)")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    Ok(())
}
