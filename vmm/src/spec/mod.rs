// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a machine is to be: one plain description, from flags or from a JSON file, and the one
//! place that checks it.
//!
//! Every error is one line that names the flag and says what to do, whichever way the value came.

mod capture;
mod disk;
mod display;
mod faults;
mod integration;
mod net;
mod raw;
mod serial;
mod size;
mod strict;
mod versions;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use capture::CaptureSpec;
pub use disk::{BusSpec, DiskSpec, DiskSpecError, FormatSpec, MAX_CONTROLLERS, MAX_UNITS, WwnSpec};
pub use display::{DisplaySpec, ScreenSize};
pub use faults::{FaultsSpec, FaultsSpecError};
pub use integration::{IntegrationSpec, Service};
pub(crate) use net::check as check_nets;
pub use net::{MacSpec, NetSpec, NetSpecError, NetworkSpec};
pub use raw::{ClassGuid, RawSpec};
pub use serial::SerialSpec;
pub use size::Size;
pub use strict::Strictness;
pub use versions::{Newest, VersionArgs, VersionsSpec};

/// A value that cannot be understood: what is wrong, and what would be right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub(crate) String);

/// A machine. The same names stand in a `--spec` file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// The kernel: a bzImage or an ELF vmlinux.
    pub kernel: PathBuf,
    /// The initramfs.
    #[serde(default)]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line; [`DEFAULT_CMDLINE`] without one, and nothing where that would be taken for
    /// commands: for what starts in real mode, such as a boot loader.
    #[serde(default)]
    pub cmdline: Option<String>,
    /// vCPUs.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// RAM.
    #[serde(default = "default_memory")]
    pub memory: Size,
    /// Who implements Hyper-V.
    #[serde(default)]
    pub hyperv: HypervSpec,
    /// The newest versions that the host speaks.
    #[serde(default)]
    pub versions: VersionsSpec,
    /// Disks, in the order in which the guest finds those of a controller.
    #[serde(default)]
    pub disks: Vec<DiskSpec>,
    /// DVD drives: the image of the disc in each.
    #[serde(default)]
    pub dvds: Vec<PathBuf>,
    /// Network cards.
    #[serde(default)]
    pub nets: Vec<NetSpec>,
    /// Where the serial port leads.
    #[serde(default)]
    pub serial: SerialSpec,
    /// Integration components that the guest is offered.
    #[serde(default)]
    pub integration: IntegrationSpec,
    /// The control socket.
    #[serde(default)]
    pub control: Option<PathBuf>,
    /// Pages can be taken from the guest and given back.
    #[serde(default)]
    pub balloon: bool,
    /// What the guest can be given by it in all, if that is more than it starts with.
    #[serde(default)]
    pub max_memory: Option<Size>,
    /// Its screen.
    #[serde(default)]
    pub display: DisplaySpec,
    /// It can hibernate: ACPI has S4.
    #[serde(default)]
    pub hibernation: bool,
    /// It has a keyboard.
    #[serde(default)]
    pub keyboard: bool,
    /// It has a mouse.
    #[serde(default)]
    pub mouse: bool,
    /// Channels whose hosts are programs of the user's.
    #[serde(default)]
    pub raw: Vec<RawSpec>,
    /// The directory of sockets between host and guest.
    #[serde(default)]
    pub vsock: Option<PathBuf>,
    /// Where what passes between guest and host is recorded.
    #[serde(default)]
    pub capture: Option<CaptureSpec>,
    /// What goes wrong between them.
    #[serde(default)]
    pub faults: Option<FaultsSpec>,
    /// What the guest must not do is looked for.
    #[serde(default)]
    pub strict: Option<Strictness>,
    /// Seconds that the guest has to switch itself off after SIGTERM; 0 for none.
    #[serde(default = "default_grace")]
    pub grace: u64,
    /// Seconds after which a guest without progress has failed; in a smoke test, one that still runs.
    #[serde(default)]
    pub timeout: Option<u64>,
    /// What follows a guest's panic.
    #[serde(default)]
    pub on_panic: OnPanic,
    /// What follows a guest's reset.
    #[serde(default)]
    pub on_reset: OnReset,
}

/// Who implements Hyper-V.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HypervSpec {
    /// KVM where it has all of it, else busway.
    #[default]
    Auto,
    /// KVM.
    Kvm,
    /// Busway.
    Userspace,
}

/// What follows a guest's panic, after it has been reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnPanic {
    /// The machine ends, with status 1.
    #[default]
    Exit,
    /// The guest goes on, to save a crash dump for example.
    Wait,
}

/// What follows a guest's reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReset {
    /// The machine starts again.
    #[default]
    Restart,
    /// The machine ends, with status 0.
    Exit,
}

