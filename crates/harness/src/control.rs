// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway ctl` on a machine of a test.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::machine::{PATIENCE, program};
use crate::running::Listener;

/// How often it is asked whether something has come about.
const TICK: Duration = Duration::from_millis(200);

/// The control socket of a machine.
pub struct Control {
    /// Gone with it.
    directory: TempDir,
    program: OsString,
    listener: Listener,
    deadline: Instant,
}

impl Control {
    /// A socket that no machine listens on yet; see [`Machine::control`](crate::Machine::control).
    ///
    /// # Panics
    /// No directory can be made for it.
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            program: program(),
            listener: Arc::new(|_| {}),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// When what is waited for must have come about. Two minutes from now unless told otherwise.
    #[must_use]
    pub const fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = deadline;
        self
    }

    /// Who hears what is asked, and the answers.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listener = listener;
        self
    }

    /// For `--control`.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// Has a request done, and returns its last line; the words are those of `busway ctl`, behind the path.
    ///
    /// # Panics
    /// It is refused.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> Value {
        let (status, line) = self.run(words);
        assert_eq!(status, Some(0), "{words:?}: {line}");
        line
    }

    /// Has the host make mistakes from now on: the rules of a script, as docs/faults.md has them.
    ///
    /// # Panics
    /// It is no script, or the file for it cannot be written.
    #[track_caller]
    pub fn fault(&self, script: &str) {
        let file = self.directory.path().join("faults.toml");
        fs::write(&file, script).unwrap();
        self.ask(&["fault", "add", file.to_str().unwrap()]);
    }

    /// Makes a request that is refused, and returns the reason.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) -> String {
        let (status, line) = self.run(words);
        assert_eq!(status, Some(1), "{words:?}: {line}");
        line["failed"].as_str().unwrap().to_owned()
    }

    /// Waits until the guest has taken up a service, by its name in `--integration`.
    ///
    /// # Panics
    /// It has not by the deadline.
    #[track_caller]
    pub fn wait_until_ready(&self, service: &str) {
        self.wait_until(&["status"], |status| {
            let services = status["done"]["services"].as_array().unwrap();
            services.iter().any(|entry| entry["name"] == service && entry["ready"] == true)
        });
    }

    /// Makes a request again and again until its last line is as wanted.
    ///
    /// # Panics
    /// It is refused, or not answered so by the deadline.
    #[track_caller]
    pub fn wait_until(&self, words: &[&str], is_wanted: impl Fn(&Value) -> bool) {
        loop {
            let line = self.ask(words);
            if is_wanted(&line) {
                return;
            }
            assert!(Instant::now() < self.deadline, "{words:?} comes to nothing else: {line}");
            std::thread::sleep(TICK);
        }
    }

    /// Makes a request: busway ctl's exit status, and its last line.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> (Option<i32>, Value) {
        let path: &Path = &self.path();
        let mut command = Command::new(&self.program);
        command.arg("ctl").arg("--json").arg(path).args(words);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        (self.listener)(&format!("--- ctl {words:?}: {text}{errors}"));
        let line = text.lines().last().unwrap_or("null");
        (output.status.code(), serde_json::from_str(line).unwrap())
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}
