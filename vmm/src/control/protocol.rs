// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every line of the control socket.
//!
//! A client sends a [`Request`] a line. Each is followed by any number of [`Line::Event`] and then
//! by one [`Line::Done`] or [`Line::Failed`].
//!
//! ```text
//! {"command":"shutdown","action":"reboot","force":false}
//! {"done":{"reply":"nothing"}}
//! {"command":"shutdown","action":"hibernate","force":false}
//! {"failed":"the guest refuses: FAIL"}
//! ```

use std::fmt;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use super::rings::Rings;
use crate::disks::Place;
use crate::spec::{DiskSpec, NetSpec, Size};

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Say which services the guest has taken up, and whether it is alive
    Status,
    /// Say which channels are open, where their interrupts go, and how full their rings are
    Channels,
    /// Say what has gone over each open channel. Requests are timed for a minute from then on, for
    /// who asks again
    Counters,
    /// Show the two rings of an open channel, and the packets in them
    Ring {
        /// The channel: the guest's number of it (relid), as `channels` has it
        relid: u32,
    },
    /// Ask the guest to switch off, to start over, or to hibernate
    Shutdown {
        /// What to ask for
        #[arg(default_value = "power-off")]
        #[serde(default)]
        action: Action,
        /// Tell the guest not to listen to programs that object
        #[arg(long)]
        #[serde(default)]
        force: bool,
    },
    /// Have the machine stand still: no vCPU runs, and no time passes for the guest
    Pause,
    /// Let the machine go on, and have done again what waits on its disks since the host failed (--disk
    /// FILE,werror=stop); the guest sets its clock to the host's time
    Resume,
    /// Have the guest set its clock to the host's time now
    SetTime,
    /// Read and write key-value pairs: what the guest says of itself, and what it is told
    #[command(subcommand)]
    Kvp(Kvp),
    /// Freeze the guest's file systems until [`Request::Thaw`] comes on the same connection, or that
    /// ends, or the time is over. Programs only; people have `busway ctl SOCKET backup`.
    #[command(skip)]
    Freeze {
        /// Seconds after which the guest goes on by itself.
        #[serde(default = "default_frozen")]
        seconds: u64,
    },
    /// Let them go on.
    #[command(skip)]
    Thaw,
    /// Say how much memory the guest has, and how much it should have
    Balloon {
        /// Take memory from the guest, or give it back, until it has so much, such as 1G
        memory: Option<Size>,
    },
    /// Write what the guest shows on its screen into a PNG file
    Screenshot {
        /// The file [default: the one of --display png=PATH]
        file: Option<PathBuf>,
    },
    /// Type a text on the keyboard
    Type {
        /// The text; a line's end is the Enter key
        text: String,
    },
    /// Put the mouse's pointer somewhere
    Point {
        /// From the left, 0 to 32767
        x: u16,
        /// From the top, 0 to 32767
        y: u16,
        /// Buttons that are down: 1 the left one, 2 the right, 4 the middle, added
        #[arg(long, default_value_t = 0)]
        #[serde(default)]
        buttons: u8,
        /// Steps of the wheel, away from the user
        #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
        #[serde(default)]
        wheel: i8,
    },
    /// Pull a network card's cable, put it back, or say that it leads elsewhere now
    Link {
        /// The card: its address, or its network as --net has it, such as tap=tap0
        nic: String,
        /// What becomes of it
        state: LinkState,
    },
    /// Have the host do things wrong by a script while the guest runs, or right again
    #[command(subcommand)]
    Fault(FaultTask),
    /// Add and remove network cards, and say which there are
    #[command(subcommand)]
    Net(NetTask),
    /// Add, remove and enlarge disks, and say which there are
    #[command(subcommand)]
    Disk(DiskTask),
    /// Take the disc out of a DVD drive, and put another in
    #[command(subcommand)]
    Dvd(DvdTask),
    /// Copy a file of this machine into the guest
    Copy {
        /// The file
        file: PathBuf,
        /// Where in the guest: a path, or a directory that ends in /
        target: String,
        /// Replace a file that is there
        #[arg(long)]
        #[serde(default)]
        overwrite: bool,
        /// Make the directories to it
        #[arg(long)]
        #[serde(default)]
        create_path: bool,
    },
}

