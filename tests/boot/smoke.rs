// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway smoke` on guests that are well, and on guests that lack a driver.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::Value;

use crate::case::{Case, Outcome, tests};

tests![
    a_stock_guest_passes_and_is_switched_off,
    a_guest_without_its_disk_driver_fails_by_name,
    a_guest_without_a_bus_driver_fails_by_name,
];

/// What a smoke test said.
struct Said {
    status: Option<i32>,
    stdout: String,
    report: Value,
    junit: String,
}

impl Said {
    /// What the report says of an expectation.
    fn expectation(&self, name: &str) -> &Value {
        let all = self.report["expectations"].as_array().unwrap();
        all.iter().find(|expectation| expectation["name"] == name).unwrap()
    }
}

/// Tests a guest whose kernel has these words on its command line, and which runs `script` when its
/// drivers are loaded.
fn smoke(case: &Case, words: &str, flags: &[&str], script: &str) -> Said {
    let initrd = case.guest().initrd(script);
    let disk = case.disk(4);
    let (json, junit) = (case.path("json"), case.path("junit"));
    let mut command = Command::new("busway");
    command.arg("smoke").arg("--kernel").arg(case.kernel.vmlinuz()).arg("--initrd").arg(initrd);
    command.arg("--cmdline").arg(format!("console=ttyS0 quiet panic=-1 {words}"));
    command.arg("--disk").arg(disk.path()).arg("--timeout").arg("300");
    command.arg("--report").arg(format!("json={}", json.display()));
    command.arg("--report").arg(format!("junit={}", junit.display()));
    command.arg("--serial-log").arg(case.path("serial"));
    command.args(flags).arg("--hyperv").arg(case.kernel.engine);
    case.transcript().line(&format!("--- {command:?}"));
    let output = command.output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    case.transcript().line(&format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)));
    let report = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let junit = fs::read_to_string(junit).unwrap();
    Said { status: output.status.code(), stdout, report, junit }
}

/// A class that no guest knows.
const RAW: &str = "11223344-5566-4000-8000-99aabbccddee";

/// It would run for ever, and does not have to. The balloon's driver is told that the raw channel is for it, and
/// sends what it begins with.
fn a_stock_guest_passes_and_is_switched_off(case: &Case) -> Outcome {
    let sockets = case.path("vsock");
    fs::create_dir(&sockets).unwrap();
    let _listener = UnixListener::bind(sockets.join("vsock_1024")).unwrap();
    let devices = ["storage", "network", "heartbeat", "timesync", "shutdown", "vsock", "raw"];
    let expected = devices.join(",");
    let flags = ["--net", "loopback", "--raw", RAW, "--vsock", sockets.to_str().unwrap()];
    let script = format!(
        "ip link set eth0 up
        agent call 1024 &
        echo {RAW} >/sys/bus/vmbus/drivers/hv_balloon/new_id
        sleep 100000"
    );
    let said = smoke(case, "", &[&flags[..], &["--expect", &expected]].concat(), &script);
    assert_eq!(said.status, Some(0));
    for name in ["hypervisor", "vmbus"].into_iter().chain(devices) {
        assert_eq!(said.expectation(name)["passed"], true, "{name}");
        assert!(said.stdout.contains(&format!("✓ {name}")), "{name}");
    }
    let version = |name| said.expectation(name)["version"].as_str().unwrap();
    let (major, minor) = case.kernel.version;
    assert!(version("hypervisor").starts_with(&format!("Linux {major}.{minor}.")));
    assert_eq!(version("vmbus"), format!("version {}", case.kernel.newest_vmbus()));
    assert_eq!(version("storage"), "version 6.2");
    assert!(said.stdout.ends_with("all was seen, and the machine was switched off\n"));
    assert!(said.junit.contains("failures=\"0\" errors=\"0\""), "{}", said.junit);
    Ok(())
}

/// The bus and all else are there; what takes a program in the guest is not expected of it.
fn a_guest_without_its_disk_driver_fails_by_name(case: &Case) -> Outcome {
    let sockets = case.path("vsock");
    let flags = ["--raw", RAW, "--vsock", sockets.to_str().unwrap()];
    let said = smoke(case, "module_blacklist=hv_storvsc", &flags, "usleep 500000");
    assert_eq!(said.status, Some(1));
    let expected =
        "expected: hypervisor, vmbus, storage, shutdown, heartbeat, timesync, within 300 s";
    assert!(said.stdout.contains(expected), "{}", said.stdout);
    assert_eq!(said.expectation("vmbus")["passed"], true);
    let storage = said.expectation("storage");
    assert_eq!(storage["passed"], false);
    assert_eq!(storage["last_step"], "offered");
    assert_eq!(storage["next"], "OPEN_CHANNEL");
    let explanation = storage["explanation"].as_str().unwrap();
    assert!(explanation.contains("hv_storvsc (CONFIG_HYPERV_STORAGE)"), "{explanation}");
    assert!(said.stdout.contains("✗ storage\n    last step: offered"), "{}", said.stdout);
    assert!(said.junit.contains("name=\"storage\""), "{}", said.junit);
    assert!(said.junit.contains("hv_storvsc (CONFIG_HYPERV_STORAGE)"), "{}", said.junit);
    Ok(())
}

/// As a kernel whose configuration lost it, whether that would be a module or built in.
fn a_guest_without_a_bus_driver_fails_by_name(case: &Case) -> Outcome {
    let said =
        smoke(case, "module_blacklist=hv_vmbus initcall_blacklist=hv_acpi_init", &[], "true");
    assert_eq!(said.status, Some(1));
    assert_eq!(said.expectation("hypervisor")["passed"], true);
    let bus = said.expectation("vmbus");
    assert_eq!((&bus["passed"], &bus["last_step"]), (&Value::Bool(false), &Value::Null));
    let explanation = bus["explanation"].as_str().unwrap();
    assert!(explanation.contains("never wrote SynIC's SCONTROL: no VMBus driver"), "{explanation}");
    let storage = said.expectation("storage")["explanation"].as_str().unwrap();
    assert!(storage.contains("vmbus"), "{storage}");
    Ok(())
}
