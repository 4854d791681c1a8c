// SPDX-License-Identifier: MIT OR Apache-2.0

//! The Wireshark dissector: its names are those of the wire's types, and tshark understands with it
//! what `busway decode` understands.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use busway_capture::layout::{
    EventFlag, GUEST, HOST, Header, Hypercall, Kind, MsrAccess, Opened, Outside, Published,
    SynicState, Turn,
};
use busway_capture::{Decoder, Reader, Recorder};
use busway_hyperv::msr;
use busway_wire::control::GuestMessage;
use busway_wire::control::layout::Relid;
use busway_wire::packet::{COMPLETION_REQUESTED, Descriptor, PacketType};
use busway_wire::pipe::{PipeHeader, PipeKind};
use busway_wire::{
    Guid, balloon, class, control, hvsock, hypercall, ic, keyboard, mouse, nvsp, rndis, scsi,
    storvsc, video,
};
use libtest_mimic::{Arguments, Completion, Trial};
use zerocopy::{FromZeros, IntoBytes};

/// A harness of its own, as what cannot be seen without tshark has not passed.
fn main() -> ExitCode {
    let names = Trial::test("the_dissectors_names_are_those_of_the_wire", || {
        the_dissectors_names_are_those_of_the_wire();
        Ok(())
    });
    let decoded = Trial::ignorable_test("tshark_understands_what_busway_understands", || {
        let seen = tshark_understands_what_busway_understands();
        Ok(seen.map_or_else(Completion::ignored_with, |()| Completion::Completed))
    });
    libtest_mimic::run(&Arguments::from_args(), vec![names, decoded]).exit_code()
}

fn dissector() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/wireshark/busway.lua")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lua's tables of names.
fn names() -> String {
    let mut out = String::new();
    let mut table = |name: &str, entries: Vec<(u64, &str)>| {
        writeln!(out, "names.{name} = {{").unwrap();
        for (number, text) in entries {
            writeln!(out, "  [0x{number:x}] = \"{text}\",").unwrap();
        }
        writeln!(out, "}}").unwrap();
    };
    macro_rules! tables {
        ($($name:literal: $type:ty,)*) => { $({
            let known = <$type>::KNOWN.iter();
            table($name, known.map(|value| (value.0.into(), value.name().unwrap())).collect());
        })* };
    }
    tables! {
        "control": control::MessageType,
        "packet_type": PacketType,
        "storvsc_operation": storvsc::Operation,
        "storvsc_status": storvsc::NtStatus,
        "srb_direction": storvsc::Direction,
        "scsi_opcode": scsi::Opcode,
        "scsi_status": scsi::Status,
        "sense_key": scsi::SenseKey,
        "nvsp": nvsp::MessageType,
        "nvsp_status": nvsp::Status,
        "rndis_channel": nvsp::RndisChannel,
        "rndis": rndis::MessageType,
        "rndis_status": rndis::Status,
        "oid": rndis::Oid,
        "pipe": PipeKind,
        "ic": ic::MessageType,
        "ic_status": ic::Status,
        "kvp_operation": ic::kvp::Operation,
        "kvp_pool": ic::kvp::Pool,
        "vss_operation": ic::vss::Operation,
        "file_copy_operation": ic::file_copy::Operation,
        "shutdown_action": ic::shutdown::Action,
        "keyboard": keyboard::MessageType,
        "mouse": mouse::MessageType,
        "balloon": balloon::MessageType,
        "video": video::MessageType,
        "call": hypercall::CallCode,
        "hv_status": hypercall::Status,
    }
    let mut msrs: Vec<(u64, String)> = Vec::new();
    for number in msr::RANGE.0..msr::RANGE.0 + msr::RANGE.1 {
        if let Some(name) = busway_capture::decode::msr_name(number) {
            msrs.push((number.into(), name));
        }
    }
    table("msr", msrs.iter().map(|(number, name)| (*number, &**name)).collect());
    writeln!(out, "names.class = {{").unwrap();
    for (name, guid) in class::ALL {
        writeln!(out, "  [\"{}\"] = \"{name}\",", hex(&guid.0)).unwrap();
    }
    writeln!(out, "}}").unwrap();
    // Behind the port.
    writeln!(out, "names.vsock = \"{}\"", &hex(&hvsock::service(0).0)[8..]).unwrap();
    out
}

