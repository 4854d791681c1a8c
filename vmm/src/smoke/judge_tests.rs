// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs as a watcher sees them, and what is said of them.

use std::path::PathBuf;

use busway_wire::Version;

use super::*;
use crate::event_loop::End;
use crate::run::{RunError, Verdict};
use crate::smoke::junit;
use crate::smoke::report::Report;
use crate::smoke::watch::Findings;
use crate::spec::VmSpec;
use crate::strict::Summary;

const DISKS: Guid = Guid::from_text_order(1);

fn device(class: Guid, step: Step) -> Sight {
    Sight::Bus(Milestone::Device { class, instance: DISKS, step })
}

fn storage(step: Step) -> Sight {
    device(class::SCSI, step)
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A judge of a machine with a disk, a heartbeat, and KVP.
fn judge(expected: &str) -> Judge {
    let expected = match expected {
        "" => Expected::Offered,
        list => list.parse().unwrap(),
    };
    let mut judge = Judge::new(expected);
    for class in [class::SCSI, class::HEARTBEAT, class::KVP] {
        judge.saw(Duration::ZERO, &device(class, Step::Offered));
    }
    judge
}

fn names(judge: &Judge) -> Vec<&str> {
    judge.expectations().iter().map(|expectation| expectation.name.as_str()).collect()
}

/// Linux 6.1 up to the end of hv_vmbus's start.
fn connect(judge: &mut Judge) {
    judge.saw(millis(400), &Sight::Identified(0x8100_0006_01c0_0000));
    judge.saw(millis(401), &Sight::HypercallPage);
    judge.saw(millis(900), &Sight::Synic);
    judge.saw(millis(901), &Sight::Bus(Milestone::Connected(Version::V5_3)));
    judge.saw(millis(902), &Sight::Bus(Milestone::OffersRequested));
}

fn report_with(judge: &Judge, end: End, result: &Result<Verdict, RunError>) -> Report {
    let findings = Findings {
        faults: None,
        expectations: judge.expectations().to_vec(),
        time: millis(5000),
        end: Some(end),
        strict: None,
    };
    Report::new(&VmSpec::named(PathBuf::from("a<b")), &findings, result)
}

#[test]
fn a_guest_that_breaks_a_rule_fails_if_it_is_to() {
    let mut judge = judge("vmbus");
    judge.begin().unwrap();
    connect(&mut judge);
    for failed in [false, true] {
        let rules = Vec::new();
        let summary = Summary { failed, findings: 3, messages: 20, packets: 300, rules };
        let findings = Findings {
            expectations: judge.expectations().to_vec(),
            time: millis(5000),
            end: Some(End::Watched),
            faults: None,
            strict: Some(summary),
        };
        let spec = VmSpec::named(PathBuf::from("a"));
        let report = Report::new(&spec, &findings, &Ok(Verdict::Done));
        assert_eq!(report.passed, !failed);
        assert_eq!(report.status(Verdict::Done), u8::from(failed));
        let xml = junit::document(&report);
        assert_eq!(xml.contains("failures=\"1\""), failed, "{xml}");
        assert_eq!(xml.contains("<failure message=\"strict: "), failed, "{xml}");
        assert_eq!(serde_json::to_value(&report).unwrap()["strict"]["findings"], 3);
    }
}

fn report(judge: &Judge, end: End) -> Report {
    report_with(judge, end, &Ok(Verdict::Done))
}

#[test]
fn what_is_offered_is_expected_unless_it_takes_a_daemon() {
    let mut judge = judge("");
    judge.saw(Duration::ZERO, &device(Guid::from_text_order(2), Step::Offered));
    judge.begin().unwrap();
    assert_eq!(names(&judge), ["hypervisor", "vmbus", "storage", "heartbeat"]);
    judge.saw(millis(1), &device(class::NETWORK, Step::Offered));
    assert_eq!(names(&judge).len(), 4, "what comes later is not expected");
}

#[test]
fn what_is_named_is_expected_with_all_that_it_rests_on() {
    for (list, expected) in [
        ("hypervisor", &["hypervisor"][..]),
        ("vmbus", &["hypervisor", "vmbus"]),
        ("kvp,storage", &["hypervisor", "vmbus", "storage", "kvp"]),
    ] {
        let mut judge = judge(list);
        judge.begin().unwrap();
        assert_eq!(names(&judge), expected);
    }
    let error = judge("storage,network").begin().unwrap_err().to_string();
    assert!(error.contains("--expect network"), "{error}");
}

#[test]
fn equal_devices_are_told_apart() {
    let mut judge = Judge::new(Expected::Offered);
    for instance in [1, 2].map(Guid::from_text_order) {
        let (class, step) = (class::SCSI, Step::Offered);
        judge.saw(Duration::ZERO, &Sight::Bus(Milestone::Device { class, instance, step }));
    }
    judge.begin().unwrap();
    assert_eq!(names(&judge)[2..], ["storage", "storage 2"]);
    judge.saw(millis(1), &storage(Step::Worked));
    assert!(judge.expectations()[2].met().is_some() && judge.expectations()[3].met().is_none());
}

#[test]
fn a_good_guest_passes_and_each_expectation_is_met_once() {
    let mut judge = judge("storage");
    judge.begin().unwrap();
    connect(&mut judge);
    assert!(!judge.is_done());
    for step in [Step::Opened, Step::Version { major: 6, minor: 2 }, Step::Ready] {
        assert_eq!(judge.saw(millis(1000), &storage(step)), None);
    }
    let met = judge.saw(millis(1234), &storage(Step::Worked)).unwrap();
    assert_eq!((met.name.as_str(), met.version.as_deref()), ("storage", Some("version 6.2")));
    assert_eq!(judge.saw(millis(2000), &storage(Step::Worked)), None, "once");
    assert!(judge.is_done());
    assert_eq!(judge.expectations()[2].met(), Some(millis(1234)));

    let report = report(&judge, End::Watched);
    assert!(report.passed);
    assert_eq!(report.status(Verdict::Done), 0);
    assert_eq!(report.status(Verdict::Signalled(2)), 130);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["passed"], true);
    assert_eq!(json["expectations"][0]["version"], "Linux 6.1.192");
    assert_eq!(json["expectations"][1]["version"], "version 5.3");
    assert_eq!(json["expectations"][2]["seconds"], 1.234);
    assert_eq!(json["expectations"][2]["next"], serde_json::Value::Null);
}