/// The command line of a guest whose console is the serial port.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0 panic=-1";
/// The most vCPUs.
pub const MAX_CPUS: u32 = 64;
/// The most network cards.
pub const MAX_NETS: usize = 16;
/// The least RAM, in bytes, that a kernel of today can unpack itself in.
const MIN_MEMORY: u64 = 64 << 20;
const MIB: u64 = 1 << 20;
/// What Linux takes new memory by, in bytes (`drivers/hv/hv_balloon.c`, `HA_CHUNK`).
const MEMORY_BLOCK: u64 = 128 << 20;
/// The most memory that a guest can grow to: more than KVM can map anywhere, and safe to calculate with.
const MAX_MEMORY: u64 = 1 << 46;

fn default_cpus() -> u32 {
    1
}

fn default_grace() -> u64 {
    10
}

fn default_memory() -> Size {
    Size(512 << 20)
}

/// A machine that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file is not there, or not readable.
    #[error("--{flag} {path}: {reason}; check the path", path = path.display())]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// A directory, or a file with nothing in it.
    #[error("--{flag} {path} is {what}: give a file", path = path.display())]
    NoContent {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Nothing to boot.
    #[error("--kernel is missing: give the kernel to boot, or a machine by --spec")]
    NoKernel,
    /// Too few vCPUs or too many.
    #[error("--cpus {0}: give 1 to {MAX_CPUS}")]
    Cpus(u32),
    /// Too little memory, or not whole MiB.
    #[error("--memory {0}: give whole MiB, 64M or more")]
    Memory(Size),
    /// Memory to grow to that is less than the machine starts with, or not whole blocks more.
    #[error(
        "--balloon=max={max}: give the {memory} of --memory and whole blocks of 128M more, together with \
         a balloon"
    )]
    MaxMemory {
        /// The most that it is to have.
        max: Size,
        /// What it starts with.
        memory: Size,
    },
    /// A command line that cannot be passed.
    #[error("--cmdline has a character that no kernel takes (NUL): remove it")]
    Cmdline,
    /// Nothing can happen in no time.
    #[error("--timeout 0: give one second or more")]
    Timeout,
    /// More disks than a controller takes.
    #[error(
        "--disk and --dvd put {units} units on controller {controller}: give at most {MAX_UNITS}, \
         or other disks a controller="
    )]
    TooManyDisks {
        /// The controller.
        controller: u8,
        /// What is to be on it.
        units: usize,
    },
    /// A disk that cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskSpecError),
    /// More network cards than a machine takes.
    #[error("--net is given {0} times: give at most {MAX_NETS}")]
    TooManyNets(usize),
    /// A network card that cannot be.
    #[error(transparent)]
    Net(#[from] NetSpecError),
    /// A value of the JSON file or a flag.
    #[error("--{flag} {value}: {reason}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it, and what would be right.
        reason: ValueError,
    },
    /// A file that is no description of a machine.
    #[error("--spec {path}: {reason}; `busway run --print-spec` shows a right one", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// serde's reason.
        reason: serde_json::Error,
    },
}

impl VmSpec {
    /// A machine of which nothing is special but its kernel.
    pub fn named(kernel: PathBuf) -> Self {
        Self {
            kernel,
            initrd: None,
            cmdline: None,
            cpus: default_cpus(),
            memory: default_memory(),
            hyperv: HypervSpec::default(),
            versions: VersionsSpec::default(),
            disks: Vec::new(),
            dvds: Vec::new(),
            nets: Vec::new(),
            serial: SerialSpec::default(),
            integration: IntegrationSpec::default(),
            control: None,
            balloon: false,
            max_memory: None,
            display: DisplaySpec::None,
            hibernation: false,
            keyboard: false,
            mouse: false,
            raw: Vec::new(),
            vsock: None,
            capture: None,
            faults: None,
            strict: None,
            grace: default_grace(),
            timeout: None,
            on_panic: OnPanic::default(),
            on_reset: OnReset::default(),
        }
    }

    /// Reads the description in a JSON file, unchecked.
    pub fn read(path: &Path) -> Result<Self, SpecError> {
        let text = std::fs::read(path).map_err(|reason| SpecError::File {
            flag: "spec",
            path: path.to_owned(),
            reason,
        })?;
        serde_json::from_slice(&text)
            .map_err(|reason| SpecError::Json { path: path.to_owned(), reason })
    }

    /// A disk that waits for a user who has no way to let it go on.
    pub fn waits_in_vain(&self) -> Option<&DiskSpec> {
        let mut waiting = self.disks.iter().filter(|disk| disk.waits_for_the_user());
        waiting.next().filter(|_| self.control.is_none())
    }

    /// Bytes that the guest can be given while it runs, beyond those that it starts with.
    pub fn room(&self) -> u64 {
        self.max_memory.map_or(0, |max| max.0.saturating_sub(self.memory.0))
    }

