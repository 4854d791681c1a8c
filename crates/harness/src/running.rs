// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine that runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::mender::Mender;
use crate::report::Report;

/// Who hears lines as they come.
pub type Listener = Arc<dyn Fn(&str) + Send + Sync>;

/// After busway's end, what it wrote is read within this time.
const SILENCE: Duration = Duration::from_secs(1);

/// Where a line came from.
enum Line {
    Serial(String),
    Busway(String),
}

/// A machine that runs. Dropped, it is killed.
pub struct Running {
    child: Child,
    incoming: Receiver<Line>,
    report: Report,
    mender: Mender,
    deadline: Instant,
    first_line: Option<Instant>,
    listener: Listener,
    /// Commands that [`run`](Self::run) has typed.
    pub(crate) commands: u32,
}

impl Running {
    /// A machine that was started otherwise: `child` runs busway, and its serial port comes out of `serial`.
    pub fn attach(
        mut child: Child,
        serial: impl Read + Send + 'static,
        deadline: Instant,
        listener: Listener,
    ) -> Self {
        let (sender, incoming) = mpsc::channel();
        pass_on(serial, sender.clone(), Line::Serial);
        if let Some(stderr) = child.stderr.take() {
            pass_on(stderr, sender, Line::Busway);
        }
        let report = Report { lines: Vec::new(), busway: String::new(), status: -1 };
        let mender = Mender::default();
        Self { child, incoming, report, mender, deadline, first_line: None, listener, commands: 0 }
    }

    /// Until when it must have said a first line; see [`Machine::first_line`](crate::Machine::first_line).
    pub(crate) const fn first_line(mut self, first_line: Option<Instant>) -> Self {
        self.first_line = first_line;
        self
    }

    /// Waits for a line of the guest that begins like this; returns the rest of it.
    ///
    /// # Panics
    /// The guest ends without it, or its time is over.
    #[track_caller]
    pub fn wait_for(&mut self, start: &str) -> String {
        loop {
            let Some(line) = self.next() else {
                let tail = self.report.tail();
                panic!("the guest ended without a line that begins with {start:?}{tail}");
            };
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    /// Types this into the serial port.
    ///
    /// # Panics
    /// busway has ended, or was [attached](Self::attach) without a pipe at its input.
    #[track_caller]
    pub fn type_in(&mut self, keys: &str) {
        let stdin = self.child.stdin.as_mut().expect("the machine has a pipe for its input");
        let typed = stdin.write_all(keys.as_bytes()).and_then(|()| stdin.flush());
        typed.unwrap_or_else(|error| panic!("cannot type {keys:?}: {error}"));
    }

    /// Asks busway to end the machine: the guest is asked to power off if `--grace` says so, else the
    /// plug is pulled, its disks in order.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends busway as a power cut would.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The process that runs busway.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until busway has ended, and says how.
    ///
    /// # Panics
    /// Its time is over.
    #[track_caller]
    pub fn end(mut self) -> Report {
        while self.next().is_some() {}
        let status = self.child.wait().unwrap();
        self.report.status = status.code().or(status.signal().map(|signal| signal + 128)).unwrap();
        (self.listener)(&format!("--- busway ended with status {}", self.report.status));
        self.report.clone()
    }

    /// The next line of the serial port; what busway says meanwhile is kept. None when all is said.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<String> {
        loop {
            match self.incoming.recv_timeout(SILENCE) {
                Ok(Line::Serial(line)) => {
                    (self.listener)(&format!("  {line}"));
                    let line = self.mender.mend(&line);
                    self.report.lines.push(line.clone());
                    return Some(line);
                }
                Ok(Line::Busway(line)) => {
                    (self.listener)(&format!("! {line}"));
                    self.report.busway.push_str(&line);
                    self.report.busway.push('\n');
                }
                Err(RecvTimeoutError::Disconnected) => return self.rest(),
                // A terminal stays open when busway has ended.
                Err(RecvTimeoutError::Timeout) if self.child.try_wait().unwrap().is_some() => {
                    return self.rest();
                }
                Err(RecvTimeoutError::Timeout) => self.has_time(),
            }
        }
    }

    /// The beginning of a line that was torn and has no end.
    fn rest(&mut self) -> Option<String> {
        let line = self.mender.rest()?;
        self.report.lines.push(line.clone());
        Some(line)
    }

    /// For loops that wait for something else than a line.
    ///
    /// # Panics
    /// Its time is over, or that for its first line.
    #[track_caller]
    pub fn has_time(&self) {
        let over = |instant| Instant::now() >= instant;
        assert!(!over(self.deadline), "the machine's time is over{}", self.report.tail());
        let silent = self.report.lines.is_empty() && self.first_line.is_some_and(over);
        assert!(!silent, "the guest has not said a line in its time{}", self.report.tail());
    }

    /// What it has said so far.
    pub const fn so_far(&self) -> &Report {
        &self.report
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
