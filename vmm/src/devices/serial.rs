// SPDX-License-Identifier: MIT OR Apache-2.0

//! The serial port: vm-superio's 16550A between an interrupt line and the [console](crate::console).

use std::cell::Cell;
use std::io;

use log::debug;
use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::console::Output;

/// A serial port of the guest.
pub struct SerialPort {
    uart: Serial<Line, Happenings, Output>,
}

/// The interrupt line: an eventfd that KVM turns into an edge.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// What becomes of the bytes.
struct Happenings {
    /// The guest has read everything, so that it can have more.
    drained: EventFd,
    /// Bytes that it has written.
    written: Cell<u64>,
}

impl SerialEvents for Happenings {
    fn buffer_read(&self) {}

    fn out_byte(&self) {
        self.written.set(self.written.get() + 1);
    }

    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        // Full only if nobody listens.
        let _ = self.drained.write(1);
    }
}

impl SerialPort {
    /// A port that raises `line`, writes to `output` and adds 1 to `drained` whenever the guest
    /// has read its input.
    pub fn new(line: EventFd, drained: EventFd, output: Output) -> Self {
        let happenings = Happenings { drained, written: Cell::default() };
        Self { uart: Serial::with_events(Line(line), happenings, output) }
    }

    /// The guest reads a register.
    pub fn read(&mut self, register: u16) -> u8 {
        self.uart.read((register & 7) as u8)
    }

    /// The guest writes a register.
    pub fn write(&mut self, register: u16, value: u8) {
        if let Err(error) = self.uart.write((register & 7) as u8, value) {
            debug!("serial port: {error:?}");
        }
    }

    /// How many bytes the guest has sent.
    pub fn written(&self) -> u64 {
        self.uart.events().written.get()
    }

    /// Gives the guest as much of `input` as it has room for; returns how many bytes that was.
    pub fn receive(&mut self, input: &[u8]) -> usize {
        let room = self.uart.fifo_capacity().min(input.len());
        match input.get(..room) {
            Some(input) if room > 0 => self.uart.enqueue_raw_bytes(input).unwrap_or(0),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;
    use crate::spec::SerialSpec;

    fn port() -> (SerialPort, EventFd, EventFd) {
        let line = EventFd::new(EFD_NONBLOCK).unwrap();
        let drained = EventFd::new(EFD_NONBLOCK).unwrap();
        let output = crate::console::Console::open(&SerialSpec::Null).unwrap().output();
        let port = SerialPort::new(line.try_clone().unwrap(), drained.try_clone().unwrap(), output);
        (port, line, drained)
    }

    #[test]
    fn input_interrupts_and_asks_for_more_when_it_is_read() {
        let (mut port, line, drained) = port();
        port.write(1, 1); // IER: received data
        assert_eq!(port.receive(b"ls"), 2);
        assert_eq!(line.read().unwrap(), 1);
        assert_eq!((port.read(0), port.read(0)), (b'l', b's'));
        assert_eq!(drained.read().unwrap(), 1);
    }

    #[test]
    fn what_the_guest_sends_is_counted() {
        let (mut port, ..) = port();
        port.write(1, 0); // IER: nothing
        b"ok\n".iter().for_each(|&byte| port.write(0, byte));
        assert_eq!(port.written(), 3);
    }

    #[test]
    fn input_beyond_the_fifo_stays_with_the_sender() {
        let (mut port, _line, _drained) = port();
        let taken = port.receive(&[b'x'; 1000]);
        assert!((16..1000).contains(&taken));
        assert_eq!(port.receive(b"y"), 0);
    }
}