fn default_frozen() -> u64 {
    60
}

/// What can be done with faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "operation", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FaultTask {
    /// Say which rules there are, and how often each has fired
    List,
    /// Add the rules of a script, on open channels too; their time begins now
    Add {
        /// The script, as --faults has it
        file: PathBuf,
        /// What random numbers start from [default: what the script says, or chance]
        #[arg(long)]
        #[serde(default)]
        seed: Option<u64>,
    },
    /// Take all rules away, those of --faults too: what was delayed is sent at once
    Clear,
}

/// What can be done with network cards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "operation", rename_all = "kebab-case", deny_unknown_fields)]
pub enum NetTask {
    /// Say which cards there are, and whether their cables are in
    List,
    /// Add a card; the guest finds it by itself
    Add {
        /// The card, as --net has it
        #[arg(value_name = "NETWORK[,OPTIONS]")]
        net: NetSpec,
    },
    /// Pull a card's cable, and take the card away when the guest has had time to notice
    Remove {
        /// The card: its address, or its network as --net has it, such as tap=tap0
        nic: String,
    },
}

/// What can be done with disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "operation", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DiskTask {
    /// Say which disks and drives there are
    List,
    /// Add a disk; the guest finds it by itself
    Add {
        /// The disk, as --disk has it
        #[arg(value_name = "FILE[,OPTIONS]")]
        disk: DiskSpec,
    },
    /// Take a disk away: what is under way ends first, and its file is free afterwards
    Remove {
        /// The disk: its number (LUN; 1:3 is 3 on controller 1), its serial number, or its
        /// file as it was given
        unit: String,
    },
    /// Do again what waits on disks since the host failed (--disk FILE,werror=wait); what fails once
    /// more waits once more
    Resume,
    /// Enlarge a disk (raw images only); the guest sees it by itself
    Resize {
        /// The disk: its number (LUN; 1:3 is 3 on controller 1), its serial number, or its
        /// file as it was given
        unit: String,
        /// What its image is to have, such as 20G [default: what it has by now]
        #[serde(default)]
        size: Option<Size>,
    },
}

/// What can be done with the disc of a drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "operation", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DvdTask {
    /// Take the disc out
    Eject {
        /// The drive: its number or its serial number [default: the only one]
        #[serde(default)]
        unit: Option<String>,
        /// Take it even if the guest has locked it in, which is what it does while it is mounted
        #[arg(long)]
        #[serde(default)]
        force: bool,
    },
    /// Put a disc into a drive that is empty, or whose tray the guest has opened
    Insert {
        /// The disc's image
        file: PathBuf,
        /// The drive: its number or its serial number [default: the only one]
        #[serde(default)]
        unit: Option<String>,
    },
}

/// What can be done with pairs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "operation", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kvp {
    /// All pairs of a pool
    List {
        /// The pool
        #[arg(default_value = "auto")]
        pool: Pool,
    },
    /// The value of a key
    Get {
        /// The pool
        pool: Pool,
        /// The key
        key: String,
    },
    /// Keep a value under a key
    Set {
        /// The pool
        pool: Pool,
        /// The key
        key: String,
        /// The value, as text
        value: String,
    },
    /// Forget a key
    Delete {
        /// The pool
        pool: Pool,
        /// The key
        key: String,
    },
    /// The addresses of a network card
    Addresses {
        /// The card's own address, such as 00:15:5d:12:34:56
        mac: String,
    },
    /// Give a network card addresses
    SetAddresses {
        /// The card: its instance GUID, as in /sys/bus/vmbus/devices of the guest
        adapter: String,
        /// The addresses
        #[command(flatten)]
        #[serde(flatten)]
        addresses: Addresses,
    },
}

/// Where a pair is kept, and by whom it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// By the host, for programs of the guest
    External,
    /// By programs of the guest, for the host
    Guest,
    /// By the guest's daemon: its names, versions and addresses
    Auto,
    /// By the host: its own names
    AutoExternal,
    /// By the guest, for itself
    AutoInternal,
}

