// SPDX-License-Identifier: MIT OR Apache-2.0

//! Records by their kind.

use std::fmt::Write;

use busway_hyperv::msr;
use busway_wire::control::{GuestMessage, HostMessage};
use busway_wire::hypercall::{CallCode, Control, SignalEvent, Status};
use busway_wire::packet::{Descriptor, GpaRanges, PacketType, TransferPageHeader, TransferRange};
use busway_wire::{class, rndis};
use zerocopy::{FromBytes, IntoBytes};

use super::pairs::{Ask, Key, Pairs};
use super::payload::{self, Meaning, Packet};
use super::{About, Said, Side};
use crate::layout::{
    EventFlag, Hypercall, Kind, Lost, MsrAccess, Opened, Outside, Published, SynicState, Turn,
};
use crate::reader::Record;

pub(super) fn explain(kind: Kind, about: &mut About<'_>, pairs: &mut Pairs) -> Said {
    let body = &*about.record.body;
    match kind {
        Kind::Message => message(about, pairs),
        Kind::Packet => packet(about, pairs),
        Kind::Outside => outside(about, pairs),
        Kind::Published => fixed(body, published),
        Kind::Turn => fixed(body, turn),
        Kind::Opened => {
            pairs.forget(about.channel());
            fixed(body, opened)
        }
        Kind::Closed => {
            pairs.forget(about.channel());
            Said::known("closed")
        }
        Kind::EventFlag => fixed(body, |flag| event_flag(flag, about.record.header.vp)),
        Kind::Hypercall => fixed(body, hypercall),
        Kind::Msr => fixed(body, msr_access),
        Kind::Synic => fixed(body, synic),
        Kind::Lost => fixed(body, |Lost { count }| {
            Said::known(format!("{count} records found no room, and are missing here"))
        }),
    }
}

pub(super) fn lost(record: &Record) -> u64 {
    Lost::read_from_prefix(&record.body).map_or(0, |(Lost { count }, _)| count)
}

/// Explains a body of one layout.
fn fixed<T: FromBytes>(body: &[u8], explain: impl FnOnce(T) -> Said) -> Said {
    match T::read_from_prefix(body) {
        Ok((body, _)) => explain(body),
        Err(_) => Said::unknown(format!("{} B, where {} are needed", body.len(), size_of::<T>())),
    }
}

fn message(about: &mut About<'_>, pairs: &mut Pairs) -> Said {
    let body = &*about.record.body;
    match about.side {
        Side::Guest => match GuestMessage::parse(body) {
            Ok(message) => {
                let text = message.to_string();
                if let Some((ask, of)) = asks(&message) {
                    let name = text.split(' ').next().unwrap_or_default();
                    pairs.ask(Key::Message(ask, of), about, name, 0);
                }
                Said::known(text)
            }
            Err(error) => Said::unknown(error),
        },
        Side::Host => match HostMessage::parse(body) {
            Ok(message) => {
                if let Some((ask, of)) = answers(&message) {
                    pairs.answer(Key::Message(ask, of), about);
                }
                Said::known(message)
            }
            Err(error) => Said::unknown(error),
        },
    }
}

fn asks(message: &GuestMessage<'_>) -> Option<(Ask, u32)> {
    Some(match message {
        GuestMessage::InitiateContact(_) => (Ask::Contact, 0),
        GuestMessage::RequestOffers => (Ask::Offers, 0),
        GuestMessage::GpadlHeader(header, _) => (Ask::Gpadl, header.gpadl),
        GuestMessage::GpadlTeardown(body) => (Ask::Teardown, body.gpadl),
        GuestMessage::OpenChannel(open) => (Ask::Open, open.body.relid),
        GuestMessage::ModifyChannel(body) => (Ask::Modify, body.relid),
        GuestMessage::ModifyConnection(_) => (Ask::Connection, 0),
        GuestMessage::Pause => (Ask::Pause, 0),
        GuestMessage::Unload => (Ask::Unload, 0),
        GuestMessage::GpadlBody(..)
        | GuestMessage::CloseChannel(_)
        | GuestMessage::RelidReleased(_)
        | GuestMessage::TlConnectRequest(..)
        | GuestMessage::OpenReservedChannel(_)
        | GuestMessage::CloseReservedChannel(_)
        | GuestMessage::Resume => return None,
    })
}