fn the_dissectors_names_are_those_of_the_wire() {
    let text = fs::read_to_string(dissector()).unwrap();
    let (before, rest) = text.split_once("-- names: begin\n").unwrap();
    let (found, after) = rest.split_once("-- names: end\n").unwrap();
    let wanted = names();
    if std::env::var_os("BUSWAY_BLESS").is_some() {
        let text = format!("{before}-- names: begin\n{wanted}-- names: end\n{after}");
        return fs::write(dissector(), text).unwrap();
    }
    assert!(found == wanted, "names have changed: BUSWAY_BLESS=1 cargo test --test wireshark");
}

/// Makes a capture with a record or more of every kind.
struct Writer(Recorder);

impl Writer {
    fn body(&self, kind: Kind, side: u8, body: &[u8]) {
        self.0.record(Header { vp: 1, ..Header::new(kind, side) }, &[body]);
    }

    fn on(&self, class: Guid, kind: Kind, side: u8, body: &[u8]) {
        let header = Header { channel: 5, class: class.0, ..Header::new(kind, side) };
        self.0.record(header, &[body]);
    }

    fn packet(
        &self,
        class: Guid,
        side: u8,
        kind: PacketType,
        id: u64,
        header: &[u8],
        payload: &[u8],
    ) {
        let flags = if kind == PacketType::COMPLETION { 0 } else { COMPLETION_REQUESTED };
        let start = Descriptor {
            kind,
            data_offset8: 2 + (header.len() / 8) as u16,
            total_len8: 2 + ((header.len() + payload.len()).div_ceil(8)) as u16,
            flags,
            transaction_id: id,
        };
        self.on(class, Kind::Packet, side, &[start.as_bytes(), header, payload].concat());
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn capture(path: &Path) {
    let file = Box::new(File::create(path).unwrap());
    let writer = Writer(Recorder::start(file, "test", 65536).unwrap());
    let relid = Relid { relid: 11 };
    writer.body(Kind::Message, GUEST, GuestMessage::RequestOffers.encode().as_bytes());
    writer.body(Kind::Message, GUEST, GuestMessage::CloseChannel(relid).encode().as_bytes());
    writer.body(Kind::Message, HOST, &[4, 0, 0, 0, 0, 0, 0, 0]);
    // Storage: a read of two blocks into one page, and its answer.
    let mut srb = storvsc::Srb::new_zeroed();
    (srb.lun, srb.cdb_len, srb.data_transfer_length) = (3, 10, 1024);
    srb.cdb_or_sense[..10].copy_from_slice(&[0x28, 0, 0, 0x12, 0x34, 0x56, 0, 0, 2, 0]);
    let answer = storvsc::Packet::answer(storvsc::NtStatus::SUCCESS);
    let operation = storvsc::Operation::EXECUTE_SRB;
    let request = storvsc::Packet { operation, ..answer }.with_body(&srb);
    let ranges: Vec<u8> =
        [1_u64 << 32, 1024, 0x777].iter().flat_map(|word| word.to_le_bytes()).collect();
    let direct = PacketType::DATA_USING_GPA_DIRECT;
    writer.packet(class::SCSI, GUEST, direct, 0xabc, &ranges, request.as_bytes());
    srb.srb_status = storvsc::SrbStatus::with_sense(storvsc::SrbCode::ERROR);
    srb.scsi_status = scsi::Status::CHECK_CONDITION;
    srb.cdb_or_sense[..3].copy_from_slice(&[0x70, 0, 5]);
    let answer = answer.with_body(&srb);
    writer.packet(class::SCSI, HOST, PacketType::COMPLETION, 0xabc, &[], answer.as_bytes());
    // Network: a query, its answer, a frame.
    let in_band = PacketType::DATA_IN_BAND;
    writer.packet(class::NETWORK, GUEST, in_band, 1, &[], &words(&[1, 0x60001, 0x60001]));
    writer.packet(class::NETWORK, GUEST, in_band, 2, &[], &words(&[107, 1, u32::MAX, 0]));
    let outside = |side, message: &[u32]| {
        let start = Outside { transaction_id: 2 };
        let body = [start.as_bytes(), &*words(message)].concat();
        writer.on(class::NETWORK, Kind::Outside, side, &body);
    };
    outside(GUEST, &[4, 28, 9, 0x0101_0102, 0, 0, 0]);
    outside(HOST, &[0x8000_0004, 24, 9, 0, 0, 0]);
    let arp = words(&[0xffff_ffff, 0x0002_ffff, 0, 0x0608_0700, 0x0100, 0x0608, 0, 0, 0, 0, 0]);
    let head = words(&[1, 44 + arp.len() as u32, 36, arp.len() as u32, 0, 0, 0, 0, 0, 0, 0]);
    let start = Outside { transaction_id: 3 };
    let body = [start.as_bytes(), &*head, &*arp].concat();
    writer.on(class::NETWORK, Kind::Outside, GUEST, &body);
    // Components.
    let version = ic::Version::new(3, 0);
    let mut header = ic::Header::request(ic::MessageType::HEARTBEAT, version, version, 7);
    writer.packet(class::HEARTBEAT, HOST, in_band, 0, &[], &header.payload(&[1; 40]));
    header.kind = ic::MessageType::KVP;
    header.flags = 5;
    let mut body = ic::kvp::Enumerate::new_zeroed();
    body.header.operation = ic::kvp::Operation::ENUMERATE;
    body.header.pool = ic::kvp::Pool::AUTO;
    writer.packet(class::KVP, GUEST, in_band, 0, &[], &header.payload(body.as_bytes()));
    // Input, sockets.
    let key = words(&[3, 0x1c, 2]);
    writer.packet(class::KEYBOARD, HOST, in_band, 0, &[], &key);
    let report = [PipeHeader::data(11).as_bytes(), &words(&[4, 3]), &[9, 8, 7]].concat();
    writer.packet(class::MOUSE, HOST, in_band, 0, &[], &report);
    let report = words(&[5 | 40 << 16, 9, 1, 0, 2, 0, 0, 0, 0, 0]);
    writer.packet(class::BALLOON, GUEST, in_band, 0, &[], &report);
    let dirt = [PipeHeader::data(10).as_bytes(), &words(&[10, 10]), &[0, 1]].concat();
    writer.packet(class::VIDEO, GUEST, in_band, 0, &[], &dirt);
    let data = [PipeHeader::data(3).as_bytes(), b"abc"].concat();
    writer.packet(hvsock::service(1024), GUEST, in_band, 0, &[], &data);
    // The rest.
    let mut rings = Published::new_zeroed();
    (rings.outgoing_write, rings.flags) = (0x40, 1);
    writer.on(class::SCSI, Kind::Published, HOST, rings.as_bytes());
    writer.on(class::SCSI, Kind::Turn, GUEST, Turn { cause: 1, token: 0 }.as_bytes());
    writer.on(class::SCSI, Kind::Opened, HOST, Opened::new_zeroed().as_bytes());
    writer.on(class::SCSI, Kind::Closed, HOST, &[]);
    let mut event = EventFlag::new_zeroed();
    (event.flag, event.raised) = (12, 1);
    writer.body(Kind::EventFlag, HOST, event.as_bytes());
    let call = Hypercall { control: 0x5c, input: 0x1000, output: 0, result: 0x13 };
    writer.body(Kind::Hypercall, GUEST, call.as_bytes());
    let access = MsrAccess { msr: msr::SINT0 + 2, flags: 1, value: 0xf3 };
    writer.body(Kind::Msr, GUEST, access.as_bytes());
    writer.body(Kind::Synic, GUEST, SynicState::new_zeroed().as_bytes());
    // Neither may understand this one.
    writer.packet(class::SCSI, GUEST, in_band, 1, &[], &words(&[99; 16]));
    assert!(writer.0.finish().error.is_none());
}

/// What tshark prints of `fields`, a line a record; `None` if it is not installed.
fn tshark(file: &Path, fields: &[&str]) -> Option<Vec<String>> {
    let mut command = Command::new("tshark");
    command.arg("-X").arg(format!("lua_script:{}", dissector().display())).arg("-r").arg(file);
    command.args(["-T", "fields"]).args(fields.iter().flat_map(|field| ["-e", *field]));
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        output => output.unwrap(),
    };
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !errors.contains("Lua: Error"), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(|line| line.trim().to_owned()).collect())
}

