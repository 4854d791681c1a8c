// SPDX-License-Identifier: MIT OR Apache-2.0

//! Port I/O: which device has which port.

use std::sync::{Arc, Mutex};

use super::cmos::Cmos;
use super::pci::{self, Pci};
use super::serial::SerialPort;
use crate::{limited, lock};

/// The first serial port's registers.
pub const SERIAL: u16 = 0x3f8;
/// How many of them there are.
pub const SERIAL_LEN: u8 = 8;
/// Its interrupt line.
pub const SERIAL_LINE: u32 = 4;

/// The CMOS clock's registers.
pub const CMOS: u16 = 0x70;
/// How many of them there are.
pub const CMOS_LEN: u8 = 2;

/// Writing a type such as [`SLEEP_TYPE_S5`] here, and bit 5, puts the machine to sleep (ACPI 6.5, 4.8.3.7).
pub const SLEEP_CONTROL: u16 = 0x600;
/// Bit 7 would say that the machine woke up. It never does.
pub const SLEEP_STATUS: u16 = 0x601;
/// The type, bits 4:2 of the register, that means off.
pub const SLEEP_TYPE_S5: u8 = 5;
/// The type that means off, with the guest's state on its own disk.
pub const SLEEP_TYPE_S4: u8 = 4;
/// Bit 5 of the register.
const SLEEP_ENABLE: u8 = 1 << 5;

/// What a guest writes there to be switched off.
const OFF: [u8; 2] = [SLEEP_ENABLE | SLEEP_TYPE_S5 << 2, SLEEP_ENABLE | SLEEP_TYPE_S4 << 2];

/// The reset register of PC chipsets, which is also ACPI's here.
pub const RESET: u16 = 0xcf9;
/// The value to write there.
pub const RESET_NOW: u8 = 6;
/// The bit of it that resets the processors.
const RESET_CPU: u8 = 1 << 2;

/// The keyboard controller's command and status port. There is no controller but for the one
/// command that every PC operating system falls back to.
const KEYBOARD_COMMAND: u16 = 0x64;
/// The controller's data port.
const KEYBOARD_DATA: u16 = 0x60;
/// The command: pulse the reset line.
const KEYBOARD_RESET: u8 = 0xfe;

/// Where software calls a PC's firmware: a write is a call of [`crate::firmware`].
pub const FIRMWARE: u16 = 0xb2;

/// What a write to a port asks of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Soft off.
    PowerOff,
    /// Start over.
    Reset,
    /// A call of the firmware.
    Firmware,
}

/// All ports.
pub struct Ports {
    serial: Arc<Mutex<SerialPort>>,
    cmos: Mutex<Cmos>,
    /// There is a PCI bus where there is a screen.
    pci: Option<Mutex<Pci>>,
}

impl Ports {
    /// A machine's ports.
    pub fn new(serial: Arc<Mutex<SerialPort>>, has_screen: bool) -> Self {
        let pci = has_screen.then(Mutex::default);
        Self { serial, cmos: Mutex::new(Cmos::default()), pci }
    }

    /// IN: each byte of `data` is an access of its own to `port`, except on PCI, where all of it is
    /// one access.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        if let Some(pci) = self.pci(port) {
            return lock(pci).read(port, data);
        }
        for byte in data {
            *byte = self.read_byte(port);
        }
    }

    fn read_byte(&self, port: u16) -> u8 {
        match port {
            SERIAL..=0x3ff => lock(&self.serial).read(port - SERIAL),
            CMOS..=0x71 => lock(&self.cmos).read(port),
            // Nothing to read, and room to write.
            KEYBOARD_COMMAND | KEYBOARD_DATA | SLEEP_CONTROL | SLEEP_STATUS => 0,
            _ => {
                limited!(Debug, "read of port {port:#x}, which is nothing");
                // Nobody drives the bus.
                0xff
            }
        }
    }

    /// PCI's, if that is its port. One byte may also be for the reset register, which lies between.
    fn pci(&self, port: u16) -> Option<&Mutex<Pci>> {
        let is_pci = (pci::CONFIG_ADDRESS..=pci::CONFIG_END).contains(&port) && port != RESET;
        self.pci.as_ref().filter(|_| is_pci)
    }

    /// OUT: each byte of `data` is an access of its own to `port`, except on PCI.
    pub fn write(&self, port: u16, data: &[u8]) -> Option<Request> {
        if let Some(pci) = self.pci(port) {
            lock(pci).write(port, data);
            return None;
        }
        data.iter().find_map(|&byte| self.write_byte(port, byte))
    }

    fn write_byte(&self, port: u16, value: u8) -> Option<Request> {
        match port {
            SERIAL..=0x3ff => lock(&self.serial).write(port - SERIAL, value),
            CMOS..=0x71 => lock(&self.cmos).write(port, value),
            SLEEP_CONTROL if OFF.contains(&value) => return Some(Request::PowerOff),
            RESET if value & RESET_CPU != 0 => return Some(Request::Reset),
            FIRMWARE => return Some(Request::Firmware),
            KEYBOARD_COMMAND if value == KEYBOARD_RESET => return Some(Request::Reset),
            _ => limited!(Debug, "write of {value:#x} to port {port:#x}, which is nothing"),
        }
        None
    }
}
