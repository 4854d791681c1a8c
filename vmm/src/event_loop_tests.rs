// SPDX-License-Identifier: MIT OR Apache-2.0

//! The event loop with a machine that has no vCPUs.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::partition::LastWords;
use crate::spec::SerialSpec;

/// A machine without vCPUs: the test is the guest.
struct Guest {
    console: Console,
    serial: Mutex<SerialPort>,
    sender: Sender<Event>,
    events: Option<Receiver<Event>>,
    bell: EventFd,
    drained: EventFd,
    signals: EventFd,
    timeout: Option<TimerFd>,
    on_panic: OnPanic,
    panicked: Cell<bool>,
}

fn eventfd() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

impl Guest {
    fn new(serial: &SerialSpec) -> Self {
        let console = Console::open(serial).unwrap();
        let (sender, events) = mpsc::channel();
        let drained = eventfd();
        let port = SerialPort::new(eventfd(), drained.try_clone().unwrap(), console.output());
        Self {
            console,
            serial: Mutex::new(port),
            sender,
            events: Some(events),
            bell: eventfd(),
            drained,
            signals: eventfd(),
            timeout: None,
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
            drained: &self.drained,
            signals: &self.signals,
            timeout: self.timeout.as_ref(),
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
    let mut timer = TimerFd::new().unwrap();
    timer.reset(Duration::from_millis(1), None).unwrap();
    guest.timeout = Some(timer);
    assert_eq!(guest.live(), End::TimedOut);
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
            drained: &guest.drained,
            signals: &guest.signals,
            timeout: None,
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