/// Addresses of a network card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(default)]
pub struct Addresses {
    /// They come by DHCP
    #[arg(long)]
    pub dhcp: bool,
    /// An address; may be repeated
    #[arg(long = "address", value_name = "IP")]
    pub addresses: Vec<String>,
    /// The mask of each, dotted or the length of a prefix
    #[arg(long = "mask", value_name = "MASK")]
    pub masks: Vec<String>,
    /// A gateway; may be repeated
    #[arg(long = "gateway", value_name = "IP")]
    pub gateways: Vec<String>,
    /// A name server; may be repeated
    #[arg(long = "name-server", value_name = "IP")]
    pub name_servers: Vec<String>,
}

/// What a guest can be asked to do with itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Switch off
    #[default]
    PowerOff,
    /// Start over
    Reboot,
    /// Save everything on a disk and switch off
    Hibernate,
}

/// What becomes of a card's cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// It is put in, or stays there
    Up,
    /// It is pulled: no frame passes
    Down,
    /// It leads elsewhere: the guest should ask for its addresses anew
    Changed,
}

/// What the machine says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The request is done.
    Done(Reply),
    /// It is not, and why.
    Failed(String),
    /// Something happens on the way.
    Event(Event),
}

/// The end of a request that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// There is nothing to say.
    Nothing,
    /// How the machine and its guest are.
    Status(Status),
    /// What has become of the machine.
    Machine {
        /// It stands still.
        paused: bool,
    },
    /// Pairs, of a list or the one asked for.
    Pairs {
        /// The pairs, in the guest's order.
        pairs: Vec<Pair>,
    },
    /// The addresses asked for.
    Addresses(Addresses),
    /// Network cards: all, or the one that the request was about.
    Nets {
        /// They, in the order in which they came.
        cards: Vec<Card>,
    },
    /// Disks and drives: all, or the one that the request was about.
    Disks {
        /// They, by their numbers.
        disks: Vec<DiskState>,
    },
    /// A picture was written.
    Screenshot {
        /// Where.
        file: PathBuf,
        /// Pixels of a line.
        width: u32,
        /// Lines.
        height: u32,
    },
    /// The open channels.
    Channels {
        /// By their numbers.
        channels: Vec<ChannelState>,
    },
    /// The same, for who asks what has gone over them.
    Counters {
        /// By their numbers.
        channels: Vec<ChannelState>,
    },
    /// What goes wrong: all rules, or those that were added.
    Faults {
        /// The rules that are asked, in order.
        rules: Vec<FaultRule>,
    },
    /// The rings of a channel.
    Ring(Box<Rings>),
    /// The guest's memory, in bytes.
    Balloon {
        /// A driver of the guest lends pages.
        ready: bool,
        /// What it should have.
        target: u64,
        /// What it has.
        memory: u64,
        /// What it could spare, as it last said.
        available: u64,
        /// What it has promised its programs, as it last said.
        committed: u64,
        /// Why it does not have what it should, if it does no more for that.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        shortfall: Option<Shortfall>,
    },
}

/// What a guest does not do for the memory that it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shortfall {
    /// It has no more to lend.
    LendsNoMore,
    /// It takes no new memory.
    TakesNoMore,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// The value, as text.
    pub value: String,
}

/// An open channel, and what has gone over it since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    /// Its number, as captures have it.
    pub number: u32,
    /// 0 for a primary channel.
    pub subchannel: u16,
    /// The device's name, or its class.
    pub device: String,
    /// Which device.
    pub instance: String,
    /// The VP that was to be interrupted when the channel was opened.
    pub vp: Option<u32>,
    /// The guest's number of it.
    pub relid: Option<u16>,
    /// Bytes that the guest's ring holds.
    pub incoming_len: u32,
    /// Bytes that stood in it when that was last looked at.
    pub incoming_used: u32,
    /// Bytes that the host's ring holds.
    pub outgoing_len: u32,
    /// Bytes that stood in it when that was last looked at.
    pub outgoing_used: u32,
    /// Packets from the guest.
    pub packets_in: u64,
    /// Bytes of them.
    pub bytes_in: u64,
    /// Packets to the guest.
    pub packets_out: u64,
    /// Bytes of them.
    pub bytes_out: u64,
    /// Times that the rings were shown to the guest.
    pub batches: u64,
    /// Times that it had to be interrupted then.
    pub interrupts: u64,
    /// Times that it got packets without an interrupt: it was still reading, or
    pub spared: u64,
    /// of these, it had masked interrupts.
    pub masked: u64,
    /// How long its requests took, while somebody asked for counters again and again.
    #[serde(default)]
    pub latency: Latency,
}

