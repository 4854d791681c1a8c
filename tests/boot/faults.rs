// SPDX-License-Identifier: MIT OR Apache-2.0

//! What stock drivers do when the host misbehaves by a script.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::case::{Case, Outcome, Skip, number, tests};
use crate::network;
use crate::tap::Tap;

tests![
    answers_are_late_wrong_and_short_and_the_guest_lives,
    late_interrupts_cost_time_alone,
    a_lost_interrupt_ends_a_channel_of_one_request_at_a_time,
    a_card_vanishes_under_traffic_and_returns,
    an_older_version_is_agreed_on_and_a_late_disk_is_found,
    a_host_that_is_silent_in_a_handshake_is_named,
];

fn storage_of(reply: &Value) -> &Value {
    let channels = reply["done"]["channels"].as_array().unwrap();
    channels.iter().find(|channel| channel["device"] == "storage").unwrap()
}

fn script(case: &Case, text: &str) -> PathBuf {
    let path = case.path("faults");
    fs::write(&path, text).unwrap();
    path
}

/// A rule about answers that bring this many bytes: the guest's test reads no others of that length.
fn about_reads_of(len: u32, action: &str) -> String {
    let [a, b, c, d] = len.to_le_bytes();
    format!(
        "[[rule]]\nname = \"{len}\"\ndevice = \"storage\"\nfrom = \"host\"\npacket = \"completion\"\n\
         payload = {{ at = 22, bytes = [1, 0, {a}, {b}, {c}, {d}] }}\nnth = 1\ndo = {action}\n"
    )
}

/// What Linux says of a read that failed in the SRB. 5.10 says it to who wants to know more.
const FAILED_READ: &str = r"
    echo 2 >/sys/module/hv_storvsc/parameters/logging_level
    failed_reads() {
        dmesg | grep -c 'hv_storvsc.*cmd 0x28 .*srb \(status \)*0x4'
    }
";

/// One read each: late; failed in the SRB, and made again; answered under a name that nobody has; answered
/// too short. hv_storvsc says so of the last two and waits for ever, as `storvsc_eh_timed_out`
/// (drivers/scsi/storvsc_drv.c) believes that each request is answered some day; other reads go on.
///
/// Linux 5.10 takes the name in an answer for an address without a look, and is spared those two.
fn answers_are_late_wrong_and_short_and_the_guest_lives(case: &Case) -> Outcome {
    let disk = case.disk(4);
    let checks_answers = case.kernel.version >= (6, 0);
    let mut rules = vec![
        about_reads_of(24 << 10, "{ delay = \"300ms\" }"),
        about_reads_of(28 << 10, "{ set = { at = 14, bytes = [4] } }"),
    ];
    if checks_answers {
        rules.push(about_reads_of(36 << 10, "{ transaction-id = 0xdead }"));
        rules.push(about_reads_of(40 << 10, "{ truncate = 12 }"));
    }
    let rules = script(case, &rules.concat());
    let begin = "disk=$(disk 0)
        read_once() { agent read $disk block=$1 count=1 >/dev/null; }
        read_once 24k && fact late came
        read_once 28k && fact failed $(failed_reads)
        ";
    let wrong = "read_once 36k &
        unknown=$!
        read_once 40k &
        short=$!
        for turn in $(seq 100); do
            ! dmesg | grep 'hv_storvsc.*Incorrect transaction ID' || ! dmesg | grep 'hv_storvsc.*Invalid pkt' || break
            usleep 50000
        done
        fact named $(dmesg | grep -c -e 'hv_storvsc.*Incorrect transaction ID' -e 'hv_storvsc.*Invalid pkt')
        kill -0 $unknown && kill -0 $short && fact waiting both
        ";
    let end = "fact sha256 $(agent read $disk | sha256sum | cut -d ' ' -f 1)";
    let parts = [FAILED_READ, begin, if checks_answers { wrong } else { "" }, end];
    let guest = case.guest().cpus(2).disk(&disk).flag("--faults").flag(rules).run(&parts.concat());
    assert_eq!(guest.fact("late"), "came");
    if checks_answers {
        assert_eq!((guest.fact("named"), guest.fact("waiting")), ("2", "both"));
    }
    assert_eq!(guest.fact("failed"), "1", "it is said, and the read is made again");
    assert_eq!(guest.fact("sha256"), disk.sha256());
    Ok(())
}