    /// Makes sure that such a machine can be: of all that can be known without starting it.
    pub fn check(&self) -> Result<(), SpecError> {
        check_file("kernel", &self.kernel)?;
        if let Some(initrd) = &self.initrd {
            check_file("initrd", initrd)?;
        }
        if self.cmdline.as_ref().is_some_and(|cmdline| cmdline.contains('\0')) {
            return Err(SpecError::Cmdline);
        }
        if !(1..=MAX_CPUS).contains(&self.cpus) {
            return Err(SpecError::Cpus(self.cpus));
        }
        if self.memory.0 < MIN_MEMORY || !self.memory.0.is_multiple_of(MIB) {
            return Err(SpecError::Memory(self.memory));
        }
        if let Some(max) = self.max_memory {
            let more = max.0.checked_sub(self.memory.0);
            let fits = more.is_some_and(|more| more.is_multiple_of(MEMORY_BLOCK));
            if !self.balloon || !fits || max.0 > MAX_MEMORY {
                return Err(SpecError::MaxMemory { max, memory: self.memory });
            }
        }
        if self.timeout == Some(0) {
            return Err(SpecError::Timeout);
        }
        for controller in 0..MAX_CONTROLLERS {
            let disks = self.disks.iter().filter(|disk| disk.is_on(controller)).count();
            let units = if controller == 0 { disks + self.dvds.len() } else { disks };
            if units > usize::from(MAX_UNITS) {
                return Err(SpecError::TooManyDisks { controller, units });
            }
        }
        if self.nets.len() > MAX_NETS {
            return Err(SpecError::TooManyNets(self.nets.len()));
        }
        check_nets(&self.nets)?;
        Ok(disk::check(&self.disks)?)
    }
}

/// Makes sure that `path` is a file with something in it that we may read.
fn check_file(flag: &'static str, path: &Path) -> Result<(), SpecError> {
    let error = |reason| SpecError::File { flag, path: path.to_owned(), reason };
    let metadata = File::open(path).and_then(|file| file.metadata()).map_err(error)?;
    let what = match metadata {
        metadata if metadata.is_dir() => "a directory",
        metadata if metadata.is_file() && metadata.len() == 0 => "empty",
        _ => return Ok(()),
    };
    Err(SpecError::NoContent { flag, path: path.to_owned(), what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_waits_for_the_user_wants_a_control_socket() {
        let mut spec = serde_json::from_str::<VmSpec>(r#"{"kernel": "vmlinuz"}"#).unwrap();
        spec.disks = vec!["a".parse().unwrap()];
        assert_eq!(spec.waits_in_vain(), None);
        for disk in ["b,werror=stop", "b,rerror=stop", "b,werror=enospc", "b,rerror=wait"] {
            spec.control = None;
            spec.disks.truncate(1);
            spec.disks.push(disk.parse().unwrap());
            assert_eq!(spec.waits_in_vain(), spec.disks.last(), "{disk}");
            spec.control = Some("socket".into());
            assert_eq!(spec.waits_in_vain(), None);
        }
    }

    #[test]
    fn a_file_needs_to_say_no_more_than_the_flags_do() {
        let spec: VmSpec = serde_json::from_str(r#"{"kernel": "vmlinuz"}"#).unwrap();
        assert_eq!((spec.cpus, spec.memory), (1, Size(512 << 20)));
        assert_eq!(spec.cmdline, None);
        assert_eq!((spec.serial, spec.hyperv), (SerialSpec::Stdio, HypervSpec::Auto));
        assert_eq!((spec.on_panic, spec.on_reset), (OnPanic::Exit, OnReset::Restart));
    }

    #[test]
    fn what_is_printed_can_be_read() {
        let text = r#"{
            "kernel": "vmlinuz", "initrd": "initrd", "cmdline": "quiet", "cpus": 4,
            "memory": "2G", "hyperv": "userspace",
            "disks": [{"file": "a.img", "readonly": true, "serial": "A1"}],
            "nets": [{"network": "tap=tap0", "queues": 4}],
            "serial": "unix=/run/vm.sock", "timeout": 60, "on_panic": "wait", "on_reset": "exit"
        }"#;
        let spec: VmSpec = serde_json::from_str(text).unwrap();
        assert_eq!(spec.memory, Size(2 << 30));
        assert!(spec.disks[0].readonly);
        assert_eq!(spec.hyperv, HypervSpec::Userspace);
        let printed = serde_json::to_string_pretty(&spec).unwrap();
        assert_eq!(serde_json::from_str::<VmSpec>(&printed).unwrap(), spec);
        assert!(printed.contains(r#""memory": "2G""#));
    }

    #[test]
    fn a_guest_grows_by_whole_blocks() {
        let kernel = std::env::current_exe().unwrap();
        let check = |balloon, max: &str| {
            let spec = VmSpec { balloon, ..VmSpec::named(kernel.clone()) };
            VmSpec { max_memory: Some(max.parse().unwrap()), ..spec }.check()
        };
        assert!(check(true, "512M").is_ok() && check(true, "640M").is_ok());
        for (balloon, max) in [(false, "640M"), (true, "384M"), (true, "641M"), (true, "65T")] {
            let error = check(balloon, max).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--balloon=max={max}")), "{error}");
        }
    }

    #[test]
    fn a_misspelt_name_is_an_error() {
        let error = serde_json::from_str::<VmSpec>(r#"{"kernel": "k", "cpu": 2}"#).unwrap_err();
        assert!(error.to_string().contains("`cpu`"), "{error}");
    }
}