fn tshark_understands_what_busway_understands() -> Result<(), &'static str> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("all.pcapng");
    capture(&file);
    let unknown = ["busway.unknown", "_ws.lua.error"];
    let Some(unknown) = tshark(&file, &unknown) else {
        return Err("tshark is not installed (apt-get install tshark)");
    };
    let mut reader = Reader::new(File::open(&file).unwrap());
    let mut decoder = Decoder::default();
    for (index, line) in unknown.iter().enumerate() {
        let record = reader.next().unwrap().unwrap();
        let decoded = decoder.decode(&record);
        assert_eq!(line.is_empty(), decoded.known, "record {}: {decoded}: {line}", index + 1);
    }
    assert!(reader.next().unwrap().is_none(), "tshark shows fewer records");
    let lines = tshark(&file, &["_ws.col.Info"]).unwrap();
    let wanted = [
        "vp1 REQUEST_OFFERS",
        "vp1 CLOSE_CHANNEL relid=11",
        "vp1 ALL_OFFERS_DELIVERED",
        "storage#5 DATA_USING_GPA_DIRECT id=0xabc | EXECUTE_SRB READ_10 lba=1193046 blocks=2",
        "storage#5 COMPLETION id=0xabc | COMPLETE_IO SUCCESS",
        "network#5 DATA_IN_BAND id=0x1 | INIT",
        "network#5 DATA_IN_BAND id=0x2 | SEND_RNDIS_PACKET CONTROL",
        "network#5 QUERY ETHERNET_CURRENT_ADDRESS",
        "network#5 QUERY_COMPLETE",
        "network#5 PACKET frame=44 B",
        "heartbeat#5 DATA_IN_BAND id=0x0 | HEARTBEAT request #7 beat 72340172838076673",
        "kvp#5 DATA_IN_BAND id=0x0 | KVP answer #7 ENUMERATE AUTO",
        "keyboard#5 DATA_IN_BAND id=0x0 | EVENT 0x1c",
        "mouse#5 DATA_IN_BAND id=0x0 | INPUT_REPORT",
        "balloon#5 DATA_IN_BAND id=0x0 | STATUS_REPORT #9",
        "video#5 DATA_IN_BAND id=0x0 | DIRT",
        "vsock#5 DATA_IN_BAND id=0x0 | stream 3 B",
        "storage#5 rings, interrupt",
        "storage#5 turn: signal",
        "storage#5 opened",
        "storage#5 closed",
        "vp1 event flag 12, interrupt",
        "vp1 POST_MESSAGE: INSUFFICIENT_BUFFERS",
        "vp1 SINT2 becomes 0x00000000000000f3",
        "vp1 SynIC",
        "storage#5 not understood",
    ];
    assert_eq!(lines, wanted);
    let values = |field| {
        let lines = tshark(&file, &[field]).unwrap();
        lines.into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(values("busway.scsi.sense_key"), ["0x05"]);
    assert_eq!(values("busway.range.pfn"), ["0x0000000000000777"]);
    assert_eq!(values("busway.srb.lun"), ["3"]);
    assert_eq!(values("eth.dst"), ["ff:ff:ff:ff:ff:ff"]);
    assert_eq!(values("busway.mouse.report"), ["090807"]);
    Ok(())
}
