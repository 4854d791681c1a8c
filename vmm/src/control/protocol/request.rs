// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a client asks for.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

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
    /// Let so much through in a second from now on, as --disk FILE,iops=N,bps=SIZE does; without a
    /// number, as much as there is
    Rate {
        /// The disk: its number (LUN; 1:3 is 3 on controller 1), its serial number, or its
        /// file as it was given
        unit: String,
        /// Requests a second
        #[arg(long, value_name = "N")]
        #[serde(default)]
        iops: Option<NonZeroU64>,
        /// Bytes a second, such as 10M
        #[arg(long, value_name = "SIZE")]
        #[serde(default)]
        bps: Option<Size>,
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
