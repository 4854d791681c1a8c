// SPDX-License-Identifier: MIT OR Apache-2.0

//! Commands that the host cannot do, and that wait until it can, as `hv_storvsc` sees them.

use std::sync::Arc;

use busway_block::{Disk, DiskOptions, Layer, OnError};
use busway_storage::{Luns, Stops, StorageController, Units};
use tempfile::NamedTempFile;

use crate::storage_plug::during;
use crate::storvsc::{Answer, Buffer, INSTANCE, RESET, RESET_BUS, RESET_LUN, Srb, Storvsc, cdb_10};

const MIB: u64 = 1 << 20;
const UNIT: u8 = 3;

/// A disk of 4 MiB whose image has but one of them any more.
struct Bench {
    file: NamedTempFile,
    storvsc: Storvsc,
    units: Units,
    stops: Arc<Stops>,
    buffer: Buffer,
}

impl Bench {
    fn new(options: &DiskOptions) -> Self {
        let file = NamedTempFile::new().unwrap();
        file.as_file().set_len(4 * MIB).unwrap();
        let disk = Disk::open(file.path(), options).unwrap();
        file.as_file().set_len(MIB).unwrap();
        let stops = Arc::new(Stops::new().unwrap());
        let controller = StorageController::new(INSTANCE, Luns::new([(UNIT, disk)]).unwrap());
        let mut storvsc = Storvsc::on(controller.with_stops(Arc::clone(&stops)), 32);
        storvsc.handshake(0x0602);
        let units = storvsc.units.clone();
        let buffer = storvsc.buffer(0, 4096);
        Self { file, storvsc, units, stops, buffer }
    }

    fn reading() -> Self {
        Self::new(&DiskOptions { on_read_error: OnError::Wait, ..DiskOptions::default() })
    }

    /// A command on the last blocks, which are not there.
    fn send(&mut self, id: u64, operation: u8, direction: u8) {
        let cdb = cdb_10(operation, 0, 8184, 8);
        let srb = Srb::new(UNIT, &cdb, direction, 4096);
        self.storvsc.send(id, &srb, Some(&self.buffer));
    }

    fn must_wait(&mut self, commands: u32) {
        // The image's own threads may take their time.
        let units = &self.units;
        let wait = |_: &mut _| (units.list()[0].waiting == commands).then_some(());
        self.storvsc.pair.wait("commands that wait", wait);
        assert_eq!(self.storvsc.channel.try_receive(&mut self.storvsc.pair), None);
    }

    fn mend(&self) {
        self.file.as_file().set_len(4 * MIB).unwrap();
    }
}

#[test]
fn reads_wait_until_the_cause_is_gone_and_the_user_says_so() {
    let mut bench = Bench::reading();
    bench.send(7, 0x28, 1);
    bench.send(8, 0x28, 1);
    bench.must_wait(2);
    // Others go on meanwhile.
    let there = bench.storvsc.read(UNIT, &cdb_10(0x28, 0, 0, 8), &bench.buffer);
    assert_eq!(there, Answer::good(1, 4096));
    assert!(!bench.stops.is_wanted(), "they wait, and the machine does not");
    // While the cause is there they fail again, and wait again.
    bench.units.resume();
    bench.must_wait(2);
    bench.mend();
    bench.must_wait(2);
    bench.units.resume();
    let mut ended = [bench.storvsc.answer(), bench.storvsc.answer()];
    ended.sort_by_key(|answer| answer.id);
    assert_eq!(ended, [Answer::good(7, 4096), Answer::good(8, 4096)]);
    bench.must_wait(0);
}

#[test]
fn reads_stop_the_machine_each_time_that_they_fail() {
    let mut bench =
        Bench::new(&DiskOptions { on_read_error: OnError::Stop, ..DiskOptions::default() });
    bench.send(7, 0x28, 1);
    bench.must_wait(1);
    assert!(bench.stops.is_wanted());
    bench.stops.go_on();
    bench.units.resume();
    let stops = Arc::clone(&bench.stops);
    bench.storvsc.pair.wait("another failure", |_| stops.is_wanted().then_some(()));
    bench.mend();
    bench.stops.go_on();
    bench.units.resume();
    assert_eq!(bench.storvsc.answer(), Answer::good(7, 4096));
    assert!(!bench.stops.is_wanted());
}

#[test]
fn a_write_that_waited_is_written() {
    // What is thrown away is kept in pieces, whose other bytes come from the image.
    let options = DiskOptions {
        on_write_error: OnError::Wait,
        layer: Some(Layer::Temporary),
        ..DiskOptions::default()
    };
    let mut bench = Bench::new(&options);
    bench.storvsc.fill(&bench.buffer, &[0x5a; 4096]);
    bench.send(7, 0x2a, 0);
    bench.must_wait(1);
    bench.mend();
    bench.units.resume();
    assert_eq!(bench.storvsc.answer(), Answer::good(7, 4096));
    bench.storvsc.fill(&bench.buffer, &[0; 4096]);
    let read = bench.storvsc.read(UNIT, &cdb_10(0x28, 0, 8184, 8), &bench.buffer);
    assert_eq!(read, Answer::good(1, 4096));
    assert_eq!(bench.storvsc.contents(&bench.buffer), [0x5a; 4096]);
}

#[test]
fn resets_end_what_waits() {
    for operation in [RESET_LUN, RESET_BUS] {
        let mut bench = Bench::reading();
        bench.send(7, 0x28, 1);
        bench.must_wait(1);
        let mut reset = Srb::new(UNIT, &[], 2, 0).packet();
        reset[..4].copy_from_slice(&operation.to_le_bytes());
        bench.storvsc.channel.request(&mut bench.storvsc.pair, RESET, &reset);
        let answer = bench.storvsc.answer();
        assert_eq!((answer.id, answer.srb_status), (7, 0x82));
        assert_eq!(answer.sense, Some((0xb, 0, 0)));
        assert_eq!(bench.storvsc.answer().id, RESET);
        bench.must_wait(0);
    }
}

#[test]
fn a_disk_that_goes_takes_what_waits_with_it() {
    let mut bench = Bench::reading();
    bench.send(7, 0x28, 1);
    bench.must_wait(1);
    let units = bench.units.clone();
    during(&mut bench.storvsc, || units.remove(UNIT)).unwrap();
    let answer = bench.storvsc.answer();
    assert_eq!((answer.id, answer.sense), (7, Some((3, 0x11, 0))));
}

#[test]
fn a_channel_that_closes_forgets_what_waits() {
    let mut bench = Bench::reading();
    bench.send(7, 0x28, 1);
    bench.must_wait(1);
    let Storvsc { mut pair, channel, .. } = bench.storvsc;
    pair.close(channel);
    assert_eq!((pair.open_channels(), pair.host_fault()), (0, None));
    assert_eq!(bench.units.list()[0].waiting, 0);
}
