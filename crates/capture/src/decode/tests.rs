// SPDX-License-Identifier: MIT OR Apache-2.0

use busway_wire::control::GuestMessage;
use busway_wire::ic;
use busway_wire::packet::{COMPLETION_REQUESTED, Descriptor};
use busway_wire::storvsc::{NtStatus, Operation, Packet, Srb};
use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::Timeline;
use crate::layout::{EventFlag, GUEST, HEADER_LEN, Header, Hypercall, MsrAccess, Outside};

/// Records that are made one behind the other, a microsecond apart.
#[derive(Default)]
struct Tape {
    number: u64,
    decoder: Decoder,
}

const STORAGE: Channel = Channel { number: 3, subchannel: 0, class: class::SCSI };

impl Tape {
    fn record(&mut self, header: Header, body: &[u8]) -> Decoded {
        self.number += 1;
        let len = body.len() as u32;
        self.decoder.decode(&Record {
            number: self.number,
            time: 1_000_000 + 1000 * self.number,
            header: Header { len, ..header },
            body: body.to_vec(),
        })
    }

    fn packet(&mut self, on: Channel, side: u8, kind: u16, id: u64, payload: &[u8]) -> Decoded {
        let flags = if kind == 11 { 0 } else { COMPLETION_REQUESTED };
        let descriptor = Descriptor {
            kind: busway_wire::packet::PacketType(kind),
            data_offset8: 2,
            total_len8: 2 + payload.len().div_ceil(8) as u16,
            flags,
            transaction_id: id,
        };
        let header = Header {
            channel: on.number,
            class: on.class.0,
            at: 0x40,
            ..Header::new(Kind::Packet, side)
        };
        self.record(header, &[descriptor.as_bytes(), payload].concat())
    }
}

fn srb(cdb: &[u8]) -> Packet {
    let mut srb = Srb::new_zeroed();
    srb.cdb_len = cdb.len() as u8;
    srb.cdb_or_sense[..cdb.len()].copy_from_slice(cdb);
    let operation = Operation::EXECUTE_SRB;
    Packet { operation, flags: 1, ..Packet::answer(NtStatus::SUCCESS) }.with_body(&srb)
}

const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 8, 0, 0, 1, 0];

#[test]
fn an_answer_names_its_request_and_takes_its_meaning_from_it() {
    let mut tape = Tape::default();
    let request = tape.packet(STORAGE, GUEST, 6, 7, srb(&READ).as_bytes());
    assert!(request.text.contains("EXECUTE_SRB 0:0:0 READ_10 lba=8 blocks=1"), "{request}");
    assert!(request.known && request.answers.is_none());
    // Another's, that has the same number.
    let other = Channel { number: 4, ..STORAGE };
    tape.packet(other, GUEST, 6, 7, srb(&READ).as_bytes());
    let mut done = Srb::new_zeroed();
    done.data_transfer_length = 512;
    done.srb_status = busway_wire::storvsc::SrbStatus(1);
    let answer = Packet::answer(NtStatus::SUCCESS).with_body(&done);
    let answer = tape.packet(STORAGE, HOST, 11, 7, answer.as_bytes());
    assert!(answer.text.contains("COMPLETE_IO SUCCESS to EXECUTE_SRB srb=SUCCESS"), "{answer}");
    assert!(answer.text.contains("moved=512"), "{answer}");
    let answered = answer.answers.clone().unwrap();
    assert_eq!((answered.request, answered.latency), (1, 2000));
    assert_eq!(answered.name, "READ_10 lba=8 blocks=1");
    assert!(answer.to_string().ends_with("[2.000 us after 1]"), "{answer}");
    let json = answer.to_json();
    assert_eq!((&json["answers"], &json["latency_ns"]), (&1.into(), &2000.into()));
    assert_eq!((&json["device"], &json["channel"]), (&"storage".into(), &3.into()));
    let again = tape.packet(STORAGE, HOST, 11, 7, &[]);
    assert!(again.answers.is_none(), "it was answered");
}

