// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway run`: a machine from its first start to its end, resets included.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use busway_balloon::Balloon;
use busway_raw::RawDevice;
use log::{debug, error, info, warn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::board::{Board, BoardError, BootFiles, Loaded};
use crate::boot::BootError;
use crate::bus::BusLine;
use crate::capture::{Capture, CaptureError};
use crate::console::{Console, ConsoleError};
use crate::control::server::{ControlError, Server};
use crate::control::{Elastic, Handles};
use crate::disks::{DiskError, Disks};
use crate::display::{Display, VncError};
use crate::event_loop::{self, End, Life, LoopError};
use crate::faults::Faults;
use crate::input::Input;
use crate::integration::Integration;
use crate::kvm::{Choice, Counters, Host, OpenError};
use crate::memory::Layout;
use crate::nets::{NetError, Nets};
use crate::pause::Pause;
use crate::raw::{self, RawError};
use crate::signals;
use crate::smoke::judge::{NotOffered, Sight};
use crate::smoke::watch::Watch;
use crate::spec::{FaultsSpecError, OnReset, SpecError, VmSpec};
use crate::strict::{self, Strict};
use crate::timeout::Timeout;
use crate::traffic::Traffic;
use crate::vcpu::Mailbox;
use crate::vsock::{Vsock, VsockError};

/// How a run ended, if the host did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The guest switched itself off, or the user did.
    Done,
    /// The guest failed: panic, triple fault, no end in time.
    GuestFailed,
    /// A signal ended it.
    Signalled(i32),
}

impl Verdict {
    /// The program's exit status.
    pub fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::GuestFailed => 1,
            Self::Signalled(signal) => 128 + (signal & 0x7f) as u8,
        }
    }
}

