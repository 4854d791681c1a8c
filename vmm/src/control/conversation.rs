// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a client's requests do.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use busway_input::Pointer;
use busway_integration::{self as integration, CopyError, Failure, Frozen, Phase, Target};
use busway_wire::Guid;
use busway_wire::ic::file_copy::StartFlags;
use busway_wire::ic::kvp::{self, Families, Value};
use busway_wire::ic::shutdown::Action as ShutdownAction;
use log::warn;

use super::protocol::{
    Action, Addresses, Event, Heartbeat, Kvp, LinkState, Pair, Pool, Reply, Request, Service,
    Shortfall, Status,
};
use super::{Elastic, Handles, disks, faults, nets, rings};
use crate::spec::Size;

/// Tells the client of an event.
type Tell<'a> = &'a mut dyn FnMut(Event) -> io::Result<()>;

/// Bytes of a file between two lines that say how far it is.
const PROGRESS_STEP: u64 = 1 << 20;

/// One client's requests. What it holds of the guest is given back with it.
pub(super) struct Conversation {
    handles: Handles,
    /// A guest that stands still, and until when.
    frozen: Option<(Frozen, Instant)>,
}

impl Conversation {
    pub(super) fn new(handles: Handles) -> Self {
        Self { handles, frozen: None }
    }

