// SPDX-License-Identifier: MIT OR Apache-2.0

//! A terminal with a test at the keyboard.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::tcgetattr;

use crate::case::Case;
use busway_harness::Running;

use crate::guest::Guest;

/// Both ends of a pseudoterminal.
pub(crate) struct Terminal {
    keyboard: File,
    line: File,
}

impl Terminal {
    pub(crate) fn open() -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let name = PathBuf::from(name.to_str().unwrap());
        let line = OpenOptions::new().read(true).write(true).open(name).unwrap();
        Self { keyboard: keyboard.into(), line }
    }

    /// How it is set, as text to compare.
    pub(crate) fn modes(&self) -> String {
        format!("{:?}", tcgetattr(&self.line).unwrap())
    }

    /// Starts the machine with this as its console.
    pub(crate) fn start(&self, guest: Guest<'_>, case: &Case, script: &str) -> Running {
        let mut command = guest.command(script);
        command.stdin(self.line.try_clone().unwrap()).stdout(self.line.try_clone().unwrap());
        let serial = self.keyboard.try_clone().unwrap();
        Running::attach(command.spawn().unwrap(), serial, case.deadline, case.listener())
    }

    pub(crate) fn type_in(&self, keys: &str) {
        (&self.keyboard).write_all(keys.as_bytes()).unwrap();
    }
}
