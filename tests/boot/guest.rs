// SPDX-License-Identifier: MIT OR Apache-2.0

//! A machine in a test: described, started, listened to, ended.
//!
//! The test's script runs as soon as the drivers are loaded, under `sh -eu`; what it prints comes out of the
//! serial port. Lines `key=value` become facts of the [`Report`].

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use busway_guest_images::cpio::Archive;
use busway_harness::{Machine, Report, Running};

use crate::case::{Case, Skip};
use crate::image::Image;

/// What each script begins with.
const PRELUDE: &str = include_str!("prelude.sh");

/// How long a guest may take to begin its script: some twenty times what it takes in the emulated lab.
const BOOT: Duration = Duration::from_secs(120);

/// And what each vCPU adds to that.
const BOOT_OF_A_VCPU: Duration = Duration::from_secs(10);

/// A machine that has not been started.
pub(crate) struct Guest<'a> {
    case: &'a Case,
    machine: Machine,
    timeout: Duration,
    programs: Vec<PathBuf>,
    files: Vec<(&'static str, PathBuf)>,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(case: &'a Case) -> Self {
        let machine = Machine::new(case.kernel.vmlinuz()).word("quiet");
        let machine = machine.flag("--hyperv").flag(case.kernel.engine);
        let machine = machine.deadline(case.deadline).listener(case.listener());
        let machine = machine.first_line(BOOT);
        Self { case, machine, timeout: case.stillness, programs: Vec::new(), files: Vec::new() }
    }

    /// Number of vCPUs.
    pub(crate) fn cpus(self, count: u32) -> Self {
        let machine = self.machine.first_line(BOOT + BOOT_OF_A_VCPU * count);
        Self { machine, ..self }.flag("--cpus").flag(count.to_string())
    }

    /// How long it may make no progress; busway then says where its vCPUs are, and ends it.
    pub(crate) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
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
    pub(crate) fn flag(self, flag: impl AsRef<OsStr>) -> Self {
        Self { machine: self.machine.flag(flag), ..self }
    }

    /// A program of guest-images/manifest.toml to take along.
    pub(crate) fn program(mut self, name: &str) -> Result<Self, Skip> {
        let archive = self.case.kernel.program(name);
        let missing = || Skip(format!("{name} is not for this kernel"));
        self.programs.push(archive.ok_or_else(missing)?);
        Ok(self)
    }

    /// A file to take along, at this path without a leading slash.
    pub(crate) fn file(mut self, name: &'static str, from: PathBuf) -> Self {
        self.files.push((name, from));
        self
    }

    /// A word of the kernel's command line.
    pub(crate) fn word(self, word: &str) -> Self {
        Self { machine: self.machine.word(word), ..self }
    }

    /// Boots, runs the script and switches off; anything less is a failure.
    pub(crate) fn run(self, script: &str) -> Report {
        let report = self.start(script).end();
        assert_eq!(script_status(&report), Some(0), "exit status of the guest's script");
        assert_eq!(report.status, 0, "exit status of busway");
        report
    }

    /// Boots, with the script.
    pub(crate) fn start(self, script: &str) -> Running {
        self.ready(script).start()
    }

    /// The command that boots it.
    pub(crate) fn command(self, script: &str) -> Command {
        self.ready(script).command()
    }

    fn ready(self, script: &str) -> Machine {
        let initrd = self.initrd(script);
        let timeout = self.timeout.as_secs().to_string();
        self.machine.flag("--timeout").flag(timeout).initrd(initrd)
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
        for (name, from) in &self.files {
            archive.copy(name, from).unwrap();
        }
        archive.finish().unwrap();
        path
    }
}

/// The exit status of the script, if the guest came that far.
pub(crate) fn script_status(report: &Report) -> Option<i32> {
    let ends = |line: &'_ String| line.starts_with("busway-guest: exit ");
    let line = report.lines.iter().rev().find(|line| ends(line))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Bytes of shared memory that busway has now: the guest's, above all.
pub(crate) fn shared_memory(guest: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", guest.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssShmem:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