/// The host asks too, and both may use one number.
#[test]
fn requests_of_both_sides_are_told_apart() {
    let mut tape = Tape::default();
    let network = Channel { class: class::NETWORK, ..STORAGE };
    tape.packet(network, GUEST, 6, 1, &[107, 0, 0, 0]);
    tape.packet(network, HOST, 7, 1, &[107, 0, 0, 0]);
    assert_eq!(tape.packet(network, GUEST, 11, 1, &[]).answers.unwrap().request, 2);
    assert_eq!(tape.packet(network, HOST, 11, 1, &[]).answers.unwrap().request, 1);
}

#[test]
fn components_answer_by_their_own_numbers() {
    let mut tape = Tape::default();
    let channel = Channel { class: class::HEARTBEAT, ..STORAGE };
    let version = ic::Version::new(3, 0);
    let kind = ic::MessageType::HEARTBEAT;
    let mut header = ic::Header::request(kind, version, version, 9);
    let ask = header.payload(&[5; 40]);
    let asked = tape.packet(channel, HOST, 6, 0, &ask);
    assert!(asked.text.ends_with("HEARTBEAT 3.0 request #9, 40 B: beat 361700864190383365"));
    header.flags = 5;
    let answer = header.payload(&[6; 40]);
    let answer = tape.packet(channel, GUEST, 6, 0, &answer);
    assert_eq!(answer.answers.unwrap().request, 1);
    // No such message exists.
    header.kind = ic::MessageType(77);
    assert!(!tape.packet(channel, GUEST, 6, 0, &header.payload(&[])).known);
}

