// SPDX-License-Identifier: MIT OR Apache-2.0

//! Direct boot of a Linux kernel: everything that a boot loader leaves in memory.
//!
//! Source: Linux `Documentation/x86/boot.rst`, "32-bit Boot Protocol" and "64-bit Boot Protocol", and
//! `zero-page.rst`.

mod initrd;
mod kernel;
mod pvh;
mod real_mode;
mod reset_vector;
pub mod tables;
mod zero_page;

use std::fs::File;

use busway_memory::{Bytes, GuestAddress, GuestMemory};

use crate::memory::{Layout, layout};
use crate::spec::DEFAULT_CMDLINE;
use kernel::Kernel;
pub use zero_page::e820;

/// Where the first processor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The kernel's entry point.
    pub address: u64,
    /// What it expects of the processor.
    pub mode: Mode,
    /// Where it finds what its loader has to say: Linux's boot parameters, or PVH's start info.
    pub boot_params: u64,
}

/// How a processor enters a kernel. Both ways, addresses are physical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 64-bit, by page tables that map everything one to one.
    Long,
    /// 32-bit, without paging.
    Protected,
    /// The same, as the PVH protocol wants it.
    Pvh,
    /// 16-bit, with a firmware around it.
    Real,
}

impl Mode {
    /// A boot loader takes its command line for commands, as iPXE does.
    fn default_cmdline(self) -> &'static str {
        match self {
            Self::Real => "",
            Self::Long | Self::Protected | Self::Pvh => DEFAULT_CMDLINE,
        }
    }
}

/// What is booted. The files are read from their beginning, each time.
pub struct Sources<'a> {
    /// A bzImage or an ELF vmlinux.
    pub kernel: &'a mut File,
    /// An initramfs.
    pub initrd: Option<&'a mut File>,
    /// The kernel's command line; without one, what its kind of kernel gets.
    pub cmdline: Option<&'a str>,
}

/// A guest cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The file is no kernel that this program starts.
    #[error(
        "--kernel is neither a bzImage nor an ELF vmlinux: give the kernel as it is installed in /boot (vmlinuz-...), unpacked if it is an archive"
    )]
    NotAKernel,
    /// A kernel from before 1999, whose parts are placed differently.
    #[error(
        "--kernel is too old, its boot protocol is {major}.{minor:02}: give one of 2.02 or later, Linux 2.4 say"
    )]
    TooOld {
        /// Of the boot protocol.
        major: u16,
        /// Of the boot protocol.
        minor: u16,
    },
    /// A kernel in a form that the loader refuses.
    #[error("--kernel cannot be loaded")]
    Kernel(#[source] linux_loader::loader::Error),
    /// The kernel alone does not fit.
    #[error(
        "--kernel needs {needed} MiB of memory below 3 GiB where the guest has {available}: raise --memory"
    )]
    KernelTooLarge {
        /// MiB.
        needed: u64,
        /// MiB.
        available: u64,
    },
    /// The initramfs does not fit beside it.
    #[error(
        "--initrd has {needed} MiB where {available} are free beside the kernel: raise --memory"
    )]
    InitrdTooLarge {
        /// MiB.
        needed: u64,
        /// MiB.
        available: u64,
    },
    /// The command line is longer than the kernel takes.
    #[error("--cmdline has {len} bytes and this kernel takes {max}: shorten it")]
    CmdlineTooLong {
        /// Bytes.
        len: usize,
        /// Bytes.
        max: usize,
    },
    /// A file cannot be read.
    #[error("--{flag} cannot be read")]
    Read {
        /// The flag that names it.
        flag: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Guest memory cannot be written: a fault of this program.
    #[error("guest memory cannot be written")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

/// Puts kernel, initramfs, command line and boot parameters into `memory`, the ACPI tables, and
/// those that a processor needs in long mode.
pub fn load(
    memory: &GuestMemory,
    map: &Layout,
    sources: &mut Sources<'_>,
    acpi_tables: &[u8],
) -> Result<Entry, BootError> {
    let kernel = kernel::load(memory, map, sources.kernel)?;
    let initrd = match &mut sources.initrd {
        Some(file) => Some(initrd::load(memory, map, &kernel, file)?),
        None => None,
    };
    let cmdline = sources.cmdline.unwrap_or_else(|| kernel.mode.default_cmdline());
    write_cmdline(memory, cmdline, kernel.cmdline_max)?;
    match kernel.mode {
        Mode::Pvh => pvh::write(memory, map, initrd.as_ref()),
        Mode::Real => real_mode::write(memory, initrd.as_ref()),
        Mode::Long | Mode::Protected => {
            let page = zero_page::build(map, &kernel, initrd, cmdline.len());
            memory.write_obj(page, GuestAddress(layout::BOOT_PARAMS))
        }
    }
    .map_err(BootError::Memory)?;
    let acpi = GuestAddress(layout::ACPI_TABLES);
    memory.write_slice(acpi_tables, acpi).map_err(BootError::Memory)?;
    if kernel.mode != Mode::Real {
        tables::write(memory, kernel.mode).map_err(BootError::Memory)?;
    }
    reset_vector::write(memory).map_err(BootError::Memory)?;
    let Kernel { entry: address, mode, .. } = kernel;
    Ok(Entry { address, mode, boot_params: layout::BOOT_PARAMS })
}

fn write_cmdline(memory: &GuestMemory, cmdline: &str, max: usize) -> Result<(), BootError> {
    let max = max.min(layout::COMMAND_LINE_MAX - 1);
    if cmdline.len() > max {
        return Err(BootError::CmdlineTooLong { len: cmdline.len(), max });
    }
    let mut text = cmdline.as_bytes().to_vec();
    text.push(0);
    memory.write_slice(&text, GuestAddress(layout::COMMAND_LINE)).map_err(BootError::Memory)
}

/// Bytes as whole MiB, rounded up, for people.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What a kernel that starts in this way finds as its command line.
    fn command_line(version: u16, words: Option<&str>) -> String {
        let mut image = vec![0; 4096];
        image[0x1f1] = 1; // setup_sects
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&version.to_le_bytes());
        image[0x211] = 1; // loadflags: loaded high
        image[0x22c..0x230].copy_from_slice(&0x37ff_ffff_u32.to_le_bytes()); // initrd_addr_max
        image[0x236] = 1; // xloadflags: 64-bit
        image[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes()); // cmdline_size
        let mut kernel = tempfile::tempfile().unwrap();
        kernel.write_all(&image).unwrap();
        let map = Layout::new(64 << 20);
        let memory = GuestMemory::allocate(&map.regions()).unwrap();
        let mut sources = Sources { kernel: &mut kernel, initrd: None, cmdline: words };
        load(&memory, &map, &mut sources, &[]).unwrap();
        let mut bytes = [0; 64];
        memory.read_slice(&mut bytes, GuestAddress(layout::COMMAND_LINE)).unwrap();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    #[test]
    fn a_boot_loader_gets_no_words_that_nobody_gave_it() {
        assert_eq!(command_line(0x020f, None), DEFAULT_CMDLINE);
        assert_eq!(command_line(0x0203, None), "");
        assert_eq!(command_line(0x0203, Some("dhcp")), "dhcp");
        assert_eq!(command_line(0x020f, Some("")), "");
    }
}