    /// How long the client may be silent.
    pub(super) fn patience(&self) -> Option<Duration> {
        let (_, until) = self.frozen.as_ref()?;
        // Zero would be no limit.
        Some(until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
    }

    /// It was silent for longer.
    pub(super) fn out_of_patience(&mut self) {
        if self.frozen.take().is_some() {
            warn!("nobody has thawed the guest's file systems in time: they go on");
        }
    }

    /// Does what the client asks for.
    pub(super) fn answer(&mut self, request: Request, tell: Tell<'_>) -> Result<Reply, String> {
        match request {
            Request::Status => return Ok(Reply::Status(self.status())),
            Request::Channels => {
                return Ok(Reply::Channels { channels: self.handles.traffic.channels() });
            }
            Request::Counters => {
                self.handles.traffic.look();
                return Ok(Reply::Counters { channels: self.handles.traffic.channels() });
            }
            Request::Ring { relid } => return rings::ring(&self.handles.bus, relid),
            Request::Shutdown { action, force } => self.shutdown(action, force)?,
            Request::Pause => {
                self.handles.pause.pause();
                return Ok(Reply::Machine { paused: true });
            }
            Request::Resume => {
                self.handles.pause.resume(|| self.handles.disks.resume());
                // The guest's clock has stood still.
                self.handles.integration.time.sync();
                return Ok(Reply::Machine { paused: false });
            }
            Request::SetTime => self.handles.integration.time.sync(),
            Request::Kvp(request) => return self.kvp(request),
            Request::Freeze { seconds } => self.freeze(seconds)?,
            Request::Thaw => {
                let (frozen, _) = self.frozen.take().ok_or("nothing is frozen, or not any more")?;
                frozen.thaw().map_err(text)?;
            }
            Request::Balloon { memory } => return self.balloon(memory),
            Request::Screenshot { file } => {
                let display = self.handles.display.as_ref();
                let display =
                    display.ok_or("the machine has no screen: start it with --display")?;
                let shot = display.screenshot(file.as_deref()).map_err(|e| e.to_string())?;
                let (width, height) = shot.size;
                return Ok(Reply::Screenshot { file: shot.file, width, height });
            }
            Request::Type { text } => {
                self.handles.input.type_text(&text).map_err(|error| error.to_string())?;
            }
            Request::Point { x, y, buttons, wheel } => {
                let pointer = Pointer { x, y, buttons, wheel };
                self.handles.input.point(pointer).map_err(|error| error.to_string())?;
            }
            Request::Link { nic, state } => {
                let links = self.handles.nets.links();
                let link = links.find(&nic).map_err(|error| error.to_string())?;
                match state {
                    LinkState::Up => link.control.set_up(true),
                    LinkState::Down => link.control.set_up(false),
                    LinkState::Changed => link.control.network_changed(),
                }
            }
            Request::Fault(task) => return faults::fault(&self.handles, task),
            Request::Net(task) => return nets::net(&self.handles.nets, task),
            Request::Disk(task) => return disks::disk(&self.handles.disks, task),
            Request::Dvd(task) => return disks::dvd(&self.handles.disks, task),
            Request::Copy { file, target, overwrite, create_path } => {
                let mut flags = StartFlags::empty();
                flags.set(StartFlags::OVERWRITE, overwrite);
                flags.set(StartFlags::CREATE_PATH, create_path);
                let target = to(&file, &target, flags)?;
                self.copy(&file, &target, tell)?;
            }
        }
        Ok(Reply::Nothing)
    }

    fn shutdown(&self, action: Action, force: bool) -> Result<(), String> {
        let action = match action {
            Action::PowerOff => ShutdownAction::POWER_OFF,
            Action::Reboot => ShutdownAction::REBOOT,
            Action::Hibernate => ShutdownAction::HIBERNATE,
        };
        let action = ShutdownAction(action.0 | u32::from(force));
        self.handles.integration.shutdown.ask(action).map_err(text)
    }

    fn kvp(&self, request: Kvp) -> Result<Reply, String> {
        let guest = &self.handles.integration.kvp;
        let pair = |(key, value): (String, Value)| Pair { key, value: value.to_string() };
        match request {
            Kvp::List { pool } => {
                let pairs = guest.list(pool_of(pool)).map_err(text)?;
                return Ok(Reply::Pairs { pairs: pairs.into_iter().map(pair).collect() });
            }
            Kvp::Get { pool, key } => {
                let value = guest.get(pool_of(pool), &key).map_err(text)?;
                let value = value.ok_or_else(|| format!("the pool has no {key:?}"))?;
                return Ok(Reply::Pairs { pairs: vec![pair((key, value))] });
            }
            Kvp::Set { pool, key, value } => {
                guest.set(pool_of(pool), &key, &Value::Text(value)).map_err(text)?;
            }
            Kvp::Delete { pool, key } => {
                if !guest.delete(pool_of(pool), &key).map_err(text)? {
                    return Err(format!("the pool has no {key:?}"));
                }
            }
            Kvp::Addresses { mac } => {
                let found = guest.addresses(&mac).map_err(text)?;
                return Ok(Reply::Addresses(Addresses {
                    dhcp: found.dhcp,
                    addresses: found.addresses,
                    masks: found.masks,
                    gateways: found.gateways,
                    name_servers: found.name_servers,
                }));
            }
            Kvp::SetAddresses { adapter, addresses } => {
                let adapter = guid(&adapter)?;
                guest.set_addresses(adapter, &wanted(addresses)).map_err(text)?;
            }
        }
        Ok(Reply::Nothing)
    }

    fn balloon(&self, memory: Option<Size>) -> Result<Reply, String> {
        const PAGE: u64 = 4096;
        let balloon = self.handles.balloon.as_ref();
        let Elastic { balloon, start, max } =
            balloon.ok_or("the machine has no balloon: start it with --balloon")?;
        if let Some(Size(memory)) = memory {
            if memory > *max {
                return Err(format!("the machine has {}", Size(*max)));
            }
            let pages = |bytes: u64| i64::try_from(bytes / PAGE).unwrap_or(i64::MAX);
            balloon.set_target(pages(*start) - pages(memory));
        }
        let state = balloon.state();
        let bytes = |pages: u64| pages.saturating_mul(PAGE);
        Ok(Reply::Balloon {
            ready: state.ready,
            target: start.saturating_add_signed(state.target.saturating_mul(-(PAGE as i64))),
            memory: (start + bytes(state.added)).saturating_sub(bytes(state.held)),
            available: bytes(state.available),
            committed: bytes(state.committed),
            shortfall: state.shortfall.map(|shortfall| match shortfall {
                busway_balloon::Shortfall::LendsNoMore => Shortfall::LendsNoMore,
                busway_balloon::Shortfall::TakesNoMore => Shortfall::TakesNoMore,
            }),
        })
    }

    fn freeze(&mut self, seconds: u64) -> Result<(), String> {
        if self.frozen.is_some() {
            return Err("the guest's file systems are frozen already".to_owned());
        }
        let until = Instant::now().checked_add(Duration::from_secs(seconds));
        let until = until.ok_or("give fewer seconds")?;
        let frozen = self.handles.integration.vss.freeze().map_err(text)?;
        self.frozen = Some((frozen, until));
        Ok(())
    }

    fn copy(&self, file: &Path, target: &Target, tell: Tell<'_>) -> Result<(), String> {
        let name = |error: io::Error| format!("{}: {error}", file.display());
        let mut source = File::open(file).map_err(name)?;
        let metadata = source.metadata().map_err(name)?;
        if !metadata.is_file() {
            return Err(format!("{}: give a file", file.display()));
        }
        let (len, mut told) = (metadata.len(), 0);
        let mut progress = |done: u64| {
            if done < told + PROGRESS_STEP && done < len {
                return ControlFlow::Continue(());
            }
            told = done;
            match tell(Event::Progress { done, of: len }) {
                Ok(()) => ControlFlow::Continue(()),
                // Nobody is there who would want the file.
                Err(_) => ControlFlow::Break(()),
            }
        };
        let copied =
            self.handles.integration.file_copy.copy(&mut source, len, target, &mut progress);
        copied.map_err(|error: CopyError| error.to_string())
    }

    fn status(&self) -> Status {
        let integration = &self.handles.integration;
        let services = integration.phases().map(|(name, phase)| Service {
            name: name.to_owned(),
            ready: matches!(phase, Phase::Agreed(_)),
            state: phase.to_string(),
        });
        let beats = integration.heartbeat.beats();
        let ready = matches!(integration.heartbeat.phase(), Phase::Agreed(_));
        let since_1970 = |time: SystemTime| time.duration_since(UNIX_EPOCH).ok();
        let last = beats.last.and_then(since_1970).unwrap_or_default();
        let heartbeat = ready.then(|| Heartbeat {
            alive: beats.answered > 0 && beats.missed == 0,
            answered: beats.answered,
            missed: beats.missed,
            last_ms: u64::try_from(last.as_millis()).unwrap_or(u64::MAX),
        });
        let time_samples = integration.time.samples();
        let (services, cards) = (services.collect(), nets::cards(&self.handles.nets));
        let paused = self.handles.pause.is_paused();
        Status { paused, services, cards, heartbeat, time_samples }
    }
}

fn text(failure: Failure) -> String {
    failure.to_string()
}

fn guid(text: &str) -> Result<Guid, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no GUID: give the adapter's, as in the guest's /sys"))
}

