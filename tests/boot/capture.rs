// SPDX-License-Identifier: MIT OR Apache-2.0

//! Captures of stock guests, and what is understood of them.

use std::fs;
use std::path::Path;

use busway_harness::Trace;
use serde_json::Value;

use crate::case::{Case, Outcome, tests};

tests![all_of_a_boot_is_recorded_and_understood, a_capture_that_was_cut_is_named];

/// What `busway decode` makes of `file`; what it does not know is shown.
pub(crate) fn decode(case: &Case, file: &Path) -> Trace {
    let trace = Trace::read(file);
    case.transcript().line(&trace.errors);
    for record in trace.records.iter().filter(|record| record["known"] != true) {
        case.transcript().line(&record.to_string());
    }
    trace
}

fn all_of_a_boot_is_recorded_and_understood(case: &Case) -> Outcome {
    let (disk, file) = (case.disk(4), case.path("pcapng"));
    let guest = case.guest().cpus(2).disk(&disk).flag("--net").flag("loopback").flag("--keyboard");
    let guest = guest.flag("--mouse").flag("--capture").flag(format!("{},pages", file.display()));
    guest.run("dd if=$(disk 0) of=/dev/null bs=64k; ip link set eth0 up; usleep 300000");
    let Trace { status, records, .. } = decode(case, &file);
    assert_eq!(status, Some(0), "all is understood, and nothing is lost");
    let has = |kind: &str, device: &str, text: &str| {
        records.iter().find(|record| {
            let said = record["text"].as_str().unwrap();
            record["kind"] == kind
                && (device.is_empty() || record["device"] == device)
                && said.contains(text)
        })
    };
    let newest = format!("INITIATE_CONTACT version={}", case.kernel.newest_vmbus());
    assert!(has("message", "", &newest).is_some());
    let is_read = |record: &&Value| {
        let request = record["request"].as_str();
        request.is_some_and(|request| request.starts_with("READ_10 lba="))
    };
    let read = records.iter().find(is_read).unwrap();
    assert!(read["text"].as_str().unwrap().contains("srb=SUCCESS scsi=GOOD moved="), "{read}");
    assert!(read["latency_ns"].as_u64().is_some_and(|latency| latency != 0), "{read}");
    // The whole disk was read, and all of it was recorded.
    let data = records.iter().filter(|record| record["kind"] == "outside");
    let data = data.filter(|record| record["device"] == "storage");
    let lens = data.filter_map(|record| {
        let (_, text) = record["text"].as_str()?.split_once(" | ")?;
        text.split_once(" B of data")?.0.parse::<u64>().ok()
    });
    assert!(lens.sum::<u64>() >= 4 << 20);
    assert!(has("outside", "network", "QUERY_COMPLETE").unwrap()["answers"].is_u64());
    for (device, text) in [
        ("network", "SEND_RECEIVE_BUFFER_COMPLETE SUCCESS"),
        ("heartbeat", "NEGOTIATE"),
        ("timesync", "TIME_SYNC"),
        ("keyboard", "PROTOCOL_RESPONSE accepted"),
        ("mouse", "INITIAL_DEVICE_INFO 045e:0621"),
    ] {
        if device == "mouse" && !case.kernel.has_hid() {
            continue;
        }
        assert!(has("packet", device, text).is_some(), "{device}: {text}");
    }
    assert!(has("event", "", "interrupt").is_some());
    assert!(has("hypercall", "", "POST_MESSAGE").is_some());
    assert!(has("published", "storage", "interrupt, for packets").is_some());
    assert_eq!(has("msr", "", "SCONTROL becomes 0x1").is_some(), case.kernel.engine == "userspace");
    Ok(())
}

fn a_capture_that_was_cut_is_named(case: &Case) -> Outcome {
    let file = case.path("pcapng");
    case.guest().flag("--capture").flag(file.to_str().unwrap()).run("true");
    let bytes = fs::read(&file).unwrap();
    let torn = case.path("torn");
    fs::write(&torn, &bytes[..bytes.len() / 2 + 1]).unwrap();
    let Trace { status, records, errors } = decode(case, &torn);
    assert_eq!(status, Some(2));
    assert!(records.len() > 10);
    assert!(errors.contains("torn: "), "{errors}");
    Ok(())
}
