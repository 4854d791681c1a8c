// SPDX-License-Identifier: MIT OR Apache-2.0

//! storage/virtio: the reads of storage/ram, and beside them the same reads from the same disk by a
//! virtio-blk device's loop on rust-vmm's virtio-queue: header, data and status in a chain of three
//! (virtio 1.2, 5.2.6), one turn of the guest and one of the device on one thread.

use std::sync::atomic::Ordering;

use busway_block::{Disk, DiskOptions, Operation, Queue as DiskQueue, Request};
use busway_memory::{Bytes, GuestAddress, GuestMemory, GuestSlices, Region};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestMemoryBackend, VolatileSlice};

use crate::report::{Line, cpu_times};
use crate::storage_ram::{DISK, reads};

const SIZE: u16 = 64;
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Header and status of the request in slot n: 32 bytes from here.
const HEADERS: u64 = 0x3000;
const DATA: u64 = 0x10_0000;

/// VIRTQ_DESC_F_NEXT and VIRTQ_DESC_F_WRITE.
const NEXT: u16 = 1;
const WRITE: u16 = 2;

pub fn run(lines: &mut Vec<Line>) {
    for n in [1, 4, 16] {
        let (value, limit) = cpu_times(n, reads(n), virtio_reads(n));
        let params = format!("4 KiB reads, RAM disk, n={n}");
        lines.push(Line::nanoseconds("storage/virtio", params, value, Some(limit)));
    }
}

/// A turn: `n` reads and their completions.
pub fn virtio_reads(n: u64) -> impl FnMut() {
    let mut device = Device::new();
    let mut driver = Driver::new(&device.memory, n);
    let mut at = 0;
    move || {
        for slot in 0..n {
            driver.push(slot, at % (DISK / 4096));
            at += 7;
        }
        driver.publish();
        device.work();
        driver.take(n);
    }
}

/// The guest's end: chains are laid out beforehand, as storage/ram's packets are.
struct Driver {
    memory: VolatileSlice<'static>,
    available: u16,
    taken: u16,
}

impl Driver {
    fn new(memory: &GuestMemory, n: u64) -> Self {
        // For as long as the program runs: slices borrow it.
        let memory: &'static GuestMemory = Box::leak(Box::new(memory.clone()));
        let slice = memory.get_slice(GuestAddress(0), 0x4000).expect("memory");
        let driver = Self { memory: slice, available: 0, taken: 0 };
        for slot in 0..n {
            let header = HEADERS + 32 * slot;
            let chain = [
                (header, 16, NEXT),
                (DATA + 4096 * slot, 4096, NEXT | WRITE),
                (header + 16, 1, WRITE),
            ];
            for (part, (address, len, flags)) in (0_u16..).zip(chain) {
                driver.descriptor(3 * slot as u16 + part, address, len, flags);
            }
        }
        driver
    }

    fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16) {
        let at = DESCRIPTORS as usize + 16 * usize::from(index);
        self.write(at, address);
        self.write(at + 8, len);
        self.write(at + 12, flags);
        self.write(at + 14, index + 1);
    }

    fn write<T: vm_memory::ByteValued>(&self, at: usize, value: T) {
        self.memory.write_obj(value, at).expect("within memory");
    }

    /// A read of the block with this number.
    fn push(&mut self, slot: u64, index: u64) {
        self.write((HEADERS + 32 * slot + 8) as usize, index * 8);
        let place = usize::from(self.available % SIZE);
        self.write(AVAILABLE as usize + 4 + 2 * place, 3 * slot as u16);
        self.available = self.available.wrapping_add(1);
    }

    fn publish(&self) {
        let index = AVAILABLE as usize + 2;
        self.memory.store(self.available, index, Ordering::Release).expect("within memory");
    }

    fn take(&mut self, n: u64) {
        let index: u16 = self.memory.load(USED as usize + 2, Ordering::Acquire).expect("memory");
        assert_eq!(u64::from(index.wrapping_sub(self.taken)), n, "a request is missing");
        while self.taken != index {
            let at = USED as usize + 4 + 8 * usize::from(self.taken % SIZE);
            let head: u32 = self.memory.read_obj(at).expect("within memory");
            let status = (HEADERS + 32 * u64::from(head / 3) + 16) as usize;
            let status: u8 = self.memory.read_obj(status).expect("within memory");
            assert_eq!(status, 0, "VIRTIO_BLK_S_OK");
            self.taken = self.taken.wrapping_add(1);
        }
    }
}

/// The device's end, as a careful VMM writes it: chains are walked once and checked, lists are kept.
struct Device {
    memory: GuestMemory,
    queue: Queue,
    disk: DiskQueue,
    /// Lists that requests have given back.
    spare: Vec<GuestSlices>,
    /// Where each chain's status goes, by its head.
    status: Vec<GuestAddress>,
}

impl Device {
    fn new() -> Self {
        let region = Region { start: GuestAddress(0), len: 0x20_0000 };
        let memory = GuestMemory::allocate(&[region]).expect("memory");
        let mut queue = Queue::new(SIZE).expect("a queue");
        queue.set_desc_table_address(Some(DESCRIPTORS as u32), Some(0));
        queue.set_avail_ring_address(Some(AVAILABLE as u32), Some(0));
        queue.set_used_ring_address(Some(USED as u32), Some(0));
        queue.set_ready(true);
        let disk = Disk::ram(DISK, &DiskOptions::default()).expect("a disk");
        Self {
            disk: DiskQueue::new(usize::from(SIZE), vec![disk]),
            spare: Vec::new(),
            status: vec![GuestAddress(0); usize::from(SIZE)],
            memory,
            queue,
        }
    }

    fn work(&mut self) {
        self.queue.disable_notification(&*self.memory).expect("a queue");
        while let Some(mut chain) = {
            let mut chains = self.queue.iter(&*self.memory).expect("a queue");
            chains.next()
        } {
            let head = chain.head_index();
            let header = chain.next().expect("a header");
            assert!(!header.is_write_only() && header.len() == 16);
            let header: [u64; 2] = self.memory.read_obj(header.addr()).expect("a header");
            assert_eq!(header[0] as u32, 0, "VIRTIO_BLK_T_IN");
            let list = self.spare.pop();
            let mut data = list.unwrap_or_else(|| GuestSlices::new(self.memory.clone()));
            for part in chain {
                assert!(part.is_write_only());
                if part.has_next() {
                    data.push(part.addr(), part.len() as usize).expect("memory");
                } else {
                    self.status[usize::from(head)] = part.addr();
                }
            }
            let (token, offset) = (u64::from(head), header[1] * 512);
            let request = Request { token, operation: Operation::Read, offset, data };
            self.disk.submit(0, request).expect("room");
        }
        self.complete();
        self.queue.enable_notification(&*self.memory).expect("a queue");
    }

    fn complete(&mut self) {
        while let Some(done) = self.disk.reap().expect("the disk") {
            let head = done.token as u16;
            let status = u8::from(done.result.is_err());
            self.memory.write_obj(status, self.status[usize::from(head)]).expect("memory");
            let len = done.data.len() as u32 + 1;
            self.queue.add_used(&*self.memory, head, len).expect("a queue");
            let mut data = done.data;
            data.clear();
            self.spare.push(data);
        }
        self.queue.needs_notification(&*self.memory).expect("a queue");
    }
}
