// SPDX-License-Identifier: MIT OR Apache-2.0

//! One guest under one script: a `busway run` of its own, watched from outside.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::health;
use crate::control::client::{Client, Ending};
use crate::control::protocol::{Reply, Request};
use crate::spec::{FaultsSpec, OnPanic, OnReset, SerialSpec, VmSpec};

/// How often a guest is looked at.
const TICK: Duration = Duration::from_millis(250);

/// How often the device's host is made to speak.
const PROD: Duration = Duration::from_secs(1);

/// Beats in a row that a guest which lives does not miss: one is due every two seconds.
const BEATS: u64 = 5;

/// A boot cannot be made, or not be watched.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Files for it cannot be written.
    #[error("a directory for temporary files cannot be used")]
    Files(#[source] io::Error),
    /// The program cannot be started again.
    #[error("busway cannot start itself")]
    Start(#[source] io::Error),
    /// It ended with an error of its own.
    #[error("busway could not start the machine: {0}")]
    Refused(String),
}

/// How guests are booted.
pub(super) struct Boots {
    /// The program that runs a machine: this one.
    pub(super) program: PathBuf,
    /// What it is given before `run`: nothing, but in tests.
    pub(super) words: Vec<PathBuf>,
    pub(super) spec: VmSpec,
    /// How long a guest may take to its first beat.
    pub(super) patience: Duration,
    /// How long it is watched from then on.
    pub(super) watched: Duration,
    /// A guest without a heartbeat is ill.
    pub(super) by_heartbeat: bool,
    pub(super) directory: PathBuf,
    /// Signs of illness that it shows by itself.
    pub(super) known: Vec<String>,
    /// What makes the device's host speak.
    pub(super) prods: Vec<Request>,
}

/// How a boot went.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What is wrong with the guest, if anything is.
    pub(super) sign: Option<String>,
    /// Names of the rules that fired.
    pub(super) fired: HashSet<String>,
    /// What it said on its serial port.
    pub(super) console: String,
}

impl Boots {
    /// Boots a guest under `script`.
    pub(super) fn boot(&self, script: &str) -> Result<Outcome, BootError> {
        let path = |name: &str| self.directory.join(name);
        let (console, log) = (path("console"), path("log"));
        let spec = self.spec_under(script)?;
        let text = serde_json::to_string(&spec).map_err(|error| BootError::Files(error.into()))?;
        fs::write(path("spec"), text).map_err(BootError::Files)?;
        let mut command = Command::new(&self.program);
        command.args(&self.words).arg("run").arg("--spec").arg(path("spec"));
        let log_file = File::create(&log).map_err(BootError::Files)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        let mut child = Killed(command.spawn().map_err(BootError::Start)?);
        let sign = self.watch(&mut child.0, &console)?;
        stop(&mut child.0);
        let text =
            |path: &Path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
        let (console, log) = (text(&console).unwrap_or_default(), text(&log).unwrap_or_default());
        if child.0.try_wait().ok().flatten().and_then(|status| status.code()) == Some(2) {
            return Err(BootError::Refused(log.lines().last().unwrap_or_default().to_owned()));
        }
        let sign = sign.or_else(|| health::sign(&console, &self.known));
        Ok(Outcome { sign, fired: fired(&log), console })
    }

    fn spec_under(&self, script: &str) -> Result<VmSpec, BootError> {
        let path = |name: &str| self.directory.join(name);
        let mut spec = self.spec.clone();
        // What the last guest said is not this one's.
        for name in ["control", "console", "script"] {
            let _ = fs::remove_file(path(name));
        }
        spec.control = Some(path("control"));
        spec.serial = SerialSpec::File(path("console"));
        (spec.on_panic, spec.on_reset, spec.grace) = (OnPanic::Exit, OnReset::Exit, 0);
        spec.timeout = Some((self.patience + self.watched).as_secs() + 30);
        if !script.is_empty() {
            fs::write(path("script"), script).map_err(BootError::Files)?;
            spec.faults = Some(FaultsSpec { file: path("script"), seed: None });
        }
        Ok(spec)
    }

