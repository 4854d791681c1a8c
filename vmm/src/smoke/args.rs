// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line of `busway smoke`: a machine as `busway run` takes it, and what is expected.

use std::path::PathBuf;

use clap::Args;

use crate::cli::RunArgs;
use crate::smoke::expect::Expected;
use crate::smoke::outputs::ReportSpec;
use crate::spec::{OnPanic, OnReset, SerialSpec, SpecError, VmSpec};

const EXAMPLES: &str = "\
Examples:
  Does this kernel still find Hyper-V and its disk? Reports for a CI system:
    busway smoke --kernel vmlinuz --initrd initrd.img --disk root.img,readonly \\
      --cmdline 'console=ttyS0 root=/dev/sda1 ro' --report junit=smoke.xml \\
      --serial-log serial.log

  Only what is named, and no more than a minute for it:
    busway smoke --kernel vmlinuz --initrd initrd.img --expect vmbus,heartbeat --timeout 60

Unlike busway run: the serial port leads nowhere, the guest has 120 s and one life.

Exit status:
  0  all that is expected was seen
  1  something is missing, the guest crashed, or it broke a rule of --strict=fail
  2  busway could not start the machine, or the host failed
  128+N  signal N ended busway";

/// How long an image has unless `--timeout` says something else, in seconds.
const TIMEOUT: u64 = 120;

/// A machine, and what its guest is expected to do.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct SmokeArgs {
    /// The machine.
    #[command(flatten)]
    pub machine: RunArgs,

    /// What is expected, with commas between: hypervisor, vmbus, or devices by name (storage,
    /// network, shutdown, timesync, heartbeat, kvp, vsock, raw, ...) [default: all that is offered
    /// and needs no program in the guest: not kvp, vss, fcopy, vsock and raw]
    #[arg(long, value_name = "LIST", display_order = 0)]
    pub expect: Option<String>,

    /// Write a report: json=FILE, junit=FILE. May be given for each
    #[arg(long, value_name = "KIND=FILE", display_order = 0)]
    pub report: Vec<String>,

    /// Write the guest's serial port into a file [default: nowhere]
    #[arg(long, value_name = "FILE", conflicts_with = "serial", display_order = 0)]
    pub serial_log: Option<PathBuf>,
}

impl SmokeArgs {
    /// The machine, unchecked: one life, without a terminal, for a limited time.
    pub fn to_spec(&self) -> Result<VmSpec, SpecError> {
        let mut spec = self.machine.to_spec()?;
        if self.machine.serial.is_none() {
            spec.serial = match &self.serial_log {
                Some(path) => SerialSpec::File(path.clone()),
                None => SerialSpec::Null,
            };
        }
        spec.timeout = spec.timeout.or(Some(TIMEOUT));
        (spec.on_reset, spec.on_panic) = (OnReset::Exit, OnPanic::Exit);
        Ok(spec)
    }

    /// What is expected of its guest.
    pub fn expected(&self) -> Result<Expected, SpecError> {
        let list = self.expect.as_deref();
        list.map_or(Ok(Expected::Offered), |list| {
            let wrong =
                |reason| SpecError::Value { flag: "expect", value: list.to_owned(), reason };
            list.parse().map_err(wrong)
        })
    }

    /// The reports that are wanted.
    pub fn reports(&self) -> Result<Vec<ReportSpec>, SpecError> {
        let read = |text: &String| {
            let wrong = |reason| SpecError::Value { flag: "report", value: text.clone(), reason };
            text.parse().map_err(wrong)
        };
        self.report.iter().map(read).collect()
    }
}
