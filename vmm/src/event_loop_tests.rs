// SPDX-License-Identifier: MIT OR Apache-2.0

//! The event loop with a machine that has no vCPUs.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use busway_hyperv::synic::Synic;
use busway_memory::{GuestAddress, GuestMemory, Region};
use busway_vmbus::ServerConfig;
use busway_wire::{Version, ic};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::bus::Port;
use crate::engine::{Engine, NoEngine};
use crate::partition::LastWords;
use crate::spec::{IntegrationSpec, SerialSpec};

/// A machine without vCPUs: the test is the guest.
struct Guest {
    console: Console,
    bus: VmBus,
    serial: Mutex<SerialPort>,
    sender: Sender<Event>,
    events: Option<Receiver<Event>>,
    bell: EventFd,
    drained: EventFd,
    signals: EventFd,
    timeout: Option<Timeout>,
    watch: Option<Watch>,
    integration: Integration,
    pause: Pause,
    stops: Stops,
    faults: Arc<Faults>,
    on_panic: OnPanic,
    panicked: Cell<bool>,
}

fn eventfd() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

/// A bus without devices and without a guest.
fn bus() -> VmBus {
    let region = Region { start: GuestAddress(0), len: 4096 };
    let memory = GuestMemory::allocate(&[region]).unwrap();
    let synic = Arc::new(Synic::new(memory.clone(), 1));
    let engine: Arc<dyn Engine> = Arc::new(NoEngine);
    let config = ServerConfig { vp_count: 1, newest_version: Version::V6_0 };
    VmBus::new(config, memory, &engine, &synic, Arc::new(Port::new().unwrap()), None).unwrap()
}

impl Guest {
    fn new(serial: &SerialSpec) -> Self {
        let console = Console::open(serial).unwrap();
        let (sender, events) = mpsc::channel();
        let drained = eventfd();
        let port = SerialPort::new(eventfd(), drained.try_clone().unwrap(), console.output());
        Self {
            console,
            bus: bus(),
            serial: Mutex::new(port),
            sender,
            events: Some(events),
            bell: eventfd(),
            drained,
            signals: eventfd(),
            timeout: None,
            watch: None,
            faults: Faults::none().unwrap(),
            integration: Integration::new(&IntegrationSpec::default(), ic::Version::new(4, 0))
                .unwrap(),
            pause: Pause::default(),
            stops: Stops::new().unwrap(),
            on_panic: OnPanic::Exit,
            panicked: Cell::new(false),
        }
    }

    fn send(&self, event: Event) {
        self.sender.send(event).unwrap();
        self.bell.write(1).unwrap();
    }

    fn live(&mut self) -> End {
        run(Life {
            console: &mut self.console,
            serial: &self.serial,
            events: self.events.take().unwrap(),
            bell: &self.bell,
            bus: &mut self.bus,
            faults: &self.faults,
            drained: &self.drained,
            signals: &self.signals,
            timeout: self.timeout.as_mut(),
            traffic: None,
            watch: self.watch.as_ref(),
            integration: &self.integration,
            pause: &self.pause,
            stops: &self.stops,
            grace: Duration::from_secs(10),
            on_panic: self.on_panic,
            panicked: &self.panicked,
        })
        .unwrap()
    }
}

fn panic() -> Event {
    let words = LastWords { words: [0; 5], text: None };
    Event::Panic { vp: 0, words, registers: None }
}

#[test]
fn the_first_end_counts() {
    let mut guest = Guest::new(&SerialSpec::Null);
    guest.send(Event::Reset);
    guest.send(Event::PowerOff);
    assert_eq!(guest.live(), End::Reset);
}

#[test]
fn a_panic_ends_the_machine() {
    let mut guest = Guest::new(&SerialSpec::Null);
    guest.send(panic());
    guest.send(Event::PowerOff);
    assert_eq!(guest.live(), End::Panicked);
    assert!(guest.panicked.get());
}