fn answers(message: &HostMessage) -> Option<(Ask, u32)> {
    Some(match message {
        HostMessage::VersionResponse(_) => (Ask::Contact, 0),
        HostMessage::AllOffersDelivered => (Ask::Offers, 0),
        HostMessage::GpadlCreated(body) => (Ask::Gpadl, body.gpadl),
        HostMessage::GpadlTorndown(body) => (Ask::Teardown, body.gpadl),
        HostMessage::OpenResult(body) => (Ask::Open, body.relid),
        HostMessage::ModifyChannelResponse(body) => (Ask::Modify, body.relid),
        HostMessage::ModifyConnectionResponse(_) => (Ask::Connection, 0),
        HostMessage::PauseResponse => (Ask::Pause, 0),
        HostMessage::UnloadResponse => (Ask::Unload, 0),
        HostMessage::Offer(_)
        | HostMessage::Rescind(_)
        | HostMessage::CloseReservedResponse(_)
        | HostMessage::TlConnectResult(_) => return None,
    })
}

fn packet(about: &mut About<'_>, pairs: &mut Pairs) -> Said {
    let body = &*about.record.body;
    let Ok((descriptor, rest)) = Descriptor::read_from_prefix(body) else {
        return Said::unknown(format!("a packet of {} B", body.len()));
    };
    let header_len = descriptor.data_offset().saturating_sub(size_of::<Descriptor>());
    let (header, payload) = rest.split_at_checked(header_len).unwrap_or((rest, &[]));
    let (channel, side, id) = (about.channel(), about.side, descriptor.transaction_id);
    let completes = descriptor.kind == PacketType::COMPLETION;
    let key = Key::Packet(channel, side.other(), id);
    let asked = pairs.peek(key).filter(|_| completes).map(|asked| asked.operation);
    let packet = Packet { side, kind: descriptor.kind, payload, asked };
    let mut meaning = Meaning::default();
    let class = about.channel.map(|channel| channel.class).unwrap_or_default();
    let said = payload::explain(class, &packet, &mut meaning);
    if completes {
        pairs.answer(key, about);
    } else if descriptor.wants_completion() {
        pairs.ask(Key::Packet(channel, side, id), about, &name(&said.text), meaning.operation);
    }
    match meaning.component {
        Some((id, false)) => pairs.ask(Key::Component(channel, id), about, &name(&said.text), 0),
        Some((id, true)) => pairs.answer(Key::Component(channel, id), about),
        None => {}
    }
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(text, "@{:#x} {descriptor}", about.record.header.at);
    ranges(&mut text, &descriptor, header);
    let _ = write!(text, " | {}", said.text);
    Said::of(text, said.known && descriptor.kind.name().is_some())
}

/// What a request is called where there is room for a few words only.
fn name(text: &str) -> String {
    let words = |text: &str| text.split(' ').take(3).collect::<Vec<_>>().join(" ");
    match text.strip_prefix("EXECUTE_SRB ").and_then(|srb| srb.split_once(' ')) {
        Some((_, command)) => words(command),
        None => words(text),
    }
}

/// Where the data of a packet is that is not in it.
fn ranges(text: &mut String, descriptor: &Descriptor, header: &[u8]) {
    match descriptor.kind {
        PacketType::DATA_USING_GPA_DIRECT => {
            let Ok(ranges) = GpaRanges::parse(header) else { return };
            for range in ranges.map_while(Result::ok).take(MOST_RANGES) {
                let (len, pages) = (range.header.byte_count, range.pfns().len());
                let _ = write!(text, " +{len} B in {pages} pages");
            }
        }
        PacketType::DATA_USING_TRANSFER_PAGES => {
            let Ok((start, rest)) = TransferPageHeader::read_from_prefix(header) else { return };
            let _ = write!(text, " buffer={:#x}", start.page_set_id);
            let count = (start.range_count as usize).min(MOST_RANGES);
            for range in rest.as_chunks::<8>().0.iter().take(count) {
                if let Ok(range) = TransferRange::read_from_bytes(range) {
                    let _ = write!(text, " {}+{}", range.byte_offset, range.byte_count);
                }
            }
        }
        _ => {}
    }
}

/// Ranges of one packet that are printed.
const MOST_RANGES: usize = 8;

fn outside(about: &mut About<'_>, pairs: &mut Pairs) -> Said {
    let body = &*about.record.body;
    let Ok((Outside { transaction_id: id }, data)) = Outside::read_from_prefix(body) else {
        return Said::unknown(format!("{} B of data of a packet", body.len()));
    };
    let class = about.channel.map(|channel| channel.class);
    let len = (about.record.header.len as usize).saturating_sub(size_of::<Outside>());
    if class != Some(class::NETWORK) {
        let look = data.get(..16).unwrap_or(data);
        return Said::known(format!("id={id:#x} | {len} B of data: {look:02x?}"));
    }
    let message = rndis::Text(data);
    let text = message.to_string();
    if let Some(id) = message.request_id() {
        let key = Key::Rndis(about.channel(), id);
        if message.is_answer() {
            pairs.answer(key, about);
        } else {
            pairs.ask(key, about, &name(&text), 0);
        }
    }
    Said::of(format!("id={id:#x} | {text}"), message.is_known())
}

