// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::control::protocol::Request;
use crate::decode::DecodeArgs;
use crate::fuzz::FuzzArgs;
use crate::smoke::args::SmokeArgs;
use crate::spec::{
    FaultsSpec, HypervSpec, OnPanic, OnReset, SpecError, ValueError, VersionArgs, VmSpec,
};
use crate::top::TopArgs;

/// The program.
#[derive(Debug, Parser)]
#[command(name = "busway", version, about = "Boots stock guests on Hyper-V's VMBus, on KVM")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say more: -v what happens, -vv in detail (or set BUSWAY_LOG=debug)
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 100)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a machine and run it to its end
    Run(Box<RunArgs>),
    /// Boot an image and judge, from outside, whether its Hyper-V drivers work
    Smoke(Box<SmokeArgs>),
    /// Say wrong things to a guest's driver, made from a seed, and see whether the guest stands it
    FuzzGuest(Box<FuzzArgs>),
    /// Explain a capture: every message and packet, with what they answer and how long that took
    Decode(DecodeArgs),
    /// Say what this machine's KVM can do for busway, and what to do about what is missing
    Check(CheckArgs),
    /// Watch what goes over the channels of a running machine
    Top(TopArgs),
    /// Ask a running machine, or tell it what to do
    Ctl(CtlArgs),
}

const EXAMPLES: &str = "\
Examples:
  A kernel with an initramfs, its console on this terminal (Ctrl-A X ends it):
    busway run --kernel vmlinuz --initrd initrd.img

  Four vCPUs, two disks, and an end after five minutes at the latest:
    busway run --kernel vmlinuz --initrd initrd.img --cpus 4 --memory 2G \\
      --disk root.img --disk data.img,readonly,serial=DATA1 \\
      --cmdline 'console=ttyS0 root=/dev/sda1' --timeout 300

  Two network cards, one for the guest's way out and one with four queues on a TAP:
    ip tuntap add tap0 mode tap user $USER multi_queue
    busway run --kernel vmlinuz --initrd initrd.img --cpus 4 --net passt --net tap=tap0,queues=4

  The same machine from a file:
    busway run --kernel vmlinuz --cpus 4 --print-spec > vm.json
    busway run --spec vm.json

Exit status:
  0  the guest switched itself off (or Ctrl-A X did)
  1  the guest failed: it panicked, triple-faulted, made no progress within --timeout, or broke
     a rule of --strict=fail
  2  busway could not start the machine, or the host failed
  128+N  signal N ended busway";