#[test]
fn control_messages_and_rndis_requests_are_pairs_too() {
    let mut tape = Tape::default();
    let host = Header::new(Kind::Message, HOST);
    let message = Header::new(Kind::Message, GUEST);
    let asked = tape.record(message, GuestMessage::RequestOffers.encode().as_bytes());
    assert_eq!(asked.text, "REQUEST_OFFERS");
    let answer = tape.record(host, &[4, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((&*answer.text, answer.answers.unwrap().request), ("ALL_OFFERS_DELIVERED", 1));
    // The guest may not say that.
    assert!(!tape.record(message, &[4, 0, 0, 0, 0, 0, 0, 0]).known);
    let outside =
        |side| Header { channel: 5, class: class::NETWORK.0, ..Header::new(Kind::Outside, side) };
    let body = |words: &[u32]| {
        let start = Outside { transaction_id: 0x22 };
        let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        [start.as_bytes(), &*words].concat()
    };
    let query = tape.record(outside(GUEST), &body(&[4, 28, 7, 0x0101_0101, 0, 0, 0]));
    assert_eq!(query.text, "id=0x22 | QUERY ETHERNET_PERMANENT_ADDRESS id=0x7");
    let answer = tape.record(outside(HOST), &body(&[0x8000_0004, 24, 7, 0, 0, 0]));
    assert_eq!(answer.answers.unwrap().name, "QUERY ETHERNET_PERMANENT_ADDRESS id=0x7");
}

#[test]
fn what_concerns_processors_is_said_in_their_terms() {
    let mut tape = Tape::default();
    let mut text =
        |kind, body: &[u8]| tape.record(Header { vp: 2, ..Header::new(kind, GUEST) }, body).text;
    let call = Hypercall { control: 0x1_005d, input: 0x1000b, output: 0, result: 0x12 };
    let said = "SIGNAL_EVENT fast connection=0x1000b flag=0: INVALID_CONNECTION_ID";
    assert_eq!(text(Kind::Hypercall, call.as_bytes()), said);
    let msr = MsrAccess { msr: 0x4000_0092, flags: 1, value: 0xf3 };
    assert_eq!(text(Kind::Msr, msr.as_bytes()), "SINT2 becomes 0xf3");
    let msr = MsrAccess { msr: 0x4000_00b3, flags: 3, value: 5 };
    assert_eq!(text(Kind::Msr, msr.as_bytes()), "STIMER1_COUNT is refused 0x5");
    let mut event = EventFlag::new_zeroed();
    (event.flag, event.sint, event.raised) = (11, 2, 1);
    assert_eq!(text(Kind::EventFlag, event.as_bytes()), "flag 11 of VP 2 SINT 2: interrupt");
}

#[test]
fn what_nobody_knows_is_marked_and_what_was_cut_is_not() {
    let mut tape = Tape::default();
    let odd = Packet { operation: Operation(99), ..Packet::answer(NtStatus::SUCCESS) };
    let decoded = tape.packet(STORAGE, GUEST, 6, 1, odd.as_bytes());
    assert!(!decoded.known && decoded.to_string().ends_with("(unknown)"), "{decoded}");
    let foreign = Channel { class: Guid([9; 16]), ..STORAGE };
    assert!(!tape.packet(foreign, GUEST, 6, 1, &[1]).known);
    let opcode = srb(&[0x1f, 0, 0, 0, 0, 0]);
    assert!(!tape.packet(STORAGE, GUEST, 6, 1, opcode.as_bytes()).known, "no such command");
    let header = Header { kind: 99, ..Header::new(Kind::Packet, GUEST) };
    assert_eq!(tape.record(header, &[]).text, "a record of kind 99");
    let record = Record {
        number: 9,
        time: 0,
        header: Header { len: 100, ..Header::new(Kind::Packet, GUEST) },
        body: vec![6, 0],
    };
    let cut = tape.decoder.decode(&record);
    assert!(cut.known && cut.cut);
}

#[test]
fn filters_take_what_they_say() {
    let mut tape = Tape::default();
    let request = tape.packet(STORAGE, GUEST, 6, 7, srb(&READ).as_bytes());
    let answer = tape.packet(STORAGE, HOST, 11, 7, &[0; 64]);
    let wants = |filter: &str, decoded| filter.parse::<Filter>().unwrap().wants(decoded);
    for yes in
        ["channel=storage", "channel=3", "kind=packet", "side=guest", "kind=packet,side=guest"]
    {
        assert!(wants(yes, &request), "{yes}");
    }
    for no in ["channel=network", "channel=4", "kind=turn", "side=host", "slower=0", "unknown"] {
        assert!(!wants(no, &request), "{no}");
    }
    assert!(wants("slower=1", &answer) && !wants("slower=2", &answer));
    for wrong in ["", "channel=disk", "kind=", "side=left", "slower=x", "channel=storage,", "x=y"] {
        let error = wrong.parse::<Filter>().unwrap_err().to_string();
        assert!(error.contains("kind=KIND"), "{error}");
    }
}

/// Two transactions that overlap, and one after both.
#[test]
fn a_timeline_has_a_row_for_what_happens_at_once() {
    let mut tape = Tape::default();
    let mut out = Vec::new();
    let mut timeline = Timeline::start(&mut out).unwrap();
    for (kind, id) in [(6, 1), (6, 2), (11, 1), (11, 2), (6, 3), (11, 3)] {
        let side = if kind == 6 { GUEST } else { HOST };
        let payload = srb(&READ);
        timeline.add(&tape.packet(STORAGE, side, kind, id, payload.as_bytes()));
    }
    timeline.finish().unwrap();
    let trace: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let slices: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    let times =
        slices.iter().map(|slice| (slice["ts"].as_f64().unwrap(), slice["tid"].as_u64().unwrap()));
    assert_eq!(times.collect::<Vec<_>>(), [(0.0, 1024), (1.0, 1025), (4.0, 1024)]);
    assert_eq!(slices[0]["dur"], 2.0);
    assert_eq!(slices[0]["args"]["records"], serde_json::json!([1, 3]));
    let names = events.iter().filter(|event| event["name"] == "thread_name");
    let names: Vec<_> = names.map(|event| event["args"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["storage#3", "storage#3 (2)"]);
}

/// Bytes of a capture may come from anywhere.
#[test]
fn no_bytes_are_too_odd() {
    let mut tape = Tape::default();
    let mut seed = 0x5eed_u64;
    for round in 0..20_000_u32 {
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let classes = class::ALL.len() as u64;
        let class = class::ALL[(random() % classes) as usize].1;
        let kind = (random() % 14) as u8;
        let body: Vec<u8> = (0..random() % 120).map(|_| (random() % 16) as u8).collect();
        let channel = if round % 7 == 0 { NONE } else { round % 5 };
        let header = Header {
            kind,
            class: class.0,
            channel,
            ..Header::new(Kind::Packet, (random() % 2) as u8)
        };
        let _ = tape.record(header, &body).to_string();
    }
    assert_eq!(HEADER_LEN, size_of::<Header>());
}
