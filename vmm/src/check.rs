// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway check`: what this machine's KVM can do for busway, in plain words or as JSON.

use std::fmt::{self, Write};
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::engine::EngineKind;
use crate::kvm::{CLOCKSOURCE, Choice, Host, OpenError, Support, is_by_tsc};
use crate::spec::{HypervSpec, MAX_CPUS};

/// The outcome.
#[derive(Debug, Serialize)]
pub struct Report {
    /// KVM's device.
    device: String,
    /// The host's kernel.
    kernel: String,
    /// `busway run` will work.
    usable: bool,
    /// Who implements Hyper-V with `--hyperv auto`, and why.
    hyperv: Option<Hyperv>,
    /// Why not, and what to do, if KVM cannot be opened at all.
    error: Option<String>,
    /// The most vCPUs of a machine.
    max_cpus: usize,
    /// One by one.
    checks: Vec<Check>,
}

/// The engine that guests get.
#[derive(Debug, Serialize)]
struct Hyperv {
    /// "kvm" or "userspace".
    engine: String,
    /// What follows "because".
    reason: String,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    /// KVM's or the TLFS's name, or the file that was read.
    name: String,
    /// What it is good for, as what follows "can".
    purpose: String,
    /// Guests cannot run without it.
    needed: bool,
    /// It is there.
    present: bool,
    /// What to do, if it is not.
    remedy: Option<String>,
}

impl Report {
    /// Looks at the KVM device at `path`.
    pub fn new(path: &Path) -> Self {
        let mut report = Self {
            device: path.display().to_string(),
            kernel: read("/proc/sys/kernel/osrelease"),
            usable: false,
            hyperv: None,
            error: None,
            max_cpus: 0,
            checks: vec![virtualization(&read("/proc/cpuinfo"))],
        };
        if let Err(error) = report.look(path) {
            report.error = Some(error.to_string());
        }
        report.checks.push(clock(&read(CLOCKSOURCE)));
        report
    }

    fn look(&mut self, path: &Path) -> Result<(), OpenError> {
        let host = Host::open(path)?;
        let support = host.support()?;
        self.max_cpus = host.max_vcpus().min(MAX_CPUS as usize);
        let choice = host.choose(HypervSpec::Auto);
        let kind = choice.as_ref().map_or(EngineKind::Userspace, |choice| choice.kind);
        self.checks.extend(support.into_iter().map(|support| Check::new(support, kind)));
        let Choice { kind, reason } = choice?;
        self.hyperv = Some(Hyperv { engine: kind.to_string(), reason });
        self.usable = true;
        Ok(())
    }

    /// `busway run` will work.
    pub fn is_usable(&self) -> bool {
        self.usable
    }
}

impl Check {
    /// What KVM says, for guests of `kind`.
    fn new(support: Support, kind: EngineKind) -> Self {
        Self {
            name: support.name,
            purpose: support.purpose.to_owned(),
            needed: support.need.is_for(kind),
            present: support.present,
            remedy: support.remedy.filter(|_| !support.present).map(str::to_owned),
        }
    }
}

/// A file's contents; none if there is no such file.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Whether the CPU itself can run guests. A KVM without that exists, and interprets the guest's
/// kernel.
fn virtualization(cpuinfo: &str) -> Check {
    let present = cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm");
    Check {
        name: "vmx or svm in /proc/cpuinfo".to_owned(),
        purpose: "run guests on the CPU itself".to_owned(),
        needed: false,
        present,
        remedy: (!present).then(|| {
            "switch virtualization on in the firmware, or nested virtualization if this is a \
             virtual machine"
                .to_owned()
        }),
    }
}

/// A guest has a TSC page only while the host itself keeps time by the TSC.
fn clock(current: &str) -> Check {
    let present = is_by_tsc(current);
    Check {
        name: format!("clock source {current:?}"),
        purpose: "give guests a clock that they read without leaving the CPU".to_owned(),
        needed: false,
        present,
        remedy: (!present).then(|| {
            "boot the host with clocksource=tsc tsc=reliable, if its TSC is; guests' clocks are \
             slow to read otherwise"
                .to_owned()
        }),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, kernel, .. } = self;
        if self.usable {
            let max = self.max_cpus;
            writeln!(
                f,
                "busway can run guests on {device} (Linux {kernel}), with 1 to {max} vCPUs"
            )?;
        } else {
            writeln!(f, "busway cannot run guests on {device} (Linux {kernel})")?;
        }
        if let Some(Hyperv { engine, reason }) = &self.hyperv {
            writeln!(f, "Hyper-V is implemented by {engine}, because {reason}")?;
        }
        if let Some(error) = &self.error {
            writeln!(f, "\n  {error}")?;
        }
        f.write_char('\n')?;
        for check in &self.checks {
            let mark = match (check.present, check.needed) {
                (true, _) => "yes",
                (false, true) => "NO",
                (false, false) => "no",
            };
            writeln!(f, "  {mark:3}  {:62} {}", check.purpose, check.name)?;
        }
        self.write_remedies(f)
    }
}

impl Report {
    /// Each remedy once, what is needed first.
    fn write_remedies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = Vec::new();
        for needed in [true, false] {
            let checks = self.checks.iter().filter(|check| check.needed == needed);
            for remedy in checks.filter_map(|check| check.remedy.as_deref()) {
                if !written.contains(&remedy) {
                    let weight = if needed { "needed" } else { "better" };
                    writeln!(f, "\n  {weight}: {remedy}")?;
                    written.push(remedy);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_known_by_its_flags() {
        assert!(virtualization("model name\t: x\nflags\t\t: fpu svm sse").present);
        assert!(virtualization("flags : vmx").present);
        assert!(!virtualization("flags : fpu\nbugs : svm").present);
    }

    #[test]
    fn a_host_without_tsc_is_told_what_to_do() {
        assert!(clock("tsc").present);
        let check = clock("hpet");
        assert!(!check.present && check.remedy.unwrap().contains("tsc=reliable"));
    }

    #[test]
    fn what_is_not_needed_keeps_nobody_from_running() {
        let report = Report {
            device: "/dev/kvm".to_owned(),
            kernel: "6.1".to_owned(),
            usable: true,
            hyperv: Some(Hyperv { engine: "userspace".to_owned(), reason: "so".to_owned() }),
            error: None,
            max_cpus: 64,
            checks: vec![virtualization(""), clock("tsc")],
        };
        let text = report.to_string();
        assert!(text.starts_with("busway can run guests on /dev/kvm (Linux 6.1)"), "{text}");
        assert!(text.contains("\nHyper-V is implemented by userspace, because so\n"), "{text}");
        assert!(text.contains("  no   run guests on the CPU itself"), "{text}");
        assert!(text.contains("better: switch virtualization on"), "{text}");
    }
}
