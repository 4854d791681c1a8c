// SPDX-License-Identifier: MIT OR Apache-2.0

//! A KVM host for jobs that boot guests: this machine where its KVM is whole, else an emulated host.
//!
//! The emulated host is QEMU's AMD processor with SVM, by TCG alone, under Debian's own kernel with kvm-amd.
//! All that a job sees there is real KVM and real guests, only slower; see [`emulated`].

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

mod direct;
mod emulated;
mod initrd;
mod probe;
mod qemu;
mod stream;

/// One command to run on a KVM host, and what goes in and comes out.
#[derive(Debug)]
pub(crate) struct Job {
    /// Program and arguments.
    pub(crate) command: Vec<OsString>,
    /// It talks to our terminal, and nobody watches what it says.
    pub(crate) terminal: bool,
    /// Programs on its PATH, under their base names.
    pub(crate) programs: Vec<PathBuf>,
    /// Copied into the working directory before it starts.
    pub(crate) files: Vec<FileIn>,
    /// Copied out of it after it ended.
    pub(crate) outs: Vec<FileOut>,
    /// How long all may take, the host's start included.
    pub(crate) timeout: Option<Duration>,
}

/// A file or directory for the job.
#[derive(Debug)]
pub(crate) struct FileIn {
    /// Path below the job's working directory.
    pub(crate) name: String,
    /// Where it is now.
    pub(crate) source: PathBuf,
}

/// A file or directory that the job leaves; of a directory, its contents.
#[derive(Debug)]
pub(crate) struct FileOut {
    /// Path below the job's working directory.
    pub(crate) name: String,
    /// Where it is to go.
    pub(crate) target: PathBuf,
}

/// Size of the emulated host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Memory in MiB; half of it at most holds files.
    pub(crate) memory_mib: u64,
    /// Processors.
    pub(crate) cpus: u32,
}

/// The emulated host's kernel panicked, and the job with it; or it did not start.
#[derive(Debug)]
pub(crate) struct HostCrashed(String);

impl fmt::Display for HostCrashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HostCrashed {}

/// Where jobs run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Host {
    /// Here, on this machine's own KVM.
    Direct,
    /// In an emulated host.
    Emulated(Machine),
}

impl Host {
    /// Decides by what this machine's KVM can do, and says what and why in one line on stderr.
    /// `BUSWAY_LAB=direct` or `=lab` decides instead.
    pub(crate) fn choose(machine: Machine) -> anyhow::Result<Self> {
        let forced = std::env::var("BUSWAY_LAB").unwrap_or_default();
        let (host, reason) = match forced.as_str() {
            "direct" => (Self::Direct, "BUSWAY_LAB says so".to_owned()),
            "lab" => (Self::Emulated(machine), "BUSWAY_LAB says so".to_owned()),
            "" => match probe::what_is_missing() {
                None => (Self::Direct, "it is whole".to_owned()),
                Some(reason) => (Self::Emulated(machine), reason),
            },
            other => bail!("BUSWAY_LAB is direct or lab, not {other}"),
        };
        match host {
            Self::Direct => eprintln!("lab: this machine's own KVM: {reason}"),
            Self::Emulated(_) => eprintln!("lab: an emulated KVM host: {reason}"),
        }
        Ok(host)
    }

    /// Runs the job to its end and returns its exit status (128 + n when signal n ended it). Its output goes
    /// to ours as it comes; `watch` sees what it writes to stdout.
    pub(crate) fn run(
        self,
        job: &Job,
        watch: &mut (dyn FnMut(&[u8]) + Send),
    ) -> anyhow::Result<u8> {
        match self {
            Self::Direct => direct::run(job, watch),
            Self::Emulated(machine) => emulated::run(machine, job, watch),
        }
    }
}

/// Brings one result to where it was asked for. That it is not there is an error only where the command
/// claims success.
fn deliver(from: &Path, file: &FileOut, status: u8) -> anyhow::Result<()> {
    if !from.exists() {
        if status == 0 {
            bail!("the command left no {}", file.name);
        }
        eprintln!("lab: the command left no {}", file.name);
        return Ok(());
    }
    if let Some(parent) = file.target.parent() {
        fs::create_dir_all(parent)?;
    }
    copy(from, &file.target)
}

/// Copies a file, or the contents of a directory, with modes and holes.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("cp");
    command.args(["-R", "-T", "--preserve=mode,timestamps", "--sparse=auto", "--reflink=auto"]);
    let status = command.arg("--").arg(from).arg(to).status().context("could not run cp")?;
    if !status.success() {
        bail!("{} could not be copied to {}", from.display(), to.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_delivered_or_missed() {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("out");
        let file = FileOut { name: "out".to_owned(), target: directory.path().join("new/place") };
        assert!(deliver(&from, &file, 0).is_err());
        assert!(deliver(&from, &file, 1).is_ok());
        fs::create_dir(&from).unwrap();
        fs::write(from.join("a"), "1").unwrap();
        deliver(&from, &file, 0).unwrap();
        // Into a directory that is there already, contents go beside contents.
        deliver(&from, &file, 0).unwrap();
        assert_eq!(fs::read(directory.path().join("new/place/a")).unwrap(), b"1");
    }
}
