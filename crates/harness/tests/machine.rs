// SPDX-License-Identifier: MIT OR Apache-2.0

//! The harness against a program that behaves like busway with a shell on its serial port.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use busway_harness::{Control, Machine};
use tempfile::TempDir;

/// A program of this text. Another process writes it: what is open for writing here goes to every program that
/// another test starts at that moment, and is busy until that one runs.
fn program(directory: &TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("busway");
    let mut writer = Command::new("sh");
    writer.args(["-c", "printf '#!/bin/sh\n%s\n' \"$1\" >\"$0\" && chmod 755 \"$0\""]);
    assert!(writer.arg(&path).arg(text).status().unwrap().success());
    path
}

#[test]
fn a_machine_is_started_as_it_was_described() {
    let directory = tempfile::tempdir().unwrap();
    let program = program(&directory, "for word; do echo \"$word\"; done; echo oh no >&2; exit 1");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&heard);
    let control = Control::new();
    let machine = Machine::new("K").program(program).initrd("I").word("quiet").control(&control);
    let machine = machine.flag("--disk").flag("D");
    let machine =
        machine.listener(Arc::new(move |line| listener.lock().unwrap().push(line.to_owned())));
    let report = machine.start().end();
    let path = control.path();
    let (front, back) = report.lines.split_at(6);
    assert_eq!(
        front,
        ["run", "--kernel", "K", "--cmdline", "console=ttyS0 panic=-1 quiet", "--timeout"]
    );
    let wanted = ["--initrd", "I", "--control", path.to_str().unwrap(), "--disk", "D"];
    assert_eq!(back[1..], wanted);
    assert_eq!((report.status, &*report.busway), (1, "oh no\n"));
    let heard = heard.lock().unwrap();
    assert!(heard.contains(&"  run".to_owned()) && heard.contains(&"! oh no".to_owned()));
    assert_eq!(heard.last().unwrap(), "--- busway ended with status 1");
}

/// What is typed is shown, as a terminal does; and a command's last line may have no end.
#[test]
fn commands_are_told_from_their_echo() {
    let directory = tempfile::tempdir().unwrap();
    let shell = "echo login: ok; while read -r line; do echo \"# $line\"; eval \"$line\"; done";
    let mut guest = Machine::new("K").program(program(&directory, shell)).start();
    assert_eq!(guest.wait_for("login: "), "ok");
    let output = guest.run("echo one; printf two");
    assert_eq!((&*output.text, output.status), ("one\ntwo", 0));
    assert_eq!(guest.run("sh -c 'exit 7'").status, 7);
    assert_eq!(guest.run("echo \"it's\"").text, "it's\n");
    guest.terminate();
    assert_eq!(guest.end().status, 128 + 15);
}

#[test]
#[should_panic(
    expected = "begins with \"ready\"; the last that it said:\n  hello\nand busway:\n  --disk: no"
)]
fn a_guest_that_ends_too_soon_is_quoted() {
    let directory = tempfile::tempdir().unwrap();
    let text = "echo hello; echo --disk: no such file >&2";
    Machine::new("K").program(program(&directory, text)).start().wait_for("ready");
}

#[test]
#[should_panic(expected = "the machine's time is over")]
fn a_guest_that_says_nothing_is_not_waited_for_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::new("K").program(program(&directory, "exec sleep 100"));
    machine.deadline(Instant::now() + Duration::from_millis(10)).start().wait_for("ready");
}

#[test]
#[should_panic(expected = "the guest has not said a line in its time")]
fn a_guest_that_hangs_at_its_start_is_known_before_its_time_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::new("K").program(program(&directory, "exec sleep 100"));
    machine.first_line(Duration::from_millis(10)).start().wait_for("ready");
}

#[test]
fn a_guest_that_has_said_a_line_may_be_silent_then() {
    let directory = tempfile::tempdir().unwrap();
    let text = "echo hello; sleep 3; echo ready";
    let machine = Machine::new("K").program(program(&directory, text));
    machine.first_line(Duration::from_secs(2)).start().wait_for("ready");
}