/// Every fifth interrupt of the controller comes 50 ms late, and nothing is lost. Then the machine is asked
/// how it is, and its reads fail now and then until that is taken back (F43).
fn late_interrupts_cost_time_alone(case: &Case) -> Outcome {
    let (disk, control) = (case.disk(4), case.control());
    // Disks have been looked for by then.
    let failing = include_str!("../../docs/faults/failed-read.toml").replace("10s", "0s");
    let failing = script(case, &failing);
    let rules = "[[rule]]\nname = \"late\"\ndevice = \"storage\"\nevery = 5\ndo = { interrupt-late = \"50ms\" }\n\
                 [[rule]]\nname = \"spurious\"\ndevice = \"storage\"\nevery = 3\ndo = \"interrupt\"";
    let rules = script(case, rules);
    let guest = case.guest().disk(&disk).flag("--faults").flag(rules);
    let mut guest = guest.flag("--control").flag(control.path()).start(&format!(
        "{FAILED_READ}
        disk=$(disk 0)
        fact sha256 $(agent read $disk | sha256sum | cut -d ' ' -f 1)
        echo step=reading
        until failed_reads >/dev/null; do
            agent read $disk block=4k count=50 >/dev/null || true
        done
        echo step=failing
        sleep 100000"
    ));
    guest.wait_for("step=reading");
    let storage = storage_of(&control.ask(&["counters"])).clone();
    let relid = storage["relid"].to_string();
    let rings = control.ask(&["ring", &relid]);
    assert_eq!(rings["done"]["device"], "storage", "{rings}");
    assert_eq!(rings["done"]["incoming"]["broken"], Value::Null, "{rings}");
    assert!(control.refused(&["ring", "9999"]).contains("no open channel"));
    while storage_of(&control.ask(&["counters"]))["latency"]["requests"] == 0 {
        guest.has_time();
    }
    let added = control.ask(&["fault", "add", failing.to_str().unwrap()]);
    assert_eq!(added["done"]["rules"][0]["name"], "failed read", "{added}");
    guest.wait_for("step=failing");
    let rules = control.ask(&["fault", "list"])["done"]["rules"].clone();
    assert_eq!(rules.as_array().unwrap().len(), 3, "{rules}");
    assert_ne!(rules[2]["fired"], 0, "{rules}");
    control.ask(&["fault", "clear"]);
    assert_eq!(control.ask(&["fault", "list"])["done"]["rules"], Value::Array(Vec::new()));
    guest.kill();
    let guest = guest.end();
    assert_eq!(guest.fact("sha256"), disk.sha256());
    assert!(guest.busway.contains("fault: late: interrupt-late at interrupt"), "{}", guest.busway);
    Ok(())
}