/// Where `file` goes in the guest.
fn to(file: &Path, target: &str, flags: StartFlags) -> Result<Target, String> {
    let wrong = || format!("{target:?}: give a path in the guest that begins with /");
    let (directory, name) = target.rsplit_once('/').ok_or_else(wrong)?;
    if !target.starts_with('/') {
        return Err(wrong());
    }
    let name = match name {
        "" => file.file_name().and_then(|name| name.to_str()).ok_or_else(wrong)?,
        name => name,
    };
    let directory = if directory.is_empty() { "/" } else { directory };
    Ok(Target { directory: directory.to_owned(), name: name.to_owned(), flags })
}

fn pool_of(pool: Pool) -> kvp::Pool {
    match pool {
        Pool::External => kvp::Pool::EXTERNAL,
        Pool::Guest => kvp::Pool::GUEST,
        Pool::Auto => kvp::Pool::AUTO,
        Pool::AutoExternal => kvp::Pool::AUTO_EXTERNAL,
        Pool::AutoInternal => kvp::Pool::AUTO_INTERNAL,
    }
}

fn wanted(addresses: Addresses) -> integration::Addresses {
    let Addresses { dhcp, addresses, masks, gateways, name_servers } = addresses;
    let mut families = Families::empty();
    families.set(Families::IPV4, dhcp || addresses.iter().any(|address| !address.contains(':')));
    families.set(Families::IPV6, addresses.iter().any(|address| address.contains(':')));
    integration::Addresses { dhcp, families, addresses, masks, gateways, name_servers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_or_a_directory() {
        let file = Path::new("/host/a.txt");
        let target = |text| {
            let target = to(file, text, StartFlags::empty())?;
            Ok::<_, String>((target.directory, target.name))
        };
        assert_eq!(target("/tmp/b"), Ok(("/tmp".to_owned(), "b".to_owned())));
        assert_eq!(target("/tmp/"), Ok(("/tmp".to_owned(), "a.txt".to_owned())));
        assert_eq!(target("/b"), Ok(("/".to_owned(), "b".to_owned())));
        assert!(target("b").is_err() && target("a/b").is_err());
    }
}
