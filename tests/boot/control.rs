// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway ctl` on a machine of a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::case::{Case, Transcript};

/// The control socket of a machine.
pub(crate) struct Control {
    path: PathBuf,
    transcript: Transcript,
}

impl Control {
    /// A socket that no machine listens on yet: give its path to `--control`.
    pub(crate) fn new(case: &Case) -> Self {
        Self { path: case.path("control"), transcript: case.transcript().clone() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Has a request done, and returns its last line.
    pub(crate) fn ask(&self, words: &[&str]) -> Value {
        let (status, line) = self.run(words);
        assert_eq!(status, Some(0), "{words:?}: {line}");
        line
    }

    /// Makes a request that is refused, and returns the reason.
    pub(crate) fn refused(&self, words: &[&str]) -> String {
        let (status, line) = self.run(words);
        assert_eq!(status, Some(1), "{words:?}: {line}");
        line["failed"].as_str().unwrap().to_owned()
    }

    /// Waits until the guest has taken up a service, by its name in `--integration`.
    pub(crate) fn wait_until_ready(&self, service: &str) {
        loop {
            let status = self.ask(&["status"]);
            let services = status["done"]["services"].as_array().unwrap();
            if services.iter().any(|entry| entry["name"] == service && entry["ready"] == true) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    pub(crate) fn run(&self, words: &[&str]) -> (Option<i32>, Value) {
        let mut command = Command::new("busway");
        command.arg("ctl").arg("--json").arg(&self.path).args(words);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        self.transcript.line(&format!("--- ctl {words:?}: {text}{errors}"));
        let line = text.lines().last().unwrap_or("null");
        (output.status.code(), serde_json::from_str(line).unwrap())
    }
}