    /// Looks at the guest until it is ill, has switched itself off, or has been well for long enough.
    fn watch(&self, child: &mut Child, console: &Path) -> Result<Option<String>, BootError> {
        let started = Instant::now();
        let mut client = None;
        let mut well_since = None;
        loop {
            if let Some(status) = child.try_wait().map_err(BootError::Start)? {
                // 2 is an error of busway's; who called sees it by itself.
                return Ok(
                    (status.code() == Some(1)).then(|| "the guest panicked or crashed".to_owned())
                );
            }
            let said = fs::read(console).unwrap_or_default();
            if let Some(sign) = health::sign(&String::from_utf8_lossy(&said), &self.known) {
                // What follows the first line is worth having.
                thread::sleep(TICK * 4);
                let said = fs::read(console).unwrap_or_default();
                let more = health::sign(&String::from_utf8_lossy(&said), &self.known);
                return Ok(more.or(Some(sign)));
            }
            if client.is_none() {
                let socket = self.spec_socket();
                client = Client::connect(&socket, true).ok();
            }
            let beats = client.as_mut().and_then(beats);
            if let Some((answered, missed)) = beats {
                if answered > 0 && well_since.is_none() {
                    well_since = Some(Instant::now());
                    self.prod();
                }
                if self.by_heartbeat && missed >= BEATS {
                    return Ok(Some("the guest's heart has stopped".to_owned()));
                }
            }
            let none = well_since.is_none() && started.elapsed() > self.patience;
            if none && self.by_heartbeat {
                return Ok(Some("the guest's heart never beat".to_owned()));
            }
            let well = well_since.is_some_and(|since: Instant| since.elapsed() > self.watched);
            if well || none {
                return Ok(None);
            }
            thread::sleep(TICK);
        }
    }

    /// Makes the device's host speak from now on, until the machine is gone. What fails shall fail.
    fn prod(&self) {
        let (socket, prods) = (self.spec_socket(), self.prods.clone());
        // It has a conversation of its own, as the guest may never answer.
        thread::spawn(move || -> Option<()> {
            let mut client = Client::connect(&socket, true).ok()?;
            for prod in prods.iter().cycle() {
                client.fetch(prod).ok()?;
                thread::sleep(PROD);
            }
            None
        });
    }

    fn spec_socket(&self) -> PathBuf {
        self.directory.join("control")
    }
}

/// Beats that the guest has answered, and that it has missed since.
fn beats(client: &mut Client) -> Option<(u64, u64)> {
    let ending = client.fetch(&Request::Status).ok()?;
    let Ending::Done(Reply::Status(status)) = ending else {
        return None;
    };
    status.heartbeat.map(|beats| (beats.answered, beats.missed))
}

/// The rules that fired, by the last line that busway logs of its script: `…: seed 1; case-3 1 times, …`.
fn fired(log: &str) -> HashSet<String> {
    let summary = log.lines().rev().find_map(|line| line.split_once(": seed ")?.1.split_once("; "));
    let rules = summary.map_or("", |(_, rules)| rules).split(", ");
    let fired = rules.filter_map(|rule| {
        let (name, times) = rule.strip_suffix(" times")?.rsplit_once(' ')?;
        (times != "0").then(|| name.to_owned())
    });
    fired.collect()
}

/// Ends busway so that it sums up what it has done.
fn stop(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    if matches!(child.try_wait(), Ok(None)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let started = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && started.elapsed() < Duration::from_secs(20) {
        thread::sleep(TICK / 10);
    }
}

/// A child that does not outlive its boot.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fired_stands_in_the_last_line() {
        let log = "busway: --faults script: 3 rules; --fault-seed 1 repeats this run\n\
                   busway: fault: case-1: drop at host packet 5 of storage#1\n\
                   busway: --faults script: seed 1; case-1 1 times, case-2 0 times, case-30 2 times\n";
        let all = fired(log);
        assert!(all.contains("case-1") && all.contains("case-30"), "{all:?}");
        assert_eq!((all.len(), fired("").len()), (2, 0));
    }
}
