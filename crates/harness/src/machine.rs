// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine that has not been started.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::Control;
use crate::running::{Listener, Running};

/// How long a machine may live unless told otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// busway ends by itself so long after the test should have ended it.
const GRACE: Duration = Duration::from_secs(60);

/// The program: `$BUSWAY`, or `busway` on the PATH.
pub(crate) fn program() -> OsString {
    env::var_os("BUSWAY").unwrap_or_else(|| "busway".into())
}

/// What `busway run` is to be told.
pub struct Machine {
    program: OsString,
    kernel: PathBuf,
    arguments: Vec<OsString>,
    words: Vec<String>,
    deadline: Instant,
    first_line: Option<Duration>,
    listener: Listener,
}

impl Machine {
    /// A machine that boots this kernel, a bzImage or an ELF file: one vCPU, no disk, and
    /// `console=ttyS0 panic=-1` on its command line.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            program: program(),
            kernel: kernel.into(),
            arguments: Vec::new(),
            words: vec!["console=ttyS0".to_owned(), "panic=-1".to_owned()],
            deadline: Instant::now() + PATIENCE,
            first_line: None,
            listener: Arc::new(|_| {}),
        }
    }

    /// Its initramfs.
    #[must_use]
    pub fn initrd(self, path: impl AsRef<Path>) -> Self {
        self.flag("--initrd").flag(path.as_ref())
    }

    /// A word of `busway run`'s command line: a flag, or its value.
    #[must_use]
    pub fn flag(mut self, word: impl AsRef<OsStr>) -> Self {
        self.arguments.push(word.as_ref().to_owned());
        self
    }

    /// A word of the kernel's command line.
    #[must_use]
    pub fn word(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// When it must have ended: what waits for it panics then. Two minutes from now unless told otherwise.
    #[must_use]
    pub const fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = deadline;
        self
    }

    /// How soon its serial port must have said a line: what waits for it panics else, and need not wait for
    /// the deadline to learn of a guest that hangs at its start. For as long as the deadline unless told.
    #[must_use]
    pub const fn first_line(mut self, within: Duration) -> Self {
        self.first_line = Some(within);
        self
    }

    /// Where it can be asked while it runs; see [`Control`].
    #[must_use]
    pub fn control(self, control: &Control) -> Self {
        self.flag("--control").flag(control.path())
    }

    /// The program, instead of `$BUSWAY` or `busway` on the PATH.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }

    /// Who hears each line as it comes: the guest's behind two spaces, busway's behind `! `.
    #[must_use]
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listener = listener;
        self
    }

    /// Boots it.
    ///
    /// # Panics
    /// There is no such program.
    pub fn start(self) -> Running {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let serial = child.stdout.take().unwrap();
        let first_line = self.first_line.map(|within| Instant::now() + within);
        Running::attach(child, serial, self.deadline, self.listener).first_line(first_line)
    }

    /// The command that boots it, its stderr to be read.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--kernel").arg(&self.kernel);
        command.arg("--cmdline").arg(self.words.join(" "));
        if !self.arguments.iter().any(|word| word == "--timeout") {
            let left = self.deadline.saturating_duration_since(Instant::now()) + GRACE;
            command.arg("--timeout").arg(left.as_secs().to_string());
        }
        command.args(&self.arguments).stderr(Stdio::piped());
        (self.listener)(&format!("--- {command:?}"));
        command
    }
}
