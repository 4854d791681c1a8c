// SPDX-License-Identifier: MIT OR Apache-2.0

//! A PCI bus with one device: the video adapter of a first-generation Hyper-V machine.
//!
//! The synthetic screen needs no adapter. But a guest that was not booted by EFI firmware takes the
//! machine for one of the first generation, and looks there for memory that it may show pictures
//! from (Linux `drivers/hv/vmbus_drv.c`, `vmbus_reserve_fb`; `drivers/video/fbdev/hyperv_fb.c`,
//! `hvfb_getmem`). So the adapter is what it is told by: who it is, and where its memory lies, which
//! cannot be moved.
//!
//! Source: PCI Local Bus specification 3.0, section 3.2.2.3.2 (configuration mechanism 1) and
//! chapter 6.

use crate::memory::layout;

/// The address port; the data port's four follow.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// How many ports the two have.
pub const CONFIG_LEN: u8 = 8;
const CONFIG_DATA: u16 = CONFIG_ADDRESS + 4;
/// The last of them.
pub const CONFIG_END: u16 = CONFIG_DATA + 3;

/// Bit 31 of the address: the data port leads to configuration space.
const ENABLE: u32 = 1 << 31;
/// Bus 0, device 8, function 0, which is where Hyper-V has it.
const VIDEO: u32 = 8 << 11;

const COMMAND: usize = 1;
const BAR0: usize = 4;
/// Memory space and bus master: the bits of the command register that can be set.
const COMMAND_BITS: u32 = 0b110;

/// The bus.
#[derive(Debug)]
pub struct Pci {
    address: u32,
    /// The first registers of the adapter; the others are zero.
    registers: [u32; 16],
}

impl Default for Pci {
    fn default() -> Self {
        let mut registers = [0; 16];
        // Device 0x5353 of Microsoft.
        registers[0] = 0x5353_1414;
        // Its memory answers.
        registers[COMMAND] = 0b10;
        // A display controller, compatible with VGA by its class alone.
        registers[2] = 0x0300_0000;
        registers[BAR0] = layout::VRAM as u32;
        Self { address: 0, registers }
    }
}

impl Pci {
    /// IN of 1, 2 or 4 bytes.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        let value = match port {
            CONFIG_ADDRESS if data.len() == 4 => self.address,
            CONFIG_DATA.. => self.register().unwrap_or(u32::MAX),
            _ => u32::MAX,
        };
        let bytes = value.to_le_bytes();
        let from = usize::from(port.saturating_sub(CONFIG_DATA));
        data.fill(0xff);
        for (to, byte) in data.iter_mut().zip(bytes.iter().skip(from)) {
            *to = *byte;
        }
    }

    /// OUT of 1, 2 or 4 bytes.
    pub fn write(&mut self, port: u16, data: &[u8]) {
        if port == CONFIG_ADDRESS {
            if let Ok(address) = data.try_into() {
                self.address = u32::from_le_bytes(address);
            }
            return;
        }
        let Some(old) = self.register().filter(|_| port >= CONFIG_DATA) else { return };
        let mut bytes = old.to_le_bytes();
        let at = usize::from(port - CONFIG_DATA);
        for (to, byte) in bytes.iter_mut().skip(at).zip(data) {
            *to = *byte;
        }
        self.set_register(u32::from_le_bytes(bytes));
    }

    /// Which register of the adapter is addressed.
    fn index(&self) -> Option<usize> {
        let is_video = self.address & !0xff == ENABLE | VIDEO;
        is_video.then_some((self.address as usize & 0xff) / 4)
    }

    fn register(&self) -> Option<u32> {
        let index = self.index()?;
        Some(self.registers.get(index).copied().unwrap_or(0))
    }

    fn set_register(&mut self, value: u32) {
        match self.index() {
            Some(COMMAND) => self.registers[COMMAND] = value & COMMAND_BITS,
            // Whoever writes ones reads how large it is.
            Some(BAR0) => self.registers[BAR0] = value & !(layout::VRAM_LEN as u32 - 1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(pci: &mut Pci, device: u32, register: u32) {
        pci.write(0xcf8, &(1 << 31 | device << 11 | register).to_le_bytes());
    }

    fn read(pci: &mut Pci, device: u32, register: u32) -> u32 {
        address(pci, device, register);
        let mut data = [0; 4];
        pci.read(0xcfc, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn the_adapter_is_hyperv_s_and_alone() {
        let mut pci = Pci::default();
        assert_eq!(read(&mut pci, 8, 0), 0x5353_1414);
        assert_eq!(read(&mut pci, 8, 8) >> 24, 3, "a display");
        for device in (0..32).filter(|device| *device != 8) {
            assert_eq!(read(&mut pci, device, 0), u32::MAX);
        }
        pci.write(0xcf8, &0x8000_4100_u32.to_le_bytes());
        let mut data = [0; 4];
        pci.read(0xcfc, &mut data);
        assert_eq!(data, [0xff; 4], "function 1");
        pci.write(0xcf8, &0x0000_4000_u32.to_le_bytes());
        pci.read(0xcfc, &mut data);
        assert_eq!(data, [0xff; 4], "not enabled");
    }

    #[test]
    fn parts_of_a_register_are_read_where_they_are() {
        let mut pci = Pci::default();
        address(&mut pci, 8, 0);
        let mut half = [0; 2];
        pci.read(0xcfe, &mut half);
        assert_eq!(half, [0x53, 0x53]);
        let mut byte = [0];
        pci.read(0xcfc, &mut byte);
        assert_eq!(byte, [0x14]);
        let mut latch = [0; 4];
        pci.read(0xcf8, &mut latch);
        assert_eq!(u32::from_le_bytes(latch), 0x8000_4000);
        let mut wide = [0; 8];
        pci.read(0xcfe, &mut wide);
        assert_eq!(wide[2..], [0xff; 6]);
    }

    /// As every PCI code asks: write ones, read the mask, write the address back.
    #[test]
    fn the_memory_says_where_it_is_and_how_large() {
        let mut pci = Pci::default();
        assert_eq!(read(&mut pci, 8, 0x10), 0xf800_0000);
        pci.write(0xcfc, &[0xff; 4]);
        assert_eq!(read(&mut pci, 8, 0x10), 0xff80_0000);
        pci.write(0xcfc, &0xf800_0000_u32.to_le_bytes());
        assert_eq!(read(&mut pci, 8, 0x10), 0xf800_0000);
        for bar in 1..6 {
            address(&mut pci, 8, 0x10 + bar * 4);
            pci.write(0xcfc, &[0xff; 4]);
            assert_eq!(read(&mut pci, 8, 0x10 + bar * 4), 0);
        }
        pci.write(0xcfc, &[1, 2, 3, 4, 5, 6, 7]);
    }
}