/// How long a guest's requests took: from when the host took them out of the ring to its answer.
/// Measured for a minute after counters were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub requests: u64,
    /// Nanoseconds of all together.
    pub total_ns: u64,
    /// Nanoseconds of the one that took longest.
    pub longest_ns: u64,
    /// How many took less than 1 us, 2 us, 4 us and so on, each counted once; the last has all that
    /// took longer.
    pub buckets: Vec<u64>,
}

impl Latency {
    /// Adds what a channel has measured.
    pub fn add(&mut self, measured: &busway_vmbus::Latency) {
        let busway_vmbus::Latency { requests, total, longest, buckets } = measured;
        self.requests += requests;
        self.total_ns = self.total_ns.saturating_add(*total);
        self.longest_ns = self.longest_ns.max(*longest);
        self.buckets.resize(buckets.len(), 0);
        for (sum, count) in self.buckets.iter_mut().zip(buckets) {
            *sum += u64::from(*count);
        }
    }

    /// What was measured since `before`, but for the longest.
    pub fn since(&self, before: &Self) -> Self {
        let before_in = |at: usize| before.buckets.get(at).copied().unwrap_or_default();
        let buckets = self.buckets.iter().enumerate();
        Self {
            requests: self.requests.saturating_sub(before.requests),
            total_ns: self.total_ns.saturating_sub(before.total_ns),
            longest_ns: self.longest_ns,
            buckets: buckets.map(|(at, count)| count.saturating_sub(before_in(at))).collect(),
        }
    }

    /// Microseconds on average; `None` if nothing was measured.
    pub fn mean_us(&self) -> Option<u64> {
        (self.total_ns / 1000).checked_div(self.requests)
    }

    /// Microseconds that 99 of 100 do not reach, as a power of two.
    pub fn most_us(&self) -> Option<u64> {
        let (all, mut so_far) = (self.buckets.iter().sum::<u64>(), 0);
        let bucket = self.buckets.iter().position(|count| {
            so_far += count;
            so_far != 0 && so_far * 100 >= all * 99
        })?;
        Some(1 << bucket)
    }
}

impl ChannelState {
    /// The device, and which of its channels.
    pub fn name(&self) -> String {
        match self.subchannel {
            0 => self.device.clone(),
            index => format!("{}.{index}", self.device),
        }
    }
}

/// A rule of a script of faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultRule {
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: String,
    /// What its random numbers started from.
    pub seed: u64,
    /// How often it has fired.
    pub fired: u64,
}

/// A disk, or a drive of discs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskState {
    /// The controller that it is on.
    #[serde(default)]
    pub controller: u8,
    /// Its number there (LUN).
    pub unit: u8,
    /// It is a drive of discs.
    pub drive: bool,
    /// Its serial number.
    pub serial: String,
    /// Bytes of the disk, or of the disc.
    pub bytes: u64,
    /// The image; none in a drive without a disc.
    pub file: Option<String>,
    /// Requests that the host could not do, and that wait for `resume` or `disk resume`.
    #[serde(default)]
    pub waiting: u32,
    /// Requests that have waited because of `iops=` and `bps=` until now.
    #[serde(default)]
    pub delayed: u64,
}

/// How the machine and its guest are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The machine stands still.
    #[serde(default)]
    pub paused: bool,
    /// Each service that the guest is offered, and how far the two have come.
    pub services: Vec<Service>,
    /// Its network cards.
    #[serde(default)]
    pub cards: Vec<Card>,
    /// What the heartbeat says; none before its service is ready.
    pub heartbeat: Option<Heartbeat>,
    /// Times that the guest was told since its driver came.
    pub time_samples: u64,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name in `--integration`.
    pub name: String,
    /// The guest can be asked.
    pub ready: bool,
    /// The version of its messages, or what is missing.
    pub state: String,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its network, as `--net` said it.
    pub network: String,
    /// Its own address.
    pub mac: String,
    /// Its cable is in.
    pub link_up: bool,
}