#[test]
fn or_it_waits_for_the_dump_and_remembers() {
    let mut guest = Guest::new(&SerialSpec::Null);
    guest.on_panic = OnPanic::Wait;
    guest.send(panic());
    guest.send(Event::PowerOff);
    assert_eq!(guest.live(), End::PoweredOff);
    assert!(guest.panicked.get());
}

#[test]
fn time_runs_out() {
    let mut guest = Guest::new(&SerialSpec::Null);
    guest.timeout = Some(Timeout::new(Duration::from_millis(8)).unwrap());
    assert_eq!(guest.live(), End::TimedOut);
}

#[test]
fn a_disk_stops_the_machine_until_the_user_lets_it_go_on() {
    let mut guest = Guest::new(&SerialSpec::Null);
    guest.stops.stop();
    guest.send(Event::PowerOff);
    assert_eq!(guest.live(), End::PoweredOff);
    assert!(guest.pause.is_paused());
    // The user was faster than the bell.
    let mut guest = Guest::new(&SerialSpec::Null);
    guest.stops.stop();
    guest.pause.resume(|| guest.stops.go_on());
    guest.send(Event::PowerOff);
    assert_eq!(guest.live(), End::PoweredOff);
    assert!(!guest.pause.is_paused());
}

/// It cannot be asked to switch off, so its plug is pulled.
#[test]
fn a_guest_that_has_shown_all_may_end() {
    let mut guest = Guest::new(&SerialSpec::Null);
    let watch = Watch::new("hypervisor".parse().unwrap(), None).unwrap();
    watch.begin().unwrap();
    watch.saw_identity(0, 1);
    watch.saw_identity(7, 0);
    assert!(watch.wants_identity() && watch.bell().read().is_err(), "not all yet");
    watch.saw_identity(7, 1);
    assert!(!watch.wants_identity());
    guest.watch = Some(watch);
    assert_eq!(guest.live(), End::Watched);
}

/// More than the port holds at once goes in, in order; and what the guest writes comes out.
#[test]
fn a_client_of_the_socket_talks_to_the_guest() {
    let path = std::env::temp_dir().join(format!("busway-loop-{}", std::process::id()));
    let mut guest = Guest::new(&SerialSpec::Unix(path.clone()));
    let input: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let got = thread::scope(|scope| {
        let client = UnixStream::connect(&path).unwrap();
        (&client).write_all(&input).unwrap();
        let serial = &guest.serial;
        let (sender, bell) = (guest.sender.clone(), guest.bell.try_clone().unwrap());
        let reader = scope.spawn(move || {
            let mut got = Vec::new();
            while got.len() < 1000 {
                let mut port = lock(serial);
                if port.read(5) & 1 == 0 {
                    drop(port);
                    thread::yield_now();
                    continue;
                }
                got.push(port.read(0));
            }
            lock(serial).write(0, b'!');
            let mut answer = [0];
            (&client).read_exact(&mut answer).unwrap();
            assert_eq!(answer, [b'!']);
            sender.send(Event::PowerOff).unwrap();
            bell.write(1).unwrap();
            got
        });
        let life = Life {
            console: &mut guest.console,
            serial,
            events: guest.events.take().unwrap(),
            bell: &guest.bell,
            bus: &mut guest.bus,
            faults: &guest.faults,
            drained: &guest.drained,
            signals: &guest.signals,
            timeout: None,
            traffic: None,
            watch: None,
            integration: &guest.integration,
            pause: &guest.pause,
            stops: &guest.stops,
            grace: Duration::ZERO,
            on_panic: OnPanic::Exit,
            panicked: &guest.panicked,
        };
        assert_eq!(run(life).unwrap(), End::PoweredOff);
        reader.join().unwrap()
    });
    assert_eq!(got, input);
    drop(guest);
    assert!(!path.exists(), "the socket is gone with its console");
}