/// A machine, by flags. A flag takes precedence over the same value in `--spec`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct RunArgs {
    /// Kernel to boot: a bzImage (vmlinuz) or an ELF vmlinux
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// Initramfs for it
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,

    /// Kernel command line [default: console=ttyS0 panic=-1, and nothing for a boot loader that starts in real
    /// mode]
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub cmdline: Option<String>,

    /// Number of vCPUs, 1 to 64 [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<String>,

    /// RAM, with a unit: 512M, 2G [default: 512M]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,

    /// Who implements Hyper-V: kvm, userspace (busway itself, on any KVM), or auto, which is kvm
    /// where that has all of it [default: auto]
    #[arg(long, value_name = "auto|kvm|userspace")]
    pub hyperv: Option<String>,

    /// The newest versions that the host speaks.
    #[command(flatten)]
    pub versions: VersionArgs,

    /// Disk on a VMBus SCSI controller of the guest: an image (raw, qcow2, vhd; vmdk and vhdx
    /// are only read) or a block device. Writes go to the qcow2 file of overlay=, which is made if
    /// it is not there, or nowhere with temporary. Controllers are 0 (the default) to 3, and are
    /// there if they have a disk; without lun= (0 to 254) a disk has the first free number. A write
    /// (werror=) or read (rerror=) that the host cannot do is reported to the guest (report, the
    /// default), pauses the machine until `busway ctl SOCKET resume` (stop; enospc does if the host
    /// has no room), or waits while the machine runs on until `disk resume` (wait). May be given up to
    /// 255 times for each controller, and adds to the disks of --spec
    #[arg(
        long,
        value_name = "FILE[,readonly][,serial=S][,wwn=HEX][,format=F][,overlay=FILE|,temporary]\
            [,block-size=N][,controller=N][,lun=N][,iops=N][,bps=SIZE]\
            [,werror=report|enospc|stop|wait][,rerror=...]"
    )]
    pub disk: Vec<String>,

    /// DVD drive with the disc of an ISO image in it, behind the disks of controller 0. May be repeated, and adds
    /// to the drives of --spec
    #[arg(long, value_name = "FILE")]
    pub dvd: Vec<PathBuf>,

    /// Network card: on a TAP of the host's, on passt (started for it; needs no rights), on a
    /// program at a unix socket that speaks as passt does, or on itself. May be given up to 16
    /// times, and adds to the cards of --spec
    #[arg(long, value_name = "tap=NAME|passt|socket=PATH|loopback[,mac=..][,queues=N][,mtu=N]")]
    pub net: Vec<String>,

    /// Where the serial port leads: stdio, null, file=PATH, or unix=PATH (a socket to connect
    /// to) [default: stdio]
    #[arg(long, value_name = "WHERE")]
    pub serial: Option<String>,

    /// Integration components that the guest is offered: all, none, or some of
    /// shutdown,heartbeat,time,kvp,vss,copy [default: all but copy]
    #[arg(long, value_name = "LIST")]
    pub integration: Option<String>,

    /// Listen on a unix socket for `busway ctl`
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,

    /// Sockets between host and guest (AF_VSOCK): the guest's connections to PORT go to
    /// DIR/vsock_PORT; a program that says `CONNECT PORT` on DIR/vsock is connected to the guest's
    #[arg(long, value_name = "DIR")]
    pub vsock: Option<PathBuf>,

    /// Memory can be taken from the guest and given back (dynamic memory), as `busway ctl SOCKET
    /// balloon` says; with max=4G, up to so much can be given to a guest that started with less
    /// (--memory), in blocks of 128 MiB. Linux uses those at once only with memhp_default_state=online
    /// on its command line
    #[arg(
        long,
        value_name = "max=SIZE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    pub balloon: Option<String>,

    /// A screen, and who sees it: whoever connects by VNC, without a password, so give an address
    /// of this machine's own (add --keyboard --mouse for its keys and pointer); or a file, which
    /// gets the last picture when the machine ends. `busway ctl SOCKET screenshot` takes one at any
    /// time [default: none; size=1024x768]
    #[arg(long, value_name = "none|vnc=ADDRESS:PORT|png=PATH[,size=WxH]")]
    pub display: Option<String>,

    /// Let the guest hibernate, by ACPI's S4: it saves itself on its swap disk, switches off, and goes on
    /// in the next run with the same flags. Linux has no balloon then: --balloon moves nothing
    #[arg(long)]
    pub hibernation: bool,

    /// A keyboard, which `busway ctl SOCKET type` types on
    #[arg(long)]
    pub keyboard: bool,

    /// A mouse with an absolute position, which `busway ctl SOCKET point` moves
    #[arg(long)]
    pub mouse: bool,

    /// A channel of any class, whose packets come and go over a unix socket (SOCK_SEQPACKET); for
    /// who writes its driver, or its device. With monitor, it is for a driver in user space that
    /// signals by its monitor page (uio_hv_generic, DPDK). May be repeated
    #[arg(long, value_name = "GUID[,pipe][,monitor][,unix=PATH]")]
    pub raw: Vec<String>,

    /// Record what passes between guest and host (messages, packets, interrupts, hypercalls) in a
    /// pcapng file, for `busway decode` and Wireshark; with pages, the data of disks and networks
    /// too
    #[arg(long, value_name = "FILE[,snap=BYTES][,pages]")]
    pub capture: Option<String>,

    /// Misbehave as a script says: packets, messages and interrupts that are lost, late, doubled or
    /// wrong (docs/faults.md)
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,

    /// What the random numbers of --faults start from, to repeat a run [default: what the script
    /// says, or chance]
    #[arg(long, value_name = "N")]
    pub fault_seed: Option<String>,
    /// Report what the guest does that Hyper-V or its documents forbid and busway lets pass
    /// (docs/strict.md): in the log, and in a table at the end; with fail, a guest of which there
    /// is anything to report has failed at its end
    #[arg(
        long,
        value_name = "warn|fail",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "warn"
    )]
    pub strict: Option<String>,

    /// After SIGTERM, give the guest so many seconds to switch itself off; a second signal, or 0,
    /// pulls the plug at once [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub grace: Option<String>,

    /// Give up on a guest that shows no progress for so many seconds: nothing on its serial port, no packet
    /// of its disks, cards and sockets. In a smoke test, the seconds that all of it may take [default there:
    /// 120]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<String>,

    /// After a guest's panic has been reported: end with status 1, or let the guest go on (to
    /// save a crash dump) [default: exit]
    #[arg(long, value_name = "exit|wait")]
    pub on_panic: Option<String>,

    /// End when the guest reboots, instead of starting it again
    #[arg(long)]
    pub no_reboot: bool,

    /// Take the machine from a JSON file
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,

    /// Write KVM's counters of the run (exits by kind, ...) to a JSON file when it ends
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,

    /// Print the machine as JSON, checked, and do not start it
    #[arg(long)]
    pub print_spec: bool,

    /// KVM's device
    #[arg(long, value_name = "FILE", default_value = "/dev/kvm")]
    pub kvm: PathBuf,
}

