// SPDX-License-Identifier: MIT OR Apache-2.0

//! `--capture`: what passes between the guest and this machine, in a file.
//!
//! The bus's part comes through its [`Tap`]; hypercalls, MSRs, SynIC pages and event flags are
//! recorded where the partition and the interrupts handle them. What the kernel answers by itself
//! (with KVM's engine most MSRs, and with either engine the signals of open channels) is not seen
//! here; a signal is seen as the turn of the channel that it woke.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use busway_capture::layout::{
    self, EventFlag, Header, Hypercall, Kind, MsrAccess, NONE, Opened, Outside, SynicState, Turn,
};
use busway_capture::{Recorder, Summary};
use busway_hyperv::synic::SynicRegisters;
use busway_vmbus::{Cause, Event, InterruptTarget, Passing, Place, Published, Side, Tap};
use log::{error, info, warn};
use zerocopy::IntoBytes;

use crate::spec::CaptureSpec;

/// The file cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("--capture {path}: the file cannot be written; give another", path = path.display())]
pub struct CaptureError {
    path: PathBuf,
    source: io::Error,
}

/// A capture of a machine. When it is dropped, all is in the file, or the log says what is not.
pub struct Capture {
    recorder: Recorder,
    path: PathBuf,
    data: bool,
}

impl Capture {
    /// Starts one.
    pub fn start(spec: &CaptureSpec) -> Result<Self, CaptureError> {
        let CaptureSpec { file: path, snap, pages } = spec;
        let failed = |source| CaptureError { path: path.clone(), source };
        let file = File::create(path).map_err(failed)?;
        let program = concat!("busway ", env!("CARGO_PKG_VERSION"));
        let recorder = Recorder::start(Box::new(file), program, *snap).map_err(failed)?;
        Ok(Self { recorder, path: path.clone(), data: *pages })
    }

    /// An event flag was to be set for the guest, which was interrupted if that was new.
    pub fn event_flag(&self, target: InterruptTarget, place: (u32, u8, u16), raised: bool) {
        let (vp, sint, flag) = place;
        let (page, page_bit) = match target {
            InterruptTarget::InterruptPage { page, bit } => (page, bit),
            InterruptTarget::EventFlag { .. } | InterruptTarget::Polled => (0, 0),
        };
        let raised = raised.into();
        let body = EventFlag { page, page_bit, flag, sint, raised, reserved: 0 };
        self.on_vp(Kind::EventFlag, layout::HOST, vp, &[body.as_bytes()]);
    }

    /// A hypercall was answered.
    pub fn hypercall(&self, vp: u32, control: u64, input: u64, output: u64, result: u64) {
        let body = Hypercall { control, input, output, result };
        self.on_vp(Kind::Hypercall, layout::GUEST, vp, &[body.as_bytes()]);
    }

    /// An MSR was read, or the guest was refused that.
    pub fn msr_read(&self, vp: u32, msr: u32, value: Option<u64>) {
        let flags = if value.is_some() { 0 } else { MsrAccess::REFUSED };
        let body = MsrAccess { msr, flags, value: value.unwrap_or_default() };
        self.on_vp(Kind::Msr, layout::GUEST, vp, &[body.as_bytes()]);
    }

    /// An MSR was written, or the guest was refused that.
    pub fn msr_written(&self, vp: u32, msr: u32, value: u64, done: bool) {
        let refused = if done { 0 } else { MsrAccess::REFUSED };
        let body = MsrAccess { msr, flags: MsrAccess::WRITE | refused, value };
        self.on_vp(Kind::Msr, layout::GUEST, vp, &[body.as_bytes()]);
    }

    /// A VP's SynIC was set up.
    pub fn synic(&self, vp: u32, registers: SynicRegisters) {
        let SynicRegisters { control, message_page, event_page } = registers;
        let body = SynicState { control, message_page, event_page };
        self.on_vp(Kind::Synic, layout::GUEST, vp, &[body.as_bytes()]);
    }