/// The machine could not start, or the host failed while it ran.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The description is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A file of it is wrong.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The script of faults is wrong.
    #[error(transparent)]
    Faults(#[from] FaultsSpecError),
    /// A disk cannot be had.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A network cannot be had.
    #[error(transparent)]
    Net(#[from] NetError),
    /// KVM is not there, or not whole.
    #[error(transparent)]
    Kvm(#[from] OpenError),
    /// The machine cannot be built.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// The console cannot be opened.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// The capture cannot be made.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The control socket cannot be made.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The directory of sockets cannot be used.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// The screen cannot be shown.
    #[error(transparent)]
    Display(#[from] VncError),
    /// A raw channel's socket cannot be made.
    #[error(transparent)]
    Raw(#[from] RawError),
    /// What is expected cannot be.
    #[error(transparent)]
    Expected(#[from] NotOffered),
    /// The event loop failed.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// A vCPU could not go on.
    #[error("{0}")]
    Broken(String),
    /// The counters cannot be written.
    #[error("--stats {path} cannot be written", path = path.display())]
    Stats {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Descriptors, timers.
    #[error("the host has no {what}")]
    Host {
        /// What was asked of it.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

/// What lives longer than one life of the machine.
struct Session {
    console: Console,
    signals: EventFd,
    timeout: Option<Timeout>,
    integration: Integration,
    input: Input,
    balloon: Option<Balloon>,
    display: Option<Display>,
    raw: Vec<RawDevice>,
    vsock: Option<Vsock>,
    /// Removed when it goes.
    _control: Option<Server>,
    pause: Pause,
    /// The guest has panicked, in this life or an earlier one.
    panicked: Cell<bool>,
    /// KVM's counters, of all vCPUs in all lives that have ended.
    counters: Counters,
    /// Who watches the guest.
    watch: Option<Arc<Watch>>,
    capture: Option<Arc<Capture>>,
    /// The way to the bus, for who asks about it.
    line: BusLine,
    /// What goes wrong on its bus.
    faults: Arc<Faults>,
    strict: Option<Arc<Strict>>,
    /// What goes over the channels, if anybody asks.
    traffic: Option<Arc<Traffic>>,
}

/// Runs the machine of `spec` on the KVM device at `kvm` until it ends. KVM's counters of the
/// whole run go into the file `stats`, if one is named; `watch` is told of all that is seen of the
/// guest.
pub fn run(
    spec: &VmSpec,
    kvm: &Path,
    stats: Option<&Path>,
    watch: Option<&Arc<Watch>>,
) -> Result<Verdict, RunError> {
    spec.check()?;
    if let Some(disk) = spec.waits_in_vain() {
        let path = disk.file.display();
        warn!(
            "--disk {path} waits for 'busway ctl SOCKET resume' when the host fails: --control SOCKET is missing"
        );
    }
    raise_descriptor_limit();
    let script = spec.faults.as_ref().map(|faults| faults.read()).transpose()?;
    let mut files = BootFiles::open(spec)?;
    let disks = Disks::open(&spec.disks, &spec.dvds, spec.cpus, spec.versions.storage.0)?;
    let nets = Nets::open(&spec.nets, spec.versions.network.0)?;
    let loaded = Loaded::new(spec, &mut files)?;
    let host = Host::open(kvm)?;
    let Choice { kind, reason } = host.choose(spec.hyperv)?;
    info!("Hyper-V by {kind}, because {reason}");
    // Before the console: a machine that cannot start creates and changes nothing.
    let mut board = Board::build(&host, spec, kind, loaded)?;
    let faults = match (&spec.faults, script) {
        (Some(faults), Some(script)) => Faults::start(&faults.file, script),
        _ => Faults::none(),
    };
    let faults = faults.map_err(|source| RunError::Host { what: "timer", source })?;
    let _sum_up = faults.sum_up();
    if let (Some(watch), true) = (watch, faults.is_active()) {
        watch.suffers(&faults);
    }
    let mut session = Session::open(spec, &disks, &nets, faults)?;
    session.watch = watch.cloned();
    loop {
        match session.live(board, spec, &disks, &nets)? {
            End::Reset if spec.on_reset == OnReset::Restart => info!("the guest resets"),
            end => {
                disks.flush();
                if let Some(display) = &session.display {
                    display.end();
                }
                if let Some(watch) = watch {
                    watch.ended(&end);
                }
                session.report_strict(watch);
                stats.map(|path| session.write_stats(path)).transpose()?;
                return session.verdict(end);
            }
        }
        board = Board::build(&host, spec, kind, Loaded::new(spec, &mut files)?)?;
    }
}

/// The pages that the guest can be given while it runs.
fn room(spec: &VmSpec) -> Range<u64> {
    let room = Layout::new(spec.memory.0).with_room(spec.room()).room;
    room.map_or(0..0, |room| room.start.0 >> 12..(room.start.0 + room.len as u64) >> 12)
}

/// Each disk, channel and connection takes some descriptors, and many systems allow a program 1024
/// unless it asks.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        debug!("the limit of descriptors stays as it is: {error}");
    }
}

impl Session {
    fn open(
        spec: &VmSpec,
        disks: &Disks,
        nets: &Nets,
        faults: Arc<Faults>,
    ) -> Result<Self, RunError> {
        let failed = |what| move |source| RunError::Host { what, source };
        let signals = signals::catch().map_err(failed("signal handler"))?;
        let timeout = spec
            .timeout
            .map(Duration::from_secs)
            .map(Timeout::new)
            .transpose()
            .map_err(failed("timer"))?;
        let integration = Integration::new(&spec.integration, spec.versions.integration.0)
            .map_err(failed("eventfd"))?;
        let input = Input::new(spec.keyboard, spec.mouse).map_err(failed("eventfd"))?;
        let balloon = spec
            .balloon
            .then(|| Balloon::new(room(spec)))
            .transpose()
            .map_err(failed("eventfd"))?
            .map(|balloon| balloon.with_newest_version(spec.versions.balloon.0));
        let display = Display::open(&spec.display, spec.versions.video.0, &input)?;
        let capture = spec.capture.as_ref().map(Capture::start).transpose()?.map(Arc::new);
        let traffic = Arc::new(Traffic::new(capture.clone()));
        let (line, pause) = (BusLine::default(), Pause::default());
        let handles = Handles {
            integration: integration.clone(),
            input: input.clone(),
            nets: nets.clone(),
            disks: disks.clone(),
            display: display.clone(),
            balloon: balloon.clone().map(|balloon| Elastic {
                balloon,
                start: spec.memory.0,
                max: spec.memory.0 + spec.room(),
            }),
            traffic: Arc::clone(&traffic),
            bus: line.clone(),
            faults: Arc::clone(&faults),
            pause: pause.clone(),
        };
        let start = |path| Server::start(path, &handles);
        let control = spec.control.as_deref().map(start);
        let control = control.transpose()?;
        let console = Console::open(&spec.serial)?;
        Ok(Self {
            console,
            signals,
            timeout,
            integration,
            input,
            balloon,
            display,
            raw: raw::open(&spec.raw)?,
            strict: strict::open(spec, capture.as_ref(), &traffic),
            vsock: spec.vsock.as_deref().map(Vsock::start).transpose()?,
            _control: control,
            pause,
            panicked: Cell::new(false),
            counters: Counters::new(),
            watch: None,
            capture,
            line,
            faults,
            traffic: (spec.control.is_some() || spec.timeout.is_some()).then_some(traffic),
        })
    }

    /// One life, from power on or reset to its end.
    fn live(
        &mut self,
        board: Board,
        spec: &VmSpec,
        disks: &Disks,
        nets: &Nets,
    ) -> Result<End, RunError> {
        let eventfd = || {
            let new = EventFd::new(EFD_NONBLOCK);
            new.map_err(|source| RunError::Host { what: "eventfd", source })
        };
        let clone = |event: &EventFd| {
            let clone = event.try_clone();
            clone.map_err(|source| RunError::Host { what: "eventfd", source })
        };
        let (bell, drained) = (eventfd()?, eventfd()?);
        let (sender, events) = mpsc::channel();
        let mailbox = Mailbox::new(sender, clone(&bell)?);
        let mut bus = board.bus(spec.versions.vmbus.0, self.capture.as_ref())?;
        if let Some(traffic) = &self.traffic {
            traffic.clear();
            bus.tap(traffic.clone());
        }
        if let Some(strict) = &self.strict {
            strict.restart();
            bus.tap(strict.clone());
        }
        if let Some(watch) = self.watch.clone() {
            bus.watch(watch);
        }
        if self.faults.is_active() {
            bus.meddle(self.faults.meddler());
        }
        disks.attach(&mut bus);
        for device in self.integration.devices(board.engine()) {
            bus.add(device);
        }
        self.input.attach(&mut bus);
        if let Some(balloon) = &self.balloon {
            bus.add(Box::new(balloon.device()));
        }
        if let Some(display) = &self.display {
            display.attach(&mut bus);
        }
        for raw in &self.raw {
            bus.add(Box::new(raw.clone()));
        }
        if let Some(vsock) = &self.vsock {
            vsock.attach(&mut bus);
            if let Some(watch) = &self.watch {
                watch.saw(&Sight::Sockets);
            }
        }
        nets.attach(&mut bus);
        self.line.attach(&bus);
        self.pause.attach(board.processors(), board.engine());
        if let Some(watch) = &self.watch {
            watch.begin()?;
        }
        let port = Arc::clone(bus.port());
        let (output, watch) = (self.console.output(), self.watch.clone());
        let capture = self.capture.clone();
        let board = board.start(output, clone(&drained)?, &mailbox, port, watch, capture)?;
        let life = Life {
            console: &mut self.console,
            serial: board.serial(),
            events,
            bell: &bell,
            bus: &mut bus,
            faults: &self.faults,
            drained: &drained,
            signals: &self.signals,
            timeout: self.timeout.as_mut(),
            traffic: self.traffic.as_deref(),
            watch: self.watch.as_deref(),
            integration: &self.integration,
            pause: &self.pause,
            stops: disks.stops(),
            grace: Duration::from_secs(spec.grace),
            on_panic: spec.on_panic,
            panicked: &self.panicked,
        };
        let end = event_loop::run(life)?;
        let vcpus = board.stop();
        bus.stop().map_err(|fault| RunError::Broken(fault.to_string()))?;
        if end == End::TimedOut {
            let seconds = spec.timeout.unwrap_or_default();
            match self.watch {
                Some(_) => error!("the guest has not ended within --timeout {seconds}"),
                None => error!("the guest has made no progress within --timeout {seconds}"),
            }
            for (vp, vcpu) in vcpus.iter().enumerate() {
                if let Some(registers) = vcpu.registers {
                    error!("vCPU {vp} was at {registers}");
                }
            }
        }
        for (name, count) in vcpus.into_iter().flat_map(|vcpu| vcpu.counters) {
            *self.counters.entry(name).or_default() += count;
        }
        Ok(end)
    }

    fn has_broken_rules(&self) -> bool {
        self.strict.as_ref().is_some_and(|strict| strict.summary().failed)
    }

    fn write_stats(&self, path: &Path) -> Result<(), RunError> {
        let text = serde_json::to_string_pretty(&self.counters).map_err(io::Error::from);
        text.and_then(|text| std::fs::write(path, text + "\n"))
            .map_err(|source| RunError::Stats { path: path.to_owned(), source })
    }

    /// Says what was found: in the report of a smoke test, else in the log.
    fn report_strict(&self, watch: Option<&Arc<Watch>>) {
        let Some(summary) = self.strict.as_ref().map(|strict| strict.summary()) else {
            return;
        };
        match watch {
            Some(watch) => watch.found(summary),
            None if summary.findings == 0 => info!("{summary}"),
            None => warn!("{summary}"),
        }
    }

    fn verdict(&self, end: End) -> Result<Verdict, RunError> {
        let verdict = match end {
            End::PoweredOff | End::Quit | End::Reset | End::Watched
                if !self.panicked.get() && !self.has_broken_rules() =>
            {
                Verdict::Done
            }
            End::Signal(signal) => Verdict::Signalled(signal),
            End::Broken(reason) => return Err(RunError::Broken(reason)),
            _ => Verdict::GuestFailed,
        };
        Ok(verdict)
    }
}
