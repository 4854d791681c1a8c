// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine, put together: one life of it, from reset to reset.
//!
//! A reset builds a new board. Nothing of the old one is left then: no vCPU state, no synthetic
//! MSR, no interrupt, no word of memory. What outlives a reset (console, files, disks) is handed
//! in.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use busway_hyperv::synic::Synic;
use busway_memory::{AllocateError, GuestMemory};
use busway_vmbus::ServerConfig;
use busway_wire::Version;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::acpi;
use crate::boot::{self, BootError, Entry, Mode, Sources};
use crate::bus::{Port, VmBus};
use crate::capture::Capture;
use crate::console::Output;
use crate::devices::ports::{Ports, SERIAL_LINE};
use crate::devices::serial::SerialPort;
use crate::engine::{Engine, EngineKind};
use crate::firmware::Firmware;
use crate::kvm::{Host, KvmEngine, KvmError, UserspaceEngine, Vcpu, Vm};
use crate::memory::Layout;
use crate::partition::Partition;
use crate::processors::Processors;
use crate::smoke::watch::Watch;
use crate::spec::VmSpec;
use crate::vcpu::{Machine, Mailbox, Running, Stopped};

/// A board cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Guest memory cannot be had.
    #[error("--memory {size}: the host cannot give that much; lower it")]
    Memory {
        /// What was asked for.
        size: crate::spec::Size,
        /// The reason.
        source: AllocateError,
    },
    /// The guest's addresses would not fit the CPU's.
    #[error("--memory {size}: this CPU addresses {bits} bits, which is too few; lower it")]
    AddressBits {
        /// What was asked for.
        size: crate::spec::Size,
        /// Bits of a physical address.
        bits: u32,
    },
    /// More vCPUs than KVM has.
    #[error("--cpus {asked}: this KVM runs {max} at most; lower it")]
    Cpus {
        /// What was asked for.
        asked: u32,
        /// KVM's limit.
        max: usize,
    },
    /// The kernel cannot be loaded.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// KVM failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Something else of the host's failed.
    #[error("the host has no {what} for the machine")]
    Host {
        /// What was asked of it.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

/// The files that a guest is booted from, open.
pub struct BootFiles {
    kernel: File,
    initrd: Option<File>,
}

impl BootFiles {
    /// Opens them.
    pub fn open(spec: &VmSpec) -> Result<Self, BootError> {
        let open = |flag, path| File::open(path).map_err(|source| BootError::Read { flag, source });
        let initrd = spec.initrd.as_ref().map(|path| open("initrd", path)).transpose()?;
        Ok(Self { kernel: open("kernel", &spec.kernel)?, initrd })
    }
}

/// Guest memory with everything in it that a boot needs. KVM has no part in that, so what is
/// wrong with the files is known before it is asked.
pub struct Loaded {
    map: Layout,
    memory: GuestMemory,
    entry: Entry,
}

impl Loaded {
    /// Memory as `spec` wants it, with the kernel of `files`.
    pub fn new(spec: &VmSpec, files: &mut BootFiles) -> Result<Self, BoardError> {
        let map = match spec.display.size() {
            Some(_) => Layout::new(spec.memory.0).with_screen(),
            None => Layout::new(spec.memory.0),
        }
        .with_room(spec.room());
        let memory = GuestMemory::allocate(&map.regions())
            .map_err(|source| BoardError::Memory { size: spec.memory, source })?;
        let tables = acpi::tables(spec.cpus, &map, spec.hibernation);
        let mut sources = Sources {
            kernel: &mut files.kernel,
            initrd: files.initrd.as_mut(),
            cmdline: spec.cmdline.as_deref(),
        };
        let entry = boot::load(&memory, &map, &mut sources, &tables)?;
        Ok(Self { map, memory, entry })
    }
}

/// A machine that has not run yet.
pub struct Board {
    // Field order is drop order: vCPUs go before the machine that they belong to.
    vcpus: Vec<Vcpu>,
    processors: Arc<Processors>,
    engine: Arc<dyn Engine>,
    vm: Vm,
    memory: GuestMemory,
    synic: Arc<Synic>,
    has_screen: bool,
    /// Where the firmware says that memory is, if the guest has one.
    firmware: Option<Layout>,
}

impl Board {
    /// Builds the machine of `spec` around its memory, with the Hyper-V of `kind`.
    pub fn build(
        host: &Host,
        spec: &VmSpec,
        kind: EngineKind,
        loaded: Loaded,
    ) -> Result<Self, BoardError> {
        let Loaded { map, memory, entry } = loaded;
        check_limits(host, spec, &map)?;
        let vm = Vm::new(host, memory.clone(), spec.cpus, kind)?;
        let interface = host.interface(kind)?;
        let mut vcpus = (0..spec.cpus)
            .map(|index| vm.create_vcpu(host, index, spec.cpus, interface))
            .collect::<Result<Vec<_>, _>>()?;
        let synic = Arc::new(Synic::new(memory.clone(), spec.cpus));
        let processors = Arc::new(Processors::new(vcpus.len()));
        let engine: Arc<dyn Engine> = match kind {
            EngineKind::Kvm => Arc::new(KvmEngine::new(host, &vm, &vcpus)?),
            EngineKind::Userspace => {
                Arc::new(UserspaceEngine::new(&vm, &mut vcpus, &memory, &synic, &processors)?)
            }
        };
        if let Some(first) = vcpus.first() {
            first.enter(&entry)?;
        }
        let has_screen = map.vram.is_some();
        let firmware = (entry.mode == Mode::Real).then_some(map);
        Ok(Self { vcpus, processors, engine, vm, memory, synic, has_screen, firmware })
    }

    /// A bus for this machine, without devices, and the port by which it hears of its guest. It
    /// speaks versions up to `newest_version`. All that passes it goes into `capture`.
    pub fn bus(
        &self,
        newest_version: Version,
        capture: Option<&Arc<Capture>>,
    ) -> Result<VmBus, BoardError> {
        let port = Port::new().map_err(|source| BoardError::Host { what: "eventfd", source })?;
        let vp_count = self.vcpus.len() as u32;
        let config = ServerConfig { vp_count, newest_version };
        let memory = self.memory.clone();
        VmBus::new(config, memory, &self.engine, &self.synic, Arc::new(port), capture)
            .map_err(|source| BoardError::Host { what: "connection for signals", source })
    }

    /// Its Hyper-V.
    pub const fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Its vCPUs' threads.
    pub const fn processors(&self) -> &Arc<Processors> {
        &self.processors
    }

    /// Switches the machine on. Its serial port writes to `output`, and adds 1 to `drained` when
    /// the guest has read its input; its events go to `mailbox`, its channel messages to `port`,
    /// what is seen of its guest to `watch`, and what it asks of its hypervisor to `capture`.
    pub fn start(
        self,
        output: Output,
        drained: EventFd,
        mailbox: &Mailbox,
        port: Arc<Port>,
        watch: Option<Arc<Watch>>,
        capture: Option<Arc<Capture>>,
    ) -> Result<LiveBoard, BoardError> {
        let failed = |what| move |source| BoardError::Host { what, source };
        let line = EventFd::new(EFD_NONBLOCK).map_err(failed("eventfd"))?;
        self.vm.connect_line(SERIAL_LINE, &line)?;
        let serial = Arc::new(Mutex::new(SerialPort::new(line, drained, output)));
        let processors = self.processors;
        let firmware =
            self.firmware.map(|map| Firmware::new(self.memory.clone(), map, Arc::clone(&serial)));
        let (memory, threads) = (self.memory, Arc::clone(&processors));
        let machine = Arc::new(Machine {
            firmware,
            ports: Ports::new(Arc::clone(&serial), self.has_screen),
            partition: Partition::new(memory, self.engine, self.synic, port, threads)
                .watched(watch)
                .captured(capture),
            processors,
        });
        let running = Running::start(&machine, self.vcpus, mailbox).map_err(failed("threads"))?;
        Ok(LiveBoard { running, serial, _vm: self.vm })
    }
}

/// A machine that runs. Dropping it stops it.
pub struct LiveBoard {
    // Field order is drop order: threads end before the machine goes.
    running: Running,
    serial: Arc<Mutex<SerialPort>>,
    _vm: Vm,
}

impl LiveBoard {
    /// Stops the vCPUs and returns what is left of each.
    pub fn stop(mut self) -> Vec<Stopped> {
        self.running.stop()
    }

    /// The serial port, for input.
    pub fn serial(&self) -> &Mutex<SerialPort> {
        &self.serial
    }
}

fn check_limits(host: &Host, spec: &VmSpec, map: &Layout) -> Result<(), BoardError> {
    let max = host.max_vcpus();
    if spec.cpus as usize > max {
        return Err(BoardError::Cpus { asked: spec.cpus, max });
    }
    let bits = host.physical_address_bits();
    if map.last_address().checked_shr(bits).is_some_and(|beyond| beyond != 0) {
        return Err(BoardError::AddressBits { size: spec.memory, bits });
    }
    Ok(())
}