/// What is said of `name`.
fn line(report: &Report, name: &str) -> String {
    report.expectations.iter().find(|line| line.name == name).unwrap().missing()
}

#[test]
fn without_a_bus_driver_that_is_what_is_named() {
    let mut judge = judge("");
    judge.begin().unwrap();
    judge.saw(millis(400), &Sight::Identified(0x8100_0006_0c00_0000));
    judge.saw(millis(401), &Sight::HypercallPage);
    let report = report(&judge, End::TimedOut);
    assert_eq!(report.status(Verdict::GuestFailed), 1);
    let bus = line(&report, "vmbus");
    for part in ["last step: none", "SCONTROL", "no VMBus driver", "CONFIG_HYPERV_VMBUS"] {
        assert!(bus.contains(part), "{part}: {bus}");
    }
    assert!(line(&report, "storage").contains("it comes after vmbus"));
}

#[test]
fn each_step_of_a_device_has_a_next_one_and_a_reason() {
    let steps = [
        (None, ["last step: offered", "OPEN_CHANNEL", "CONFIG_HYPERV_STORAGE"]),
        (Some(Step::Opened), ["last step: channel opened", "QUERY_PROTOCOL_VERSION", "hv_storvsc"]),
        (
            Some(Step::Version { major: 6, minor: 2 }),
            ["last step: version agreed", "END_INITIALIZATION", "handshake"],
        ),
        (Some(Step::Ready), ["last step: handshake complete", "READ", "sd_mod"]),
    ];
    for (step, parts) in steps {
        let mut judge = judge("storage");
        judge.begin().unwrap();
        connect(&mut judge);
        if let Some(step) = step {
            judge.saw(millis(1000), &storage(step));
        }
        let report = report(&judge, End::PoweredOff);
        assert!(!report.passed);
        let text = line(&report, "storage");
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn a_refused_version_and_a_fault_are_named() {
    let mut judge = judge("storage");
    judge.begin().unwrap();
    connect(&mut judge);
    judge.saw(millis(1000), &storage(Step::Opened));
    judge.saw(millis(1001), &storage(Step::Failed("a packet of type 5".to_owned())));
    judge.saw(millis(1002), &storage(Step::Failed("another".to_owned())));
    let text = line(&report(&judge, End::PoweredOff), "storage");
    assert!(text.contains("a packet of type 5") && !text.contains("another"), "{text}");

    let mut judge = self::judge("vmbus");
    judge.begin().unwrap();
    judge.saw(millis(400), &Sight::Identified(1));
    judge.saw(millis(401), &Sight::HypercallPage);
    judge.saw(millis(402), &Sight::Synic);
    let refused = Milestone::Refused(Version::new(7, 0), "the version is not spoken");
    judge.saw(millis(403), &Sight::Bus(refused));
    let text = line(&report(&judge, End::PoweredOff), "vmbus");
    for part in ["last step: connection asked for", "version 7.0: the version is not spoken"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    judge.saw(millis(404), &Sight::Bus(Milestone::Connected(Version::V5_3)));
    let text = line(&report(&judge, End::PoweredOff), "vmbus");
    assert!(text.contains("REQUEST_OFFERS") && !text.contains("7.0"), "{text}");
}

#[test]
fn kvp_waits_for_its_daemon() {
    let mut judge = judge("kvp");
    judge.begin().unwrap();
    connect(&mut judge);
    judge.saw(millis(1000), &device(class::KVP, Step::Opened));
    let text = line(&report(&judge, End::TimedOut), "kvp");
    assert!(text.contains("hv_kvp_daemon runs in the guest"), "{text}");
}

/// A judge of a machine with sockets and two raw channels, one of a class that has a name.
fn judge_of_channels(expected: Expected) -> Judge {
    let mut judge = Judge::new(expected);
    judge.saw(Duration::ZERO, &Sight::Sockets);
    for (class, instance) in RAWS {
        judge.saw(Duration::ZERO, &step_of(class, instance, Step::Offered));
    }
    judge.begin().unwrap();
    judge
}

fn step_of(class: Guid, instance: Guid, step: Step) -> Sight {
    Sight::Bus(Milestone::Device { class, instance, step })
}

/// Each with the instance that [`raw`] gives it.
const RAWS: [(Guid, Guid); 2] = [
    (class::BALLOON, Guid::from_text_order(0x7261_7700_0000_4000_8000_6275_7377_0000)),
    (
        Guid::from_text_order(0x11223344_5566_4000_8000_99aabbccddee),
        Guid::from_text_order(0x7261_7700_0000_4000_8000_6275_7377_0001),
    ),
];

#[test]
fn what_takes_a_program_in_the_guest_is_expected_when_it_is_named() {
    assert_eq!(names(&judge_of_channels(Expected::Offered)), ["hypervisor", "vmbus"]);
    let mut judge = judge_of_channels("vsock,raw".parse().unwrap());
    assert_eq!(names(&judge), ["hypervisor", "vmbus", "vsock", "raw", "raw 2"]);
    connect(&mut judge);
    let connection = (hvsock::service(7), DISKS);
    for (class, instance) in [connection, RAWS[0], RAWS[1]] {
        judge.saw(millis(1000), &step_of(class, instance, Step::Offered));
        let met = judge.saw(millis(1001), &step_of(class, instance, Step::Opened)).is_some();
        assert_eq!(met, class == connection.0, "a connection is of use once it is open");
        judge.saw(millis(1002), &step_of(class, instance, Step::Worked));
    }
    assert!(judge.is_done());
    let error = self::judge("vsock").begin().unwrap_err().to_string();
    assert!(error.contains("--expect vsock: the machine has no such device"), "{error}");
}

#[test]
fn what_a_program_in_the_guest_has_not_done_is_taught() {
    let mut judge = judge_of_channels("vsock,raw".parse().unwrap());
    connect(&mut judge);
    let said = |judge: &Judge, name| line(&report(judge, End::TimedOut), name);
    let check = |text: &str, parts: &[&str]| {
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
    };
    check(&said(&judge, "vsock"), &["step: none", "TL_CONNECT_REQUEST", "CONFIG_HYPERV_VSOCKETS"]);
    let new_id =
        "echo 11223344-5566-4000-8000-99aabbccddee > /sys/bus/vmbus/drivers/uio_hv_generic/new_id";
    check(&said(&judge, "raw 2"), &["step: offered", "CONFIG_UIO_HV_GENERIC", new_id]);
    let refused = Step::Failed("nobody took its connection".to_owned());
    judge.saw(millis(1000), &step_of(hvsock::service(7), DISKS, refused));
    check(&said(&judge, "vsock"), &["step: none", "nobody took its connection"]);
    judge.saw(millis(1000), &step_of(hvsock::service(7), DISKS, Step::Offered));
    check(&said(&judge, "vsock"), &["step: offered", "nobody listens on that port"]);
    judge.saw(millis(1000), &step_of(RAWS[1].0, RAWS[1].1, Step::Opened));
    check(&said(&judge, "raw 2"), &["step: channel opened", "its first packet", "monitor"]);
}

#[test]
fn a_guest_that_showed_all_and_crashed_has_failed() {
    let mut judge = judge("vmbus");
    judge.begin().unwrap();
    connect(&mut judge);
    assert!(judge.is_done());
    let report = report(&judge, End::Panicked);
    assert!(!report.passed);
    assert_eq!(report.status(Verdict::GuestFailed), 1);
    let xml = junit::document(&report);
    assert!(xml.contains("<failure message=\"the guest panicked\"/>"), "{xml}");
    assert!(xml.contains("tests=\"3\" failures=\"1\" errors=\"0\""), "{xml}");
}

#[test]
fn junit_has_a_case_for_each_expectation() {
    let mut judge = judge("storage");
    judge.begin().unwrap();
    connect(&mut judge);
    let xml = junit::document(&report(&judge, End::PoweredOff));
    assert!(xml.contains("name=\"busway smoke a&lt;b\" tests=\"4\" failures=\"1\""), "{xml}");
    assert!(xml.contains("name=\"vmbus\" time=\"0.902\""), "{xml}");
    assert!(xml.contains("name=\"storage\" time=\"5.000\">\n    <failure message=\"no driver"));

    let broken = Err(RunError::Broken("KVM is <gone>".to_owned()));
    let xml = junit::document(&report_with(&judge, End::PoweredOff, &broken));
    assert!(xml.contains("<error message=\"KVM is &lt;gone&gt;\"/>"), "{xml}");
    assert!(xml.contains("failures=\"0\" errors=\"1\" skipped=\"1\""), "{xml}");
}