    fn on_vp(&self, kind: Kind, side: u8, vp: u32, parts: &[&[u8]]) {
        self.recorder.record(Header { vp, ..Header::new(kind, side) }, parts);
    }

    fn on_channel(&self, place: &Place, event: &Event<'_>) {
        let header = |kind, side| {
            let Place { key, class, instance, subchannel, .. } = *place;
            let (channel, class, instance) = (key.number(), class.0, instance.0);
            Header { channel, subchannel, class, instance, ..Header::new(kind, side) }
        };
        match *event {
            Event::Opened { target, incoming_len, outgoing_len } => {
                let (vp, flag) = match target {
                    InterruptTarget::Polled => (NONE, NONE),
                    InterruptTarget::EventFlag { vp, flag, .. } => (vp, flag.into()),
                    InterruptTarget::InterruptPage { bit, .. } => (0, bit.into()),
                };
                let connection_id = place.connection_id;
                let body = Opened { connection_id, incoming_len, outgoing_len, flag };
                let header = Header { vp, ..header(Kind::Opened, layout::HOST) };
                self.recorder.record(header, &[body.as_bytes()]);
            }
            Event::Turn(cause) => {
                let (side, cause, token) = match cause {
                    Cause::Start => (layout::HOST, Turn::START, 0),
                    Cause::Signal => (layout::GUEST, Turn::SIGNAL, 0),
                    Cause::More => (layout::HOST, Turn::MORE, 0),
                    Cause::BackEnd(token) => (layout::HOST, Turn::BACK_END, token),
                };
                let body = Turn { cause, token };
                self.recorder.record(header(Kind::Turn, side), &[body.as_bytes()]);
            }
            Event::Packet { side, at, descriptor, header: between, payload } => {
                let header = Header { at, ..header(Kind::Packet, side_of(side)) };
                self.recorder.record(header, &[descriptor.as_bytes(), between, payload]);
            }
            Event::Outside { side, transaction_id, len, read } => {
                let start = Outside { transaction_id };
                let mut data = vec![0; len.min(self.recorder.snap())];
                let kept = read(&mut data).min(data.len());
                let data = data.get(..kept).unwrap_or_default();
                let header = header(Kind::Outside, side_of(side));
                let len = size_of::<Outside>() + len;
                self.recorder.record_start(header, len, &[start.as_bytes(), data]);
            }
            // Whoever reads the capture has the times of both.
            Event::Timed(_) => {}
            Event::Published(rings) => {
                let body = published(rings);
                self.recorder.record(header(Kind::Published, layout::HOST), &[body.as_bytes()]);
            }
            Event::Closed => self.recorder.record(header(Kind::Closed, layout::HOST), &[]),
        }
    }
}

impl Tap for Capture {
    fn passes(&self, what: &Passing<'_>) {
        match what {
            Passing::GuestMessage(bytes) => {
                self.recorder.record(Header::new(Kind::Message, layout::GUEST), &[bytes]);
            }
            Passing::HostMessage(target, bytes) => {
                let (vp, at) = (target.vp, target.sint.into());
                let header = Header { vp, at, ..Header::new(Kind::Message, layout::HOST) };
                self.recorder.record(header, &[bytes]);
            }
            Passing::Channel(place, event) => self.on_channel(place, event),
        }
    }

    fn wants_data(&self) -> bool {
        self.data
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let Summary { records, lost, error } = self.recorder.finish();
        let path = self.path.display();
        if let Some(error) = error {
            error!("--capture {path}: the file could not be written any further: {error}");
        }
        if lost != 0 {
            warn!("--capture {path}: {lost} records were lost, {records} are in the file");
        } else {
            info!("--capture {path}: {records} records, none lost");
        }
    }
}

const fn side_of(side: Side) -> u8 {
    match side {
        Side::Guest => layout::GUEST,
        Side::Host => layout::HOST,
    }
}