/// What `check` looks at.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// KVM's device
    #[arg(long, value_name = "FILE", default_value = "/dev/kvm")]
    pub kvm: PathBuf,

    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// What is asked of a machine, and where it listens.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// The socket that `busway run --control` names
    #[arg(value_name = "SOCKET")]
    pub socket: PathBuf,

    /// What to do
    #[command(subcommand)]
    pub task: Task,

    /// Print what the machine says as it is: a JSON object a line
    #[arg(long, global = true)]
    pub json: bool,
}

/// A request, or a few.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// A request of its own.
    #[command(flatten)]
    Request(Request),
    /// Run a command while the guest's file systems stand still, whole on their disks; let them go on
    /// afterwards, whatever happens
    Backup {
        /// Let them go on after so many seconds, even if the command still runs
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        seconds: u64,
        /// The command, such as: cp --sparse=always disk.img copy.img
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

impl RunArgs {
    /// The machine that flags and file describe together, unchecked.
    pub fn to_spec(&self) -> Result<VmSpec, SpecError> {
        let mut spec = match &self.spec {
            Some(path) => VmSpec::read(path)?,
            None => VmSpec::named(self.kernel.clone().ok_or(SpecError::NoKernel)?),
        };
        if let Some(kernel) = &self.kernel {
            spec.kernel.clone_from(kernel);
        }
        if self.initrd.is_some() {
            spec.initrd.clone_from(&self.initrd);
        }
        if self.cmdline.is_some() {
            spec.cmdline.clone_from(&self.cmdline);
        }
        set("cpus", &self.cpus, &mut spec.cpus)?;
        set("memory", &self.memory, &mut spec.memory)?;
        set("hyperv", &self.hyperv, &mut spec.hyperv)?;
        self.versions.apply(&mut spec.versions)?;
        set("serial", &self.serial, &mut spec.serial)?;
        set("on-panic", &self.on_panic, &mut spec.on_panic)?;
        set("integration", &self.integration, &mut spec.integration)?;
        set("display", &self.display, &mut spec.display)?;
        set("grace", &self.grace, &mut spec.grace)?;
        if self.control.is_some() {
            spec.control.clone_from(&self.control);
        }
        if self.vsock.is_some() {
            spec.vsock.clone_from(&self.vsock);
        }
        if let Some(capture) = &self.capture {
            spec.capture = Some(parse("capture", capture)?);
        }
        self.set_faults(&mut spec)?;
        if let Some(strict) = &self.strict {
            spec.strict = Some(parse("strict", strict)?);
        }
        let mut timeout = 0_u64;
        set("timeout", &self.timeout, &mut timeout)?;
        if self.timeout.is_some() {
            spec.timeout = Some(timeout);
        }
        spec.dvds.extend_from_slice(&self.dvd);
        for disk in &self.disk {
            spec.disks.push(parse("disk", disk)?);
        }
        for net in &self.net {
            spec.nets.push(parse("net", net)?);
        }
        if let Some(balloon) = &self.balloon {
            spec.balloon = true;
            if let Some(max) = balloon_max(balloon)? {
                spec.max_memory = Some(max);
            }
        }
        spec.hibernation |= self.hibernation;
        spec.keyboard |= self.keyboard;
        spec.mouse |= self.mouse;
        for raw in &self.raw {
            spec.raw.push(parse("raw", raw)?);
        }
        if self.no_reboot {
            spec.on_reset = OnReset::Exit;
        }
        Ok(spec)
    }

    fn set_faults(&self, spec: &mut VmSpec) -> Result<(), SpecError> {
        if let Some(file) = &self.faults {
            spec.faults = Some(FaultsSpec { file: file.clone(), seed: None });
        }
        if let Some(text) = &self.fault_seed {
            let wrong = |reason: &str| SpecError::Value {
                flag: "fault-seed",
                value: text.clone(),
                reason: ValueError(reason.to_owned()),
            };
            let seed = text.parse().map_err(|_| wrong("give a number"))?;
            let faults = spec.faults.as_mut();
            faults.ok_or_else(|| wrong("give a script by --faults"))?.seed = Some(seed);
        }
        Ok(())
    }
}

/// What a flag's text may become.
trait Value: Sized {
    fn from_text(text: &str) -> Result<Self, ValueError>;
}

impl Value for u32 {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| ValueError("give a number".to_owned()))
    }
}

