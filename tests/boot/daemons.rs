// SPDX-License-Identifier: MIT OR Apache-2.0

//! The daemons of Debian's hyperv-daemons, which stand behind hv_utils.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use busway_guest_agent::noise;

use crate::case::{Case, Outcome, tests};
use crate::image::{Image, sha256};

tests![
    the_guest_publishes_pairs_and_is_told_some,
    a_disk_is_copied_while_it_is_written,
    files_are_copied_into_the_guest,
    a_daemon_that_dies_while_all_stands_still_is_an_error_of_its_own,
    a_card_gets_an_address,
];

/// F67.
fn the_guest_publishes_pairs_and_is_told_some(case: &Case) -> Outcome {
    let control = case.control();
    let guest = case.guest().program("hyperv-daemons")?.flag("--control").flag(control.path());
    let mut guest = guest.start(
        "mkdir -p /var/lib/hyperv
        cd /var/lib/hyperv
        # What a program of the guest leaves for the host: a key and a value in fields of fixed length.
        { printf weather | dd bs=512 conv=sync; printf fine | dd bs=2048 conv=sync; } >.kvp_pool_1 2>/dev/null
        echo ready
        hv_kvp_daemon
        echo release=$(uname -r)
        while usleep 100000; do
            [ ! -s .kvp_pool_0 ] || echo told=$(tr -s '\\0' ' ' <.kvp_pool_0)
        done",
    );
    guest.wait_for("ready");
    let release = guest.wait_for("release=");
    control.wait_until_ready("kvp");
    // What the daemon knows, of the kernel that it runs on.
    let list = control.ask(&["kvp", "list"]);
    let pairs = list["done"]["pairs"].as_array().unwrap();
    let value = |key: &str| {
        let pair = pairs.iter().find(|pair| pair["key"] == key);
        pair.unwrap_or_else(|| panic!("no {key}: {list}"))["value"].as_str().unwrap().to_owned()
    };
    assert!(release.starts_with(&value("OSVersion")), "{release}: {list}");
    assert_eq!(value("ProcessorArchitecture"), "x86_64");
    for key in ["FullyQualifiedDomainName", "IntegrationServicesVersion", "NetworkAddressIPv4"] {
        value(key);
    }
    // What its programs have left.
    let got = control.ask(&["kvp", "get", "guest", "weather"]);
    assert_eq!(got["done"]["pairs"][0]["value"], "fine");
    // What it is told.
    control.ask(&["kvp", "set", "external", "greeting", "good morning"]);
    while guest.wait_for("told=") != "greeting good morning" {}
    let got = control.ask(&["kvp", "get", "external", "greeting"]);
    assert_eq!(got["done"]["pairs"][0]["value"], "good morning");
    control.ask(&["kvp", "set", "external", "greeting", "good night"]);
    let list = control.ask(&["kvp", "list", "external"]);
    assert_eq!(list["done"]["pairs"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["done"]["pairs"][0]["value"], "good night");
    control.ask(&["kvp", "delete", "external", "greeting"]);
    let missing = "the pool has no \"greeting\"";
    assert_eq!(control.refused(&["kvp", "get", "external", "greeting"]), missing);
    assert_eq!(control.refused(&["kvp", "delete", "external", "greeting"]), missing);
    // What it cannot be told.
    let long = "x".repeat(5000);
    let reason = control.refused(&["kvp", "set", "external", "greeting", &long]);
    assert_eq!(reason, "the value has 5000 UTF-16 units, where 1023 are the most");
    // There is no such card.
    let (mac, card) = ("00:15:5d:00:00:01", "00000000-0000-4000-8000-000000000000");
    assert_eq!(control.refused(&["kvp", "addresses", mac]), "the guest refuses: FAIL");
    let set = ["kvp", "set-addresses", card, "--address", "10.0.0.2", "--mask", "255.0.0.0"];
    assert_eq!(control.refused(&set), "the guest refuses: NOT_FOUND");
    control.ask(&["shutdown"]);
    assert_eq!(guest.end().status, 0);
    Ok(())
}

/// F68: the copy needs no repair, what is in it is whole, and the guest goes on.
fn a_disk_is_copied_while_it_is_written(case: &Case) -> Outcome {
    let (control, disk) = (case.control(), Image::copy_of_data_disk(case.path("disk")));
    let guest = case.guest().program("hyperv-daemons")?.flag("--control").flag(control.path());
    let mut guest = guest.cpus(2).disk(&disk).start(
        "load_ext4
        mount -t ext4 $(disk 0)1 /mnt
        {
            number=0
            while true; do
                number=$(( (number + 1) % 200 ))
                rm -f /mnt/$number.sum
                dd if=/dev/urandom of=/mnt/$number bs=16k count=1 2>/dev/null
                sha256sum /mnt/$number >/mnt/$number.sum
                [ $((number % 20)) != 0 ] || echo written=$number
            done
        } &
        hv_vss_daemon
        echo ready
        sleep 1000",
    );
    guest.wait_for("ready");
    control.wait_until_ready("vss");
    guest.wait_for("written=");
    assert!(needs_recovery(disk.path()), "it is in use");
    let copy = case.path("copy");
    let (from, to) = (disk.path().to_str().unwrap(), copy.to_str().unwrap());
    control.ask(&["backup", "cp", from, to]);
    assert!(!needs_recovery(&copy));
    // It goes on.
    guest.wait_for("written=");
    guest.wait_for("written=");
    // A command that fails, and one that takes too long: the guest goes on at its time.
    let (status, _) = control.run(&["backup", "false"]);
    assert_eq!(status, Some(1));
    let reason = control.refused(&["backup", "--seconds", "1", "sleep", "3"]);
    assert_eq!(reason, "nothing is frozen, or not any more");
    guest.wait_for("written=");
    guest.wait_for("written=");
    control.ask(&["shutdown"]);
    assert_eq!(guest.end().status, 0);

    let copy = Image::at(copy);
    let guest = case.guest().disk_with(&copy, "readonly").run(
        "load_ext4
        mount -t ext4 -o ro,noload $(disk 0)1 /mnt
        fact old $(sum /mnt/deep/down/noise.bin)
        whole=0
        for sum in /mnt/*.sum; do
            [ ! -s $sum ] || { sha256sum -c $sum >/dev/null; whole=$((whole + 1)); }
        done
        fact whole $whole
        dmesg | sed -n 's/.*EXT4-fs \\(error\\|warning\\)/complaint=&/p'",
    );
    assert!(guest.number("whole") >= 20);
    assert!(guest.all("complaint").is_empty());
    Ok(())
}

/// Whether the ext4 of the data disk's partition has work in its journal that is not done: the feature
/// `needs_recovery` of its superblock (Linux `Documentation/filesystems/ext4/super.rst`).
fn needs_recovery(disk: &Path) -> bool {
    let mut features = [0; 4];
    let superblock = (1 << 20) + 1024;
    File::open(disk).unwrap().read_exact_at(&mut features, superblock + 0x60).unwrap();
    u32::from_le_bytes(features) & 4 != 0
}

/// F69.
fn files_are_copied_into_the_guest(case: &Case) -> Outcome {
    let control = case.control();
    let daemon = if case.kernel.version < (6, 10) { "hyperv-fcopy" } else { "hyperv-fcopy-uio" };
    let guest = case.guest().program(daemon)?.flag("--control").flag(control.path());
    let mut guest = guest.flag("--integration").flag("all").start(
        "mkdir -p /tmp/small
        mount -t tmpfs -o size=24k small /tmp/small
        # What udev does for a device that a module's table names.
        modprobe uio_hv_generic 2>/dev/null || true
        hv_fcopy_daemon || hv_fcopy_uio_daemon
        echo ready
        while usleep 200000; do
            for file in /tmp/big /tmp/deep/er/big; do
                [ ! -e $file ] || echo $file=$(sum $file)
            done
            echo left=$(ls /tmp/small)
        done",
    );
    guest.wait_for("ready");
    control.wait_until_ready("copy");
    let big = case.path("big");
    fs::write(&big, noise(7, 3_000_001)).unwrap();
    let (file, sum) = (big.to_str().unwrap(), sha256(&big));
    control.ask(&["copy", file, "/tmp/big"]);
    while guest.wait_for("/tmp/big=") != sum {}
    assert_eq!(control.refused(&["copy", file, "/tmp/big"]), "the guest refuses: ALREADY_EXISTS");
    fs::write(&big, noise(8, 100_000)).unwrap();
    let sum = sha256(&big);
    control.ask(&["copy", "--overwrite", file, "/tmp/big"]);
    while guest.wait_for("/tmp/big=") != sum {}
    assert!(control.refused(&["copy", file, "/tmp/deep/er/big"]).starts_with("the guest refuses"));
    control.ask(&["copy", "--create-path", file, "/tmp/deep/er/big"]);
    while guest.wait_for("/tmp/deep/er/big=") != sum {}
    // Of what does not fit, nothing is left.
    let reason = control.refused(&["copy", file, "/tmp/small/big"]);
    assert_eq!(reason, "the guest refuses: DISK_FULL");
    while !guest.wait_for("left=").is_empty() {}
    // Nor of what nobody wants any more.
    fs::write(&big, noise(9, 30_000_000)).unwrap();
    let mut copying = Command::new("busway");
    copying.arg("ctl").arg(control.path()).args(["copy", file, "/tmp/unwanted"]);
    let mut copying = copying.stderr(Stdio::piped()).spawn().unwrap();
    let mut started = [0; 1];
    std::io::Read::read_exact(copying.stderr.as_mut().unwrap(), &mut started).unwrap();
    copying.kill().unwrap();
    copying.wait().unwrap();
    // The guest has one thing to do at a time, so it has done with the other.
    control.ask(&["copy", "--overwrite", file, "/tmp/big"]);
    control.ask(&["shutdown"]);
    assert_eq!(guest.end().status, 0);
    Ok(())
}

/// Nobody is left to thaw: the host says so at once, the other services go on, and the next daemon thaws.
fn a_daemon_that_dies_while_all_stands_still_is_an_error_of_its_own(case: &Case) -> Outcome {
    let (control, disk) = (case.control(), Image::copy_of_data_disk(case.path("disk")));
    let guest = case.guest().program("hyperv-daemons")?.flag("--control").flag(control.path());
    let mut guest = guest.flag("--keyboard").disk(&disk).start(
        "load_ext4
        mount -t ext4 $(disk 0)1 /mnt
        hv_vss_daemon
        while usleep 100000; do echo x >/mnt/x; echo written=yes; done &
        echo ready
        read line </dev/tty1
        killall hv_vss_daemon
        echo killed
        read line </dev/tty1
        hv_vss_daemon
        echo again
        sleep 1000",
    );
    guest.wait_for("ready");
    control.wait_until_ready("vss");
    guest.wait_for("written=");
    let path = control.path().to_str().unwrap().to_owned();
    let kill = format!("busway ctl {path} type '\n'; sleep 3");
    let reason = control.refused(&["backup", "sh", "-c", &kill]);
    assert!(reason.starts_with("the guest "), "{reason}");
    guest.wait_for("killed");
    let status = control.ask(&["status"]);
    assert_eq!(status["done"]["heartbeat"]["alive"], true, "{status}");
    control.ask(&["type", "\n"]);
    guest.wait_for("again");
    while control.run(&["backup", "true"]).0 != Some(0) {
        guest.has_time();
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    guest.wait_for("written=");
    guest.wait_for("written=");
    control.ask(&["shutdown"]);
    assert_eq!(guest.end().status, 0);
    Ok(())
}

/// F67, SET_IP: the daemon writes what the script of a distribution takes, and runs that.
fn a_card_gets_an_address(case: &Case) -> Outcome {
    let control = case.control();
    let guest = case.guest().program("hyperv-daemons")?.flag("--control").flag(control.path());
    let mut guest = guest.flag("--net").flag("loopback").start(
        "mkdir -p /var/lib/hyperv /usr/libexec/hypervkvpd
        script=/usr/libexec/hypervkvpd/hv_set_ifconfig
        { echo '#!/bin/sh'; echo 'cp $1 /tmp/config'; } >$script
        chmod +x $script
        hv_kvp_daemon
        echo card=$(cat /sys/class/net/eth0/device/device_id)
        while [ ! -e /tmp/config ]; do usleep 100000; done
        sed 's/^/config=/' /tmp/config
        echo whole=yes
        sleep 1000",
    );
    let card = guest.wait_for("card=");
    control.wait_until_ready("kvp");
    let card = card.trim_matches(['{', '}']);
    let mut words = vec!["kvp", "set-addresses", card, "--address", "10.0.0.2"];
    words.extend(["--mask", "255.0.0.0", "--gateway", "10.0.0.1", "--name-server", "10.0.0.3"]);
    control.ask(&words);
    guest.wait_for("whole=");
    control.ask(&["shutdown"]);
    let report = guest.end();
    assert_eq!(report.status, 0);
    let config = report.all("config").join("\n");
    for line in ["DEVICE=eth0", "IPADDR0=10.0.0.2", "NETMASK0=255.0.0.0", "GATEWAY=10.0.0.1"] {
        assert!(config.contains(line), "{config}");
    }
    assert!(config.contains("DNS1=10.0.0.3"), "{config}");
    Ok(())
}