fn published(rings: Published) -> layout::Published {
    let flag = |set, flag| if set { flag } else { 0 };
    layout::Published {
        incoming_read: rings.incoming_read,
        incoming_write: rings.incoming_write,
        incoming_pending: rings.incoming_pending,
        outgoing_read: rings.outgoing_read,
        outgoing_write: rings.outgoing_write,
        outgoing_mask: rings.outgoing_mask,
        flags: flag(rings.reader_waits, layout::Published::READER_WAITS)
            | flag(rings.writer_waits, layout::Published::WRITER_WAITS),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use busway_capture::decode::Decoded;
    use busway_capture::{Decoder, Reader};
    use busway_integration::Heartbeat;
    use busway_testkit::{Pair, PairConfig};
    use busway_wire::{Version, class};

    use super::*;

    /// What a capture of `guest` says.
    fn captured(pages: bool, guest: impl FnOnce(&Arc<Capture>)) -> Vec<Decoded> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.pcapng");
        let spec = CaptureSpec { file: file.clone(), snap: 4096, pages };
        let capture = Arc::new(Capture::start(&spec).unwrap());
        guest(&capture);
        assert_eq!(Arc::strong_count(&capture), 1, "the end of the machine is that of its capture");
        drop(capture);
        let mut reader = Reader::new(File::open(file).unwrap());
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            all.push(decoder.decode(&record));
        }
        assert_eq!(reader.statistics().unwrap().lost, 0);
        all
    }

    #[test]
    fn all_that_a_bus_does_is_recorded_and_understood() {
        let all = captured(false, |capture| {
            let mut pair = Pair::new(PairConfig::default());
            pair.bus.tap(capture.clone());
            pair.add(Heartbeat::new(Duration::from_secs(2)).unwrap().device());
            let offer = *pair.connect(Version::V5_3).offer(class::HEARTBEAT);
            let channel = pair.open(&offer, 4, 0).unwrap();
            pair.close(channel);
        });
        let unknown: Vec<_> = all.iter().filter(|decoded| !decoded.known).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        let has = |kind, text: &str| {
            let is = |decoded: &&Decoded| decoded.kind == Some(kind) && decoded.text.contains(text);
            assert!(all.iter().any(|decoded| is(&decoded)), "no {kind:?} {text}: {all:#?}");
        };
        has(Kind::Message, "INITIATE_CONTACT version=5.3");
        has(Kind::Message, "OFFER_CHANNEL");
        has(Kind::Opened, "guest's ring 12288 B");
        has(Kind::Turn, "the channel starts");
        has(Kind::Packet, "NEGOTIATE");
        has(Kind::Published, "interrupt, for packets");
        has(Kind::Closed, "");
        let opened = all.iter().find(|decoded| decoded.text.starts_with("OPEN_CHANNEL_RESULT"));
        assert_eq!(opened.unwrap().answers.as_ref().unwrap().name, "OPEN_CHANNEL");
    }

    #[test]
    fn what_processors_do_is_recorded() {
        let all = captured(false, |capture| {
            capture.hypercall(1, 0x1_005d, 7, 0, 0);
            capture.msr_read(1, 0x4000_0020, Some(5));
            capture.msr_read(1, 0x4000_0fff, None);
            capture.msr_written(1, 0x4000_0080, 1, true);
            let page = 0x3001;
            capture.synic(1, SynicRegisters { control: 1, message_page: page, event_page: 0 });
            let target = InterruptTarget::InterruptPage { page: 0x5000, bit: 9 };
            capture.event_flag(target, (1, 2, 0), true);
        });
        let texts: Vec<_> = all.iter().map(|decoded| &*decoded.text).collect();
        assert_eq!(
            texts,
            [
                "SIGNAL_EVENT fast connection=0x7 flag=0: SUCCESS",
                "TIME_REF_COUNT is 0x5",
                "MSR 0x40000fff is not to be read",
                "SCONTROL becomes 0x1",
                "SynIC on, messages 0x3000, events off",
                "bit 9 of the page at 0x5000, flag 0 of VP 1 SINT 2: interrupt",
            ]
        );
        assert!(all.iter().all(|decoded| decoded.known && decoded.vp == Some(1)));
    }
}