/// What the guest does not look at leaves the ring non-empty, so by the ring's rules no later answer interrupts.
fn a_lost_interrupt_ends_a_channel_of_one_request_at_a_time(case: &Case) -> Outcome {
    let disk = case.empty_disk(4);
    let rules = "[[rule]]\nname = \"lost\"\ndevice = \"storage\"\nnth = 300\ndo = \"no-interrupt\"";
    let rules = script(case, rules);
    let mut guest = case.guest().disk(&disk).flag("--faults").flag(rules).start(
        "disk=$(disk 0)
        agent read $disk block=4k count=800 >/dev/null &
        before=none
        while kill -0 $!; do
            now=$(awk '{ print $1 }' /sys/block/${disk#/dev/}/stat)
            [ $now != $before ] || { fact stuck yes; sleep 100000; }
            before=$now
            sleep 3
        done
        fact stuck no",
    );
    guest.wait_for("stuck=");
    guest.kill();
    let report = guest.end();
    assert_eq!(report.fact("stuck"), "yes");
    assert!(report.busway.contains("lost: no-interrupt at interrupt 300"), "{}", report.busway);
    Ok(())
}

/// hv_netvsc lets go of it, and finds it again. When it goes there is but one ARP request a second that
/// nobody answers: the driver waits for ever for what a card that is gone has not answered
/// (`rndis_filter_halt_device`).
fn a_card_vanishes_under_traffic_and_returns(case: &Case) -> Outcome {
    let tap = Tap::new(false).map_err(Skip)?;
    // The guest's first frames are one ARP request and one ping.
    let rules = include_str!("../../docs/faults/vanishing-nic.toml")
        .replace("after = \"20s\"", "after = \"0s\"")
        .replace("nth = 1", "nth = 4");
    let rules = script(case, &rules);
    let guest = case.guest().cpus(2).flag("--net").flag(format!("tap={}", tap.name()));
    let guest = guest.flag("--faults").flag(rules).run(&network::script(
        &tap,
        "no_ipv6() {
            [ ! -e /proc/sys/net/ipv6/conf/$card ] || echo 1 >/proc/sys/net/ipv6/conf/$card/disable_ipv6
        }
        no_ipv6
        index=/sys/class/net/$card/ifindex
        before=$(cat $index)
        up GUEST
        ping -c 1 HOST
        fact before yes
        until now=$(cat $index 2>/dev/null) && [ $now != $before ]; do
            ping -c 1 -W 1 10.77.NUMBER.9 >/dev/null 2>&1 &
            usleep 300000
        done
        fact card returned
        no_ipv6
        up GUEST
        ping -c 1 HOST
        fact after yes
        fact beats $(bound_to hv_utils | wc -l)
        dmesg | grep -E 'BUG:|WARNING: CPU|Call Trace|blocked for more|Oops' && fact complaint yes || true",
    ));
    let facts = ["before", "card", "after"].map(|name| guest.fact(name));
    assert_eq!(facts, ["yes", "returned", "yes"]);
    assert!(guest.number("beats") > 0, "the other devices are there");
    assert!(guest.all("complaint").is_empty());
    assert_eq!(guest.busway.matches("vanishing card: rescind-for").count(), 1, "{}", guest.busway);
    Ok(())
}

/// The bus's messages, of which one is changed and one is late.
fn an_older_version_is_agreed_on_and_a_late_disk_is_found(case: &Case) -> Outcome {
    let rules = [
        include_str!("../../docs/faults/older-version.toml"),
        include_str!("../../docs/faults/late-offer.toml"),
    ];
    let rules = script(case, &rules.concat());
    let disk = case.disk(4);
    let guest = case.guest().disk(&disk).flag("--faults").flag(rules).run(
        "dmesg | sed -n 's/.*Vmbus version:/vmbus=/p'
        fact sha256 $(sum $(disk 0))",
    );
    assert_ne!(guest.fact("vmbus"), case.kernel.newest_vmbus());
    assert_eq!(guest.fact("sha256"), disk.sha256());
    for fault in ["older version: set at VERSION_RESPONSE 1", "late offer: delay at OFFER_CHANNEL"]
    {
        assert!(guest.busway.contains(fault), "{}", guest.busway);
    }
    Ok(())
}

/// Scripts of docs/faults, what each keeps from working, and how far that comes by the host's account.
const SILENT: [(&str, &str, &str); 13] = [
    (include_str!("../../docs/faults/silent-host.toml"), "storage", "channel opened"),
    (include_str!("../../docs/faults/silent-version.toml"), "vmbus", "SynIC enabled"),
    (include_str!("../../docs/faults/silent-offers.toml"), "vmbus", "connected"),
    (include_str!("../../docs/faults/silent-gpadl.toml"), "storage", "offered"),
    (include_str!("../../docs/faults/silent-open.toml"), "storage", "channel opened"),
    (include_str!("../../docs/faults/silent-storage-1.toml"), "storage", "channel opened"),
    (include_str!("../../docs/faults/silent-storage-2.toml"), "storage", "version agreed"),
    (include_str!("../../docs/faults/silent-storage-3.toml"), "storage", "version agreed"),
    (include_str!("../../docs/faults/silent-storage-4.toml"), "storage", "handshake complete"),
    (include_str!("../../docs/faults/silent-network-1.toml"), "network", "version agreed"),
    (include_str!("../../docs/faults/silent-network-2.toml"), "network", "version agreed"),
    (include_str!("../../docs/faults/silent-network-3.toml"), "network", "version agreed"),
    (include_str!("../../docs/faults/silent-component.toml"), "heartbeat", "channel opened"),
];

/// `busway smoke` says how far the drivers came, and what was done to them. BUSWAY_SILENT=13 has all scripts
/// played.
fn a_host_that_is_silent_in_a_handshake_is_named(case: &Case) -> Outcome {
    let count = number("BUSWAY_SILENT").unwrap_or(1) as usize;
    for (text, subject, step) in SILENT.iter().take(count) {
        let report = smoke_with(case, &script(case, text));
        let lines = report["expectations"].as_array().unwrap();
        let line = lines.iter().find(|line| line["name"] == *subject).unwrap();
        assert_eq!(
            (&line["passed"], &line["last_step"]),
            (&false.into(), &(*step).into()),
            "{text}"
        );
        let faults = &report["faults"];
        assert_eq!(faults["seed"], 77);
        assert!(faults["rules"][0]["name"].as_str().unwrap().starts_with("silent "), "{faults}");
        assert!(faults["rules"][0]["fired"].as_u64().unwrap() > 0, "{faults}");
        assert_ne!(faults["events"][0]["at"], "", "{faults}");
    }
    Ok(())
}

/// The report on a guest that does not come through because of these rules.
fn smoke_with(case: &Case, rules: &Path) -> Value {
    let (initrd, json) = (case.guest().initrd("sleep 100000"), case.path("json"));
    let mut command = Command::new("busway");
    command.arg("smoke").arg("--kernel").arg(case.kernel.vmlinuz()).arg("--initrd").arg(initrd);
    command.args(["--cmdline", "console=ttyS0 quiet panic=-1", "--net", "loopback"]);
    command.args(["--timeout", "60", "--fault-seed", "77"]).arg("--faults").arg(rules);
    command.arg("--report").arg(format!("json={}", json.display()));
    command.arg("--hyperv").arg(case.kernel.engine).arg("--disk").arg(case.disk(1).path());
    case.transcript().line(&format!("--- {command:?}"));
    let output = command.output().unwrap();
    for text in [&output.stdout, &output.stderr] {
        case.transcript().line(&String::from_utf8_lossy(text));
    }
    assert_eq!(output.status.code(), Some(1));
    serde_json::from_slice(&fs::read(json).unwrap()).unwrap()
}