impl Value for u64 {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        text.parse().map_err(|_| ValueError("give a number of seconds".to_owned()))
    }
}

impl Value for OnPanic {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        match text {
            "exit" => Ok(Self::Exit),
            "wait" => Ok(Self::Wait),
            _ => Err(ValueError("give exit or wait".to_owned())),
        }
    }
}

impl Value for HypervSpec {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        match text {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "userspace" => Ok(Self::Userspace),
            _ => Err(ValueError("give auto, kvm or userspace".to_owned())),
        }
    }
}

macro_rules! value_by_from_str {
    ($($type:ty),*) => { $(
        impl Value for $type {
            fn from_text(text: &str) -> Result<Self, ValueError> {
                text.parse()
            }
        }
    )* };
}

value_by_from_str!(
    crate::spec::Size,
    crate::spec::CaptureSpec,
    crate::spec::SerialSpec,
    crate::spec::DiskSpec,
    crate::spec::DisplaySpec,
    crate::spec::IntegrationSpec,
    crate::spec::NetSpec,
    crate::spec::RawSpec,
    crate::spec::Strictness
);

/// What `--balloon` says, if it says anything: `max=SIZE`.
fn balloon_max(text: &str) -> Result<Option<crate::spec::Size>, SpecError> {
    match text.strip_prefix("max=") {
        Some(max) => parse("balloon", max).map(Some),
        None if text.is_empty() => Ok(None),
        None => {
            let reason = ValueError("give max=4G, or nothing".to_owned());
            Err(SpecError::Value { flag: "balloon", value: text.to_owned(), reason })
        }
    }
}

fn parse<T: Value>(flag: &'static str, text: &str) -> Result<T, SpecError> {
    T::from_text(text).map_err(|reason| SpecError::Value { flag, value: text.to_owned(), reason })
}

fn set<T: Value>(
    flag: &'static str,
    text: &Option<String>,
    value: &mut T,
) -> Result<(), SpecError> {
    if let Some(text) = text {
        *value = parse(flag, text)?;
    }
    Ok(())
}
