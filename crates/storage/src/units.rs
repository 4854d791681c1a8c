// SPDX-License-Identifier: MIT OR Apache-2.0

//! Units that come, go, grow and change their discs while the guest uses them.
//!
//! ```text
//!   user ─▶ Units ─▶ the next table ─▶ bell of each channel ─▶ uses it, lets go of what is not in it
//!             │                                                     │
//!             ◀──────────────── all of them do ◀────────────────────┘
//!             └─▶ ENUMERATE_BUS: the guest tests the units that it knows, and looks for others
//! ```
//!
//! A unit that has gone finishes what it has under way, and answers nothing new; its image is made
//! durable and unlocked before the user is told. Only then may another take its place.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use busway_block::{Disk, RateLimit, ResizeError};

use crate::dvd::Tray;
use crate::luns::{LogicalUnit, LunError, Luns, PLACES};
use crate::shared::Shared;

/// How long requests that are under way may hold up whoever changes the units.
const PATIENCE: Duration = Duration::from_secs(10);

/// Units cannot be changed like that.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// All places are taken.
    #[error("the controller has 255 units, and no guest looks for more: remove one")]
    Full,
    /// There is none.
    #[error("the controller has no unit {lun}")]
    NoUnit {
        /// Where.
        lun: u8,
    },
    /// It would be there twice.
    #[error(transparent)]
    Place(#[from] LunError),
    /// It is of the other kind.
    #[error("unit {lun} is no {wanted}")]
    Kind {
        /// Where.
        lun: u8,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// Requests do not end.
    #[error(
        "requests on unit {lun} are still under way: its image is let go of when they have ended"
    )]
    Busy {
        /// Where.
        lun: u8,
    },
    /// Requests on a unit that has gone do not end.
    #[error("requests on a unit that has gone are still under way: wait until they have ended")]
    Unfinished,
    /// The guest uses the disc.
    #[error(
        "the guest has locked the disc into unit {lun}, and has been asked to let go of it: \
         try again, or take it away by --force"
    )]
    Locked {
        /// Where.
        lun: u8,
    },
    /// There is none in the drive.
    #[error("there is no disc in unit {lun}")]
    NoDisc {
        /// Where.
        lun: u8,
    },
    /// There is one in the drive.
    #[error("there is a disc in unit {lun}: eject it first")]
    HasDisc {
        /// Where.
        lun: u8,
    },
    /// It cannot have that size.
    #[error(transparent)]
    Resize(#[from] ResizeError),
    /// What was written last may not be on it.
    #[error("unit {lun} has gone, and may have lost what was written last")]
    Flush {
        /// Where.
        lun: u8,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// How long the end of an earlier change, or a channel that is being opened, is waited for.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// A unit as it is now.
#[derive(Clone, Debug)]
pub struct UnitState {
    /// Its number.
    pub lun: u8,
    /// A drive, whose disc may be missing.
    pub is_drive: bool,
    /// Its serial number.
    pub serial: String,
    /// The disk, or the disc.
    pub medium: Option<Disk>,
    /// Its requests that wait for the user after an error of the host.
    pub waiting: u32,
}

/// The units of a controller, for who changes them. Clones do the same.
#[derive(Clone, Debug)]
pub struct Units {
    shared: Arc<Shared>,
}

impl Units {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// All units, in order.
    pub fn list(&self) -> Vec<UnitState> {
        let table = self.shared.table();
        let state = |(lun, unit): (u8, &LogicalUnit)| {
            let (is_drive, serial) = match unit {
                LogicalUnit::Disk(disk, _) => (false, &disk.identity().serial),
                LogicalUnit::Drive(_, tray) => (true, &tray.identity.serial),
            };
            let medium = unit.medium().cloned();
            let waiting = self.shared.waiting(usize::from(lun));
            UnitState { lun, is_drive, serial: serial.clone(), medium, waiting }
        };
        table.luns.iter().map(state).collect()
    }

    /// Has all requests done again that wait for the user after an error of the host. What fails again
    /// waits again.
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Makes all that was written durable, and says of which disks it cannot.
    pub fn flush(&self) -> Vec<(String, std::io::Error)> {
        let table = self.shared.table();
        let disks = table.luns.disks().filter(|disk| !disk.is_read_only());
        let failed = |disk: &Disk| Some((disk.name().to_owned(), disk.flush().err()?));
        disks.filter_map(failed).collect()
    }

    /// Adds a disk, and says where. A number that was another unit's before is used last: guests may
    /// not have seen yet that that one is gone.
    pub fn add(&self, disk: Disk) -> Result<u8, PlugError> {
        let mut next = self.begin()?;
        let luns = self.luns();
        let mut places = (0..PLACES).map(|step| ((usize::from(*next) + step) % PLACES) as u8);
        let lun = places.find(|lun| luns.get(*lun).is_none()).ok_or(PlugError::Full)?;
        self.put(lun, disk, luns)?;
        *next = lun + 1;
        Ok(lun)
    }

    /// Adds a disk as the unit `lun`.
    pub fn add_at(&self, lun: u8, disk: Disk) -> Result<(), PlugError> {
        let _changes = self.begin()?;
        self.put(lun, disk, self.luns())
    }

    fn put(&self, lun: u8, disk: Disk, mut luns: Luns) -> Result<(), PlugError> {
        luns.add(lun, LogicalUnit::disk(disk))?;
        self.change(lun, luns)?;
        self.shared.scan();
        Ok(())
    }

    /// Takes a unit away. When this returns, all that was written to it is durable, and its image is
    /// nobody's.
    pub fn remove(&self, lun: u8) -> Result<(), PlugError> {
        let _changes = self.begin()?;
        let mut luns = self.luns();
        let unit = luns.get(lun).cloned().ok_or(PlugError::NoUnit { lun })?;
        luns.set(lun, None);
        let gone = self.change(lun, luns);
        self.shared.scan();
        gone?;
        match unit.medium() {
            Some(disk) if !disk.is_read_only() => {
                disk.flush().map_err(|source| PlugError::Flush { lun, source })
            }
            _ => Ok(()),
        }
    }

    /// Makes a disk longer, or takes its image's length as it has become; returns its bytes. The guest
    /// is told so by its next command, which it is made to send.
    pub fn resize(&self, lun: u8, bytes: Option<u64>) -> Result<u64, PlugError> {
        let _changes = self.begin()?;
        let luns = self.luns();
        let wanted = "disk";
        match luns.get(lun).ok_or(PlugError::NoUnit { lun })? {
            LogicalUnit::Disk(disk, attention) => {
                let before = disk.capacity();
                let capacity = disk.resize(bytes)?;
                if capacity != before {
                    attention.capacity_changed();
                    self.shared.scan();
                }
                Ok(capacity)
            }
            LogicalUnit::Drive(..) => Err(PlugError::Kind { lun, wanted }),
        }
    }

    /// How much may be asked of a disk in a second, from now on.
    pub fn set_rate_limit(&self, lun: u8, limit: RateLimit) -> Result<(), PlugError> {
        match self.luns().get(lun).ok_or(PlugError::NoUnit { lun })? {
            LogicalUnit::Disk(disk, _) => {
                disk.set_rate_limit(limit);
                Ok(())
            }
            LogicalUnit::Drive(..) => Err(PlugError::Kind { lun, wanted: "disk" }),
        }
    }

    /// Takes the disc out of a drive. A guest that has locked it in is asked to let go of it; with
    /// `force` it is taken all the same.
    pub fn eject(&self, lun: u8, force: bool) -> Result<(), PlugError> {
        let _changes = self.begin()?;
        let luns = self.luns();
        let (disc, tray) = drive(&luns, lun)?;
        disc.ok_or(PlugError::NoDisc { lun })?;
        if tray.is_locked() && !force {
            tray.ask_for_disc();
            return Err(PlugError::Locked { lun });
        }
        tray.take_out();
        let gone = self.change(lun, with_drive(luns, lun, None, &tray));
        self.shared.scan();
        gone
    }

    /// Puts a disc, as [`Luns::add_drive`] wants it, into a drive that has none, or has its tray open.
    pub fn insert(&self, lun: u8, disc: Disk) -> Result<(), PlugError> {
        let _changes = self.begin()?;
        let (old, tray) = drive(&self.luns(), lun)?;
        if old.is_some() {
            if !tray.is_open() {
                return Err(PlugError::HasDisc { lun });
            }
            tray.take_out();
            self.change(lun, with_drive(self.luns(), lun, None, &tray))?;
        }
        self.change(lun, with_drive(self.luns(), lun, Some(disc), &tray))?;
        tray.put_in();
        self.shared.scan();
        Ok(())
    }

    /// One change at a time, and none before all channels know the last one.
    fn begin(&self) -> Result<MutexGuard<'_, u8>, PlugError> {
        let changes = self.shared.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.wait_until_current(SHORT_PATIENCE) {
            Ok(changes)
        } else {
            Err(PlugError::Unfinished)
        }
    }

    fn luns(&self) -> Luns {
        (*self.shared.table().luns).clone()
    }

    fn change(&self, lun: u8, luns: Luns) -> Result<(), PlugError> {
        if self.shared.change(luns, PATIENCE) { Ok(()) } else { Err(PlugError::Busy { lun }) }
    }
}

fn drive(luns: &Luns, lun: u8) -> Result<(Option<Disk>, Arc<Tray>), PlugError> {
    let wanted = "drive of discs";
    match luns.get(lun).ok_or(PlugError::NoUnit { lun })? {
        LogicalUnit::Drive(disc, tray) => Ok((disc.clone(), Arc::clone(tray))),
        LogicalUnit::Disk(..) => Err(PlugError::Kind { lun, wanted }),
    }
}

fn with_drive(mut luns: Luns, lun: u8, disc: Option<Disk>, tray: &Arc<Tray>) -> Luns {
    luns.set(lun, Some(LogicalUnit::Drive(disc, Arc::clone(tray))));
    luns
}
