// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine in a test: described, started, listened to, ended.
//!
//! The test's script runs as soon as the drivers are loaded, under `sh -eu`; what it prints comes out of the
//! serial port. Lines `key=value` become facts of the [`Report`].

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use busway_guest_images::cpio::Archive;
use rustix::process::{Pid, Signal};

use crate::case::{Case, Skip, Transcript};
use crate::image::Image;
use crate::report::Report;

/// What each script begins with.
const PRELUDE: &str = include_str!("prelude.sh");

/// busway ends by itself so long after the test should have ended it.
const GRACE: u64 = 60;

/// After busway's end, what it wrote is read within this time.
const SILENCE: Duration = Duration::from_secs(1);

/// A machine that has not been started.
pub(crate) struct Guest<'a> {
    case: &'a Case,
    arguments: Vec<OsString>,
    words: Vec<String>,
    programs: Vec<PathBuf>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(case: &'a Case) -> Self {
        let words = ["console=ttyS0", "quiet", "panic=-1"].map(str::to_owned).to_vec();
        Self { case, arguments: Vec::new(), words, programs: Vec::new() }
    }

    /// Number of vCPUs.
    pub(crate) fn cpus(self, count: u32) -> Self {
        self.flag("--cpus").flag(count.to_string())
    }

    /// A disk; the first becomes LUN 0.
    pub(crate) fn disk(self, image: &Image) -> Self {
        self.flag("--disk").flag(image.path())
    }

    /// A disk with busway's words on it, such as `readonly`.
    pub(crate) fn disk_with(self, image: &Image, words: &str) -> Self {
        let mut value = image.path().as_os_str().to_owned();
        value.push(",");
        value.push(words);
        self.flag("--disk").flag(value)
    }

    /// A disk that is no image, such as a block device.
    pub(crate) fn disk_at(self, path: &Path) -> Self {
        self.flag("--disk").flag(path)
    }

    /// A word of busway's command line.
    pub(crate) fn flag(mut self, flag: impl Into<OsString>) -> Self {
        self.arguments.push(flag.into());
        self
    }

    /// A program of guest-images/manifest.toml to take along.
    pub(crate) fn program(mut self, name: &str) -> Result<Self, Skip> {
        let archive = self.case.kernel.program(name);
        let missing = || Skip(format!("{name} is not for this kernel"));
        self.programs.push(archive.ok_or_else(missing)?);
        Ok(self)
    }

    /// A word of the kernel's command line.
    pub(crate) fn word(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// Boots, runs the script and switches off; anything less is a failure.
    pub(crate) fn run(self, script: &str) -> Report {
        let report = self.start(script).end();
        assert_eq!(report.script(), Some(0), "exit status of the guest's script");
        assert_eq!(report.status, 0, "exit status of busway");
        report
    }

    /// Boots, with the script.
    pub(crate) fn start(self, script: &str) -> Running {
        let (case, mut command) = (self.case, self.command(script));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Running::new(child, stdout, case)
    }

    /// The command that boots it.
    pub(crate) fn command(self, script: &str) -> Command {
        let initrd = self.initrd(script);
        let case = self.case;
        let seconds = case.deadline.saturating_duration_since(Instant::now()).as_secs() + GRACE;
        let mut command = Command::new("busway");
        command.arg("run").arg("--hyperv").arg(case.kernel.engine);
        command.arg("--kernel").arg(case.kernel.vmlinuz());
        command.arg("--initrd").arg(initrd).arg("--cmdline").arg(self.words.join(" "));
        if !self.arguments.iter().any(|word| word == "--timeout") {
            command.arg("--timeout").arg(seconds.to_string());
        }
        command.args(&self.arguments).stderr(Stdio::piped());
        case.transcript().line(&format!("--- {command:?}"));
        command
    }

    /// The kernel's initramfs with the script and the agent behind it.
    pub(crate) fn initrd(&self, script: &str) -> PathBuf {
        let path = self.case.path("initrd");
        let mut file = File::create(&path).unwrap();
        io::copy(&mut File::open(self.case.kernel.initrd()).unwrap(), &mut file).unwrap();
        for program in &self.programs {
            io::copy(&mut File::open(program).unwrap(), &mut file).unwrap();
        }
        let mut archive = Archive::new(file);
        archive.file("test/run", 0o755, format!("{PRELUDE}{script}\n").as_bytes()).unwrap();
        archive.copy("bin/agent", Path::new("agent")).unwrap();
        archive.finish().unwrap();
        path
    }
}

/// Where a line came from.
enum Line {
    Serial(String),
    Busway(String),
}

/// A machine that runs. Dropped, it is killed.
pub(crate) struct Running {
    child: Child,
    incoming: Receiver<Line>,
    report: Report,
    deadline: Instant,
    transcript: Transcript,
}

impl Running {
    /// `child` runs busway, and its serial port comes out of `serial`.
    pub(crate) fn new(mut child: Child, serial: impl Read + Send + 'static, case: &Case) -> Self {
        let (sender, incoming) = mpsc::channel();
        pass_on(serial, sender.clone(), Line::Serial);
        if let Some(stderr) = child.stderr.take() {
            pass_on(stderr, sender, Line::Busway);
        }
        let report = Report { lines: Vec::new(), busway: String::new(), status: -1 };
        let transcript = case.transcript().clone();
        Self { child, incoming, report, deadline: case.deadline, transcript }
    }

    /// Waits for a line of the guest that begins like this; returns the rest of it.
    pub(crate) fn wait_for(&mut self, start: &str) -> String {
        loop {
            let Some(line) = self.next() else {
                panic!("the guest ended without a line that begins with {start:?}");
            };
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    /// Sends a signal to busway.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until busway has ended.
    pub(crate) fn end(mut self) -> Report {
        while self.next().is_some() {}
        let status = self.child.wait().unwrap();
        self.report.status = status.code().or(status.signal().map(|signal| signal + 128)).unwrap();
        self.transcript.line(&format!("--- busway ended with status {}", self.report.status));
        self.report.clone()
    }

    /// The next line of the serial port; what busway says meanwhile is kept. None when all is said.
    fn next(&mut self) -> Option<String> {
        loop {
            match self.incoming.recv_timeout(SILENCE) {
                Ok(Line::Serial(line)) => {
                    self.transcript.line(&format!("  {line}"));
                    self.report.lines.push(line.clone());
                    return Some(line);
                }
                Ok(Line::Busway(line)) => {
                    self.transcript.line(&format!("! {line}"));
                    self.report.busway.push_str(&line);
                    self.report.busway.push('\n');
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                // A terminal stays open when busway has ended.
                Err(RecvTimeoutError::Timeout) if self.child.try_wait().unwrap().is_some() => {
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => {
                    assert!(Instant::now() < self.deadline, "the test's time is over");
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cuts a stream into lines, without what would upset a terminal.
fn pass_on(from: impl Read + Send + 'static, to: Sender<Line>, kind: fn(String) -> Line) {
    thread::spawn(move || {
        let mut lines = BufReader::new(from).split(b'\n');
        // A terminal whose other end is gone reads as an error.
        while let Some(Ok(line)) = lines.next() {
            let line = String::from_utf8_lossy(&line);
            let line = line.chars().filter(|c| !c.is_control()).collect();
            if to.send(kind(line)).is_err() {
                return;
            }
        }
    });
}
