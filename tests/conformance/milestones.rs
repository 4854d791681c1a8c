// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a witness is told of a guest, step by step.

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use busway_block::{Disk, DiskOptions};
use busway_frames::Network;
use busway_hvsock::Directory;
use busway_integration::Heartbeat;
use busway_network::{CardOptions, Mac, NetworkCard};
use busway_raw::RawDevice;
use busway_storage::{Luns, StorageController};
use busway_testkit::{Pair, PairConfig};
use busway_vmbus::{Milestone, Step, Witness};
use busway_wire::control::GuestMessage;
use busway_wire::control::layout::TlConnectRequest;
use busway_wire::ic::Status;
use busway_wire::{Guid, Version, class, hvsock};

use crate::echo::{ECHO, Echo};
use crate::integration::Utils;
use crate::netvsc::{Netvsc, message};
use crate::storvsc::{Storvsc, cdb_10};

/// Remembers.
#[derive(Default)]
struct Notes(Mutex<Vec<Milestone>>);

impl Witness for Notes {
    fn saw(&self, milestone: Milestone) {
        self.0.lock().unwrap().push(milestone);
    }
}

impl Notes {
    fn take(&self) -> Vec<Milestone> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// The steps with the only device of this class.
    fn steps(&self, wanted: Guid) -> Vec<Step> {
        let steps = self.take().into_iter().filter_map(|milestone| match milestone {
            Milestone::Device { class, step, .. } => {
                assert_eq!(class, wanted);
                Some(step)
            }
            _ => None,
        });
        steps.collect()
    }
}

fn watched() -> (Pair, Arc<Notes>) {
    let mut pair = Pair::new(PairConfig { newest_version: Version::V5_3, ..PairConfig::default() });
    let notes = Arc::new(Notes::default());
    pair.bus.watch(notes.clone());
    (pair, notes)
}

const OPEN: [Step; 2] = [Step::Offered, Step::Opened];

#[test]
fn the_bus_reports_each_step_of_a_connection() {
    let (mut pair, notes) = watched();
    assert!(!pair.contact(Version::V6_0, 0));
    let refused = Milestone::Refused(Version::V6_0, "the version is not spoken");
    assert_eq!(notes.take(), [refused]);
    assert!(pair.contact(Version::V5_2, 0));
    assert_eq!(notes.take(), [Milestone::Connected(Version::V5_2)]);
    pair.post(&GuestMessage::RequestOffers);
    assert_eq!(notes.take(), [Milestone::OffersRequested]);
}

#[test]
fn a_fault_is_reported_in_its_own_words() {
    let (mut pair, notes) = watched();
    pair.add(Echo::default());
    let offer = *pair.connect(Version::V5_3).offer(ECHO);
    let mut channel = pair.open(&offer, 4, 0).unwrap();
    assert_eq!(notes.steps(ECHO), OPEN);
    channel.request(&mut pair, 1, b"fault");
    pair.work();
    assert_eq!(notes.steps(ECHO), [Step::Failed("the guest asked for it".to_owned())]);
}

#[test]
fn a_disk_has_worked_when_it_was_read() {
    let (mut pair, notes) = watched();
    let disk = Disk::ram(1 << 20, &DiskOptions::default()).unwrap();
    let luns = Luns::new([(0, disk)]).unwrap();
    let controller = StorageController::new(Guid::from_text_order(1), luns);
    let units = controller.units();
    pair.add(controller);
    let offer = *pair.connect(Version::V5_3).offer(class::SCSI);
    let channel = pair.open(&offer, 32, 0).unwrap();
    assert_eq!(notes.steps(class::SCSI), OPEN);
    let mut storvsc = Storvsc { pair, offer, channel, units, packet_len: 64 };
    storvsc.handshake(0x0602);
    assert_eq!(notes.steps(class::SCSI), [Step::Version { major: 6, minor: 2 }, Step::Ready]);
    let buffer = storvsc.buffer(0, 512);
    storvsc.write(0, &cdb_10(0x2a, 0, 0, 1), &buffer);
    storvsc.read(0, &[0x12, 0, 0, 0, 36, 0], &buffer);
    assert_eq!(notes.steps(class::SCSI), [], "the disk itself was not read");
    for _ in 0..3 {
        storvsc.read(0, &cdb_10(0x28, 0, 0, 1), &buffer);
    }
    assert_eq!(notes.steps(class::SCSI), [Step::Worked], "once");
}