/// A guest's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// It has answered the last beat.
    pub alive: bool,
    /// Beats answered since its driver came.
    pub answered: u64,
    /// Beats missed since the last that was answered.
    pub missed: u64,
    /// When it answered last, in milliseconds since 1970; 0 for never.
    pub last_ms: u64,
}

/// What happens while a request is worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// So much of it is done.
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        of: u64,
    },
}

fn print_channels(f: &mut fmt::Formatter<'_>, channels: &[ChannelState]) -> fmt::Result {
    let (ch, device, vp, relid) = ("ch", "device", "vp", "relid");
    writeln!(f, "{ch:>3} {device:<12} {vp:>3} {relid:>5}  guest's ring, host's ring; instance")?;
    for state in channels {
        let number = |number: Option<u32>| number.map_or("-".to_owned(), |it| it.to_string());
        let (vp, relid) = (number(state.vp), number(state.relid.map(u32::from)));
        write!(f, "{:>3} {:<12} {vp:>3} {relid:>5}", state.number, state.name())?;
        write!(f, "  {} of {} B,", state.incoming_used, state.incoming_len)?;
        write!(f, " {} of {} B;", state.outgoing_used, state.outgoing_len)?;
        writeln!(f, " {}", state.instance)?;
    }
    Ok(())
}

fn print_counters(f: &mut fmt::Formatter<'_>, channels: &[ChannelState]) -> fmt::Result {
    for state in channels {
        let ChannelState { packets_in, bytes_in, packets_out, bytes_out, .. } = state;
        let ChannelState { interrupts, spared, masked, batches, .. } = state;
        write!(f, "{:>3} {:<12} ", state.number, state.name())?;
        write!(f, "in {packets_in} packets, {bytes_in} B; out {packets_out} packets, ")?;
        write!(f, "{bytes_out} B; {batches} batches, {interrupts} interrupts, ")?;
        write!(f, "{spared} times none for packets ({masked} masked)")?;
        let latency = &state.latency;
        if let (Some(mean), Some(most)) = (latency.mean_us(), latency.most_us()) {
            let (requests, longest) = (latency.requests, latency.longest_ns / 1000);
            write!(f, "; {requests} requests took {mean} us on average, ")?;
            write!(f, "99 % less than {most} us, the longest {longest} us")?;
        }
        writeln!(f)?;
    }
    Ok(())
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Status(status) => status.fmt(f),
            Self::Machine { paused: true } => writeln!(f, "the machine is paused"),
            Self::Machine { paused: false } => writeln!(f, "the machine runs"),
            Self::Pairs { pairs } => {
                pairs.iter().try_for_each(|Pair { key, value }| writeln!(f, "{key:<28} {value}"))
            }
            Self::Addresses(addresses) => addresses.fmt(f),
            Self::Screenshot { file, width, height } => {
                writeln!(f, "{} ({width}x{height})", file.display())
            }
            Self::Nets { cards } => cards.iter().try_for_each(|card| write!(f, "{card}")),
            Self::Disks { disks } => disks.iter().try_for_each(|disk| write!(f, "{disk}")),
            Self::Channels { channels } => print_channels(f, channels),
            Self::Faults { rules } => rules.iter().try_for_each(|rule| write!(f, "{rule}")),
            Self::Ring(rings) => rings.fmt(f),
            Self::Counters { channels } => print_counters(f, channels),
            Self::Balloon { ready, target, memory, available, committed, shortfall } => {
                let mib = |bytes: u64| bytes >> 20;
                let why = match shortfall {
                    None => "",
                    Some(Shortfall::LendsNoMore) => "; the guest has no more to spare",
                    Some(Shortfall::TakesNoMore) => "; the guest takes no new memory",
                };
                let [memory, target] = [memory, target].map(|bytes| mib(*bytes));
                writeln!(f, "{:<12} {}", "driver", if *ready { "ready" } else { "none" })?;
                writeln!(f, "{:<12} {memory} MiB of {target} MiB wanted{why}", "memory")?;
                writeln!(f, "{:<12} {} MiB", "to spare", mib(*available))?;
                writeln!(f, "{:<12} {} MiB", "promised", mib(*committed))
            }
        }
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, mac, link_up } = self;
        let link = if *link_up { "up" } else { "down" };
        writeln!(f, "{network:<12} card {mac}, link {link}")
    }
}