fn published(rings: Published) -> Said {
    let Published { incoming_read, incoming_write, incoming_pending, .. } = rings;
    let Published { outgoing_read, outgoing_write, outgoing_mask, flags, .. } = rings;
    let mut text = format!(
        "guest's ring read {incoming_read:#x} written {incoming_write:#x}, \
         host's ring read {outgoing_read:#x} written {outgoing_write:#x}"
    );
    if incoming_pending != 0 {
        let _ = write!(text, ", the guest waits for {incoming_pending} B");
    }
    let reader = flags & Published::READER_WAITS != 0;
    let writer = flags & Published::WRITER_WAITS != 0;
    text.push_str(match (reader, writer) {
        (true, true) => ": interrupt, for packets and for room",
        (true, false) => ": interrupt, for packets",
        (false, true) => ": interrupt, for room",
        (false, false) if outgoing_mask != 0 => ": no interrupt, masked",
        (false, false) => ": no interrupt",
    });
    Said::known(text)
}

fn turn(Turn { cause, token }: Turn) -> Said {
    match cause {
        Turn::START => Said::known("the channel starts"),
        Turn::SIGNAL => Said::known("the guest signals"),
        Turn::MORE => Said::known("more is to be done"),
        Turn::BACK_END => Said::known(format!("back end {token} is ready")),
        cause => Said::unknown(format!("cause {cause}")),
    }
}

fn opened(opened: Opened) -> Said {
    let Opened { connection_id, incoming_len, outgoing_len, flag } = opened;
    Said::known(format!(
        "opened: connection={connection_id:#x} flag={flag} guest's ring {incoming_len} B, \
         host's ring {outgoing_len} B"
    ))
}

fn event_flag(event: EventFlag, vp: u32) -> Said {
    let EventFlag { page, page_bit, flag, sint, raised, .. } = event;
    let mut text = String::new();
    if page != 0 {
        let _ = write!(text, "bit {page_bit} of the page at {page:#x}, ");
    }
    let _ = write!(text, "flag {flag} of VP {vp} SINT {sint}: ");
    text.push_str(if raised != 0 { "interrupt" } else { "no interrupt, it is set" });
    Said::known(text)
}

fn hypercall(call: Hypercall) -> Said {
    let Hypercall { control, input, output, result } = call;
    let control = Control(control);
    let status = Status((result & 0xffff) as u16);
    let mut text = control.to_string();
    if control.is_fast() && control.code() == CallCode::SIGNAL_EVENT {
        if let Ok(signal) = SignalEvent::read_from_bytes(input.as_bytes()) {
            let _ = write!(text, " connection={:#x} flag={}", signal.connection_id, signal.flag);
        }
    } else {
        let _ = write!(text, " input={input:#x} output={output:#x}");
    }
    let _ = write!(text, ": {status}");
    Said::of(text, control.code().name().is_some() && status.name().is_some())
}

/// What a synthetic MSR is called.
pub fn msr_name(msr: u32) -> Option<String> {
    match msr {
        _ if msr::name(msr).is_some() => msr::name(msr).map(str::to_owned),
        msr::SINT0..=msr::SINT15 => Some(format!("SINT{}", msr - msr::SINT0)),
        msr::STIMER0_CONFIG..=msr::STIMER3_COUNT => {
            let (timer, what) = ((msr - msr::STIMER0_CONFIG) / 2, msr % 2);
            Some(format!("STIMER{timer}_{}", if what == 0 { "CONFIG" } else { "COUNT" }))
        }
        msr::CRASH_P0..=msr::CRASH_P4 => Some(format!("CRASH_P{}", msr - msr::CRASH_P0)),
        _ => None,
    }
}

fn msr_access(access: MsrAccess) -> Said {
    let MsrAccess { msr, flags, value } = access;
    let name = msr_name(msr);
    let known = name.is_some();
    let name = name.unwrap_or_else(|| format!("MSR {msr:#x}"));
    let refused = flags & MsrAccess::REFUSED != 0;
    let text = match (flags & MsrAccess::WRITE != 0, refused) {
        (true, false) => format!("{name} becomes {value:#x}"),
        (true, true) => format!("{name} is refused {value:#x}"),
        (false, false) => format!("{name} is {value:#x}"),
        (false, true) => format!("{name} is not to be read"),
    };
    // A guest may try anything; that it is told no is an answer.
    Said::of(text, known || refused)
}

fn synic(state: SynicState) -> Said {
    let SynicState { control, message_page, event_page } = state;
    let page = |register: u64| match register & msr::ENABLE {
        0 => "off".to_owned(),
        _ => format!("{:#x}", register & !0xfff),
    };
    let on = if control & msr::ENABLE != 0 { "on" } else { "off" };
    Said::known(format!("SynIC {on}, messages {}, events {}", page(message_page), page(event_page)))
}