#[test]
fn a_component_has_worked_when_it_was_answered_well() {
    let (mut pair, notes) = watched();
    pair.add(Heartbeat::new(Heartbeat::PERIOD).unwrap().device());
    let offer = *pair.connect(Version::V5_3).offer(class::HEARTBEAT);
    let channel = pair.open(&offer, 4, 0).unwrap();
    let mut utils = Utils { pair, channel };
    assert_eq!(notes.steps(class::HEARTBEAT), OPEN);
    utils.negotiate(3, 0);
    assert_eq!(notes.steps(class::HEARTBEAT), [Step::Version { major: 3, minor: 0 }, Step::Ready]);
    let question = utils.question();
    // Sent back as it was: that is no beat.
    utils.answer(&question, Status::OK, &0_u64.to_le_bytes());
    utils.pair.work();
    assert_eq!(notes.steps(class::HEARTBEAT), []);
}

#[test]
fn a_beat_is_work() {
    let (mut pair, notes) = watched();
    pair.add(Heartbeat::new(Heartbeat::PERIOD).unwrap().device());
    let offer = *pair.connect(Version::V5_3).offer(class::HEARTBEAT);
    let channel = pair.open(&offer, 4, 0).unwrap();
    let mut utils = Utils { pair, channel };
    utils.negotiate(3, 0);
    let question = utils.question();
    utils.answer(&question, Status::OK, &1_u64.to_le_bytes());
    utils.pair.work();
    assert_eq!(notes.steps(class::HEARTBEAT).last(), Some(&Step::Worked));
}

#[test]
fn a_card_has_worked_when_a_frame_was_sent() {
    let (mut pair, notes) = watched();
    let instance = Guid::from_text_order(1);
    let options = CardOptions { instance, mac: Mac([2, 0, 0, 0, 0, 7]), mtu: 9000, queues: 1 };
    pair.add(NetworkCard::new(&options, Network::loopback()));
    let offer = *pair.connect(Version::V5_3).offer(class::NETWORK);
    let mut driver = Netvsc::open(&mut pair, &offer, 32);
    assert_eq!(notes.steps(class::NETWORK), OPEN);
    driver.init(&mut pair, busway_wire::nvsp::Version::V6_1);
    driver.share(&mut pair);
    assert_eq!(notes.steps(class::NETWORK), [Step::Version { major: 6, minor: 1 }]);
    driver.initialize(&mut pair);
    assert_eq!(notes.steps(class::NETWORK), [Step::Ready]);
    driver.set_filter(&mut pair, 0x0d);
    notes.take();
    let message = message(&[], &[0xff; 60]);
    driver.send_pages(&mut pair, &[&message], None);
    assert_eq!(notes.steps(class::NETWORK), [Step::Worked]);
}

#[test]
fn a_raw_channel_has_worked_when_a_packet_came() {
    let (mut pair, notes) = watched();
    let class = Guid::from_text_order(0x11223344_0000_4000_8000_000000000001);
    pair.add(RawDevice::new(class, Guid::from_text_order(1), false, None));
    let offer = *pair.connect(Version::V5_3).offer(class);
    let mut channel = pair.open(&offer, 4, 0).unwrap();
    assert_eq!(notes.steps(class), OPEN);
    for id in 0..2 {
        channel.request(&mut pair, id, b"packet!!");
        pair.work();
    }
    assert_eq!(notes.steps(class), [Step::Worked], "once");
}

#[test]
fn a_connection_is_open_or_refused() {
    let (mut pair, notes) = watched();
    let place = tempfile::tempdir().unwrap();
    let directory = Directory::new(place.path());
    let _listener = UnixListener::bind(directory.to_host(7)).unwrap();
    pair.bus.set_connector(Box::new(directory));
    pair.connect(Version::V5_3);
    notes.take();
    let guest_endpoint = hvsock::service(1000);
    for port in [7, 8] {
        let host_service = hvsock::service(port);
        let request = TlConnectRequest { guest_endpoint, host_service };
        pair.post(&GuestMessage::TlConnectRequest(request, None));
    }
    let offer = pair.expect_offer();
    assert!(pair.open(&offer, 8, 0).is_ok());
    let step = |port, step| {
        let (class, instance) = (hvsock::service(port), guest_endpoint);
        Milestone::Device { class, instance, step }
    };
    let reason = "nobody took its connection to service 00000008-facb-11e6-bd58-64006a7986d3";
    let expected =
        [step(7, Step::Offered), step(8, Step::Failed(reason.to_owned())), step(7, Step::Opened)];
    assert_eq!(notes.take(), expected);
}