impl fmt::Display for FaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, action, seed, fired } = self;
        writeln!(f, "{name:<24} {action:<14} fired {fired} times, seed {seed}")
    }
}

impl fmt::Display for DiskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { controller, unit, drive, serial, bytes, file, waiting, delayed } = self;
        let place = Place { controller: *controller, lun: *unit }.to_string();
        let kind = if *drive { "drive" } else { "disk" };
        let file = file.as_deref().unwrap_or("no disc");
        write!(f, "{place:>5} {kind:<5} {serial:<16} {bytes:>14} B  {file}")?;
        match delayed {
            0 => {}
            _ => write!(f, ", its limits have delayed {delayed} requests")?,
        }
        match waiting {
            0 => writeln!(f),
            _ => writeln!(f, ", {waiting} requests wait for 'resume'"),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.paused {
            writeln!(f, "{:<12} paused", "machine")?;
        }
        for Service { name, state, .. } in &self.services {
            writeln!(f, "{name:<12} {state}")?;
        }
        for card in &self.cards {
            write!(f, "{card}")?;
        }
        if let Some(Heartbeat { alive, answered, missed, .. }) = &self.heartbeat {
            let state = if *alive { "alive" } else { "silent" };
            writeln!(f, "{:<12} {state}: {answered} beats answered, {missed} missed", "guest")?;
        }
        Ok(())
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<12} {}", "dhcp", if self.dhcp { "yes" } else { "no" })?;
        for (name, values) in [
            ("addresses", &self.addresses),
            ("masks", &self.masks),
            ("gateways", &self.gateways),
            ("name servers", &self.name_servers),
        ] {
            writeln!(f, "{name:<12} {}", values.join(" "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Progress { done, of } => write!(f, "{done} of {of} B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: Serialize>(value: &T) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn lines_are_what_the_description_shows() {
        let request = Request::Shutdown { action: Action::Reboot, force: false };
        assert_eq!(text(&request), r#"{"command":"shutdown","action":"reboot","force":false}"#);
        assert_eq!(text(&Line::Done(Reply::Nothing)), r#"{"done":{"reply":"nothing"}}"#);
        assert_eq!(text(&Line::Failed("no".to_owned())), r#"{"failed":"no"}"#);
        let progress = Line::Event(Event::Progress { done: 1, of: 2 });
        assert_eq!(text(&progress), r#"{"event":{"event":"progress","done":1,"of":2}}"#);
    }

    #[test]
    fn a_request_needs_to_say_no_more_than_it_means() {
        let request: Request = serde_json::from_str(r#"{"command":"shutdown"}"#).unwrap();
        assert_eq!(request, Request::Shutdown { action: Action::PowerOff, force: false });
        let text = r#"{"command":"kvp","operation":"get","pool":"auto","key":"OSVersion"}"#;
        let (pool, key) = (Pool::Auto, "OSVersion".to_owned());
        let request: Request = serde_json::from_str(text).unwrap();
        assert_eq!(request, Request::Kvp(Kvp::Get { pool, key }));
        let text = r#"{"command":"disk","operation":"add","disk":{"file":"a.img"}}"#;
        let disk = "a.img".parse().unwrap();
        let request: Request = serde_json::from_str(text).unwrap();
        assert_eq!(request, Request::Disk(DiskTask::Add { disk }));
        let text = r#"{"command":"disk","operation":"resize","unit":"0"}"#;
        let request: Request = serde_json::from_str(text).unwrap();
        let unit = "0".to_owned();
        assert_eq!(request, Request::Disk(DiskTask::Resize { unit, size: None }));
        for wrong in [r#"{"command":"explode"}"#, r#"{"command":"shutdown","now":1}"#, "[]"] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }
}
