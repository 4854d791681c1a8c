// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules on channel messages.

use busway_wire::control::layout::{
    GpadlBody, GpadlCreated, GpadlHeader, GpadlTeardown, GpadlTorndown, InitiateContactBody,
    ModifyChannel, OfferChannel, OpenChannelBody, OpenResult, Relid, VersionResponseBody,
};
use busway_wire::control::{
    GuestMessage, HostMessage, InitiateContact, OpenChannel, VersionResponse,
};
use zerocopy::FromZeros;

use super::*;

const RELID: u32 = 3;
const GPADL: u32 = 0xe1e10;

impl Bench {
    fn says(&mut self, message: &GuestMessage<'_>) {
        self.guest(message.encode().as_bytes());
    }

    /// A guest that has connected in `version` and was offered [`RELID`].
    fn connected(version: Version) -> Self {
        let mut bench = Self::default();
        bench.contact(version, if version < Version::V5_0 { 0x5000 } else { 2 });
        bench.says(&GuestMessage::RequestOffers);
        let offer = OfferChannel { relid: RELID, ..OfferChannel::new_zeroed() };
        bench.host(&HostMessage::Offer(Box::new(offer)));
        assert_eq!(bench.broken(), []);
        bench
    }

    fn contact(&mut self, version: Version, target: u64) {
        let body = InitiateContactBody {
            version,
            target_vp: 0,
            interrupt_page_or_target: target,
            monitor_page_to_guest: 0,
            monitor_page_to_host: 0,
        };
        self.says(&GuestMessage::InitiateContact(InitiateContact { body, client_id: None }));
        let mut body = VersionResponseBody::new_zeroed();
        body.supported = 1;
        self.host(&HostMessage::VersionResponse(VersionResponse { body, features: None }));
    }

    /// A GPADL of two pages.
    fn gpadl(&mut self, relid: u32, gpadl: u32) {
        self.gpadl_with(GpadlHeader { relid, gpadl, range_buffer_len: 24, range_count: 1 }, 0, 2);
    }

    fn gpadl_with(&mut self, header: GpadlHeader, offset: u32, pfns: u64) {
        let mut ranges = 0x2000_u32.to_le_bytes().to_vec();
        ranges.extend(offset.to_le_bytes());
        ranges.extend((0..pfns).flat_map(u64::to_le_bytes));
        self.says(&GuestMessage::GpadlHeader(header, &ranges));
    }

    fn created(&mut self, status: u32) {
        let created = GpadlCreated { relid: RELID, gpadl: GPADL, status };
        self.host(&HostMessage::GpadlCreated(created));
    }

    fn open(&mut self, relid: u32, ring_gpadl: u32) {
        let mut body = OpenChannelBody::new_zeroed();
        (body.relid, body.ring_gpadl) = (relid, ring_gpadl);
        self.says(&GuestMessage::OpenChannel(OpenChannel { body, signal: None }));
    }

    fn close(&mut self, relid: u32) {
        self.says(&GuestMessage::CloseChannel(Relid { relid }));
    }

    fn teardown(&mut self, relid: u32, gpadl: u32) {
        self.says(&GuestMessage::GpadlTeardown(GpadlTeardown { relid, gpadl }));
    }

    fn opened() -> Self {
        let mut bench = Self::connected(Version::V5_3);
        bench.gpadl(RELID, GPADL);
        bench.created(0);
        bench.open(RELID, GPADL);
        assert_eq!(bench.broken(), []);
        bench
    }
}

#[test]
fn types_and_lengths() {
    let mut bench = Bench::connected(Version::V5_3);
    bench.guest(&[1, 0, 0, 0, 0, 0, 0, 0]);
    bench.guest(&[0xee, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.broken(), [Rule::ControlUnknown; 2]);
    bench.guest(&[3, 0, 0]);
    bench.guest(&[11, 0, 0, 0, 0, 0, 0, 0, 1]);
    bench.guest(&[16, 0, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(bench.broken(), [Rule::ControlLength; 3]);
    let mut bench = Bench::connected(Version::V5_3);
    bench.guest(&[16, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(bench.broken(), [Rule::ControlPadding]);
}

#[test]
fn a_part_of_a_pfn_is_a_wrong_length() {
    let mut bench = Bench::connected(Version::V5_3);
    let header = GpadlHeader { relid: RELID, gpadl: 1, range_buffer_len: 24, range_count: 1 };
    let mut ranges = 0x2000_u64.to_le_bytes().to_vec();
    ranges.extend([0; 20]);
    bench.says(&GuestMessage::GpadlHeader(header, &ranges));
    assert_eq!(bench.broken(), [Rule::ControlLength]);
}

#[test]
fn nothing_is_said_without_a_connection() {
    let mut bench = Bench::default();
    bench.says(&GuestMessage::RequestOffers);
    assert_eq!(bench.broken(), [Rule::ControlUnconnected]);
    let mut bench = Bench::connected(Version::V5_3);
    bench.says(&GuestMessage::Unload);
    assert_eq!(bench.broken(), []);
    bench.close(RELID);
    assert_eq!(bench.broken(), [Rule::ControlUnconnected]);
}

#[test]
fn messages_have_a_first_version() {
    let modify = GuestMessage::ModifyChannel(ModifyChannel { relid: RELID, target_vp: 0 });
    let mut bench = Bench::connected(Version::V4_0);
    bench.gpadl(RELID, GPADL);
    bench.open(RELID, GPADL);
    bench.says(&modify);
    assert_eq!(bench.broken(), [Rule::ControlVersion]);
    let mut bench = Bench::opened();
    bench.says(&modify);
    assert_eq!(bench.broken(), []);
    bench.says(&GuestMessage::Pause);
    assert_eq!(bench.broken(), [Rule::ControlVersion]);
}

#[test]
fn a_contact_has_reserved_bits() {
    let mut bench = Bench::default();
    bench.contact(Version::V4_0, 0xffff_5000);
    bench.contact(Version::V6_0, 0x1 << 32 | 2);
    assert_eq!(bench.broken(), []);
    bench.contact(Version::V5_3, 0x1 << 32 | 2);
    bench.contact(Version::V6_0, 0x100 << 32 | 2);
    bench.contact(Version::V5_0, 0x10002);
    assert_eq!(bench.broken(), [Rule::ContactReserved; 3]);
}

#[test]
fn offers_are_asked_for_once() {
    let mut bench = Bench::connected(Version::V5_3);
    bench.says(&GuestMessage::RequestOffers);
    assert_eq!(bench.broken(), [Rule::OffersTwice]);
    // Another connection.
    bench.contact(Version::V5_2, 2);
    bench.says(&GuestMessage::RequestOffers);
    assert_eq!(bench.broken(), []);
}

#[test]
fn channels_are_known_until_they_are_released() {
    let mut bench = Bench::connected(Version::V5_3);
    bench.gpadl(9, GPADL);
    bench.open(9, GPADL);
    bench.close(9);
    assert_eq!(bench.broken(), [Rule::ChannelUnknown; 3]);
    bench.host(&HostMessage::Rescind(Relid { relid: RELID }));
    bench.says(&GuestMessage::RelidReleased(Relid { relid: RELID }));
    assert_eq!(bench.broken(), []);
    bench.says(&GuestMessage::RelidReleased(Relid { relid: RELID }));
    assert_eq!(bench.broken(), [Rule::ChannelUnknown]);
    let mut bench = Bench::opened();
    bench.says(&GuestMessage::RelidReleased(Relid { relid: RELID }));
    assert_eq!(bench.broken(), [Rule::ReleaseOpen]);
}

#[test]
fn an_open_channel_is_not_opened_and_a_closed_one_not_closed() {
    let mut bench = Bench::opened();
    bench.open(RELID, GPADL);
    assert_eq!(bench.broken(), [Rule::OpenTwice]);
    bench.close(RELID);
    assert_eq!(bench.broken(), []);
    bench.close(RELID);
    bench.says(&GuestMessage::ModifyChannel(ModifyChannel { relid: RELID, target_vp: 0 }));
    assert_eq!(bench.broken(), [Rule::UseAfterClose; 2]);
    bench.open(RELID, GPADL);
    let result = OpenResult { relid: RELID, open_id: 0, status: 0xc000_0001 };
    bench.host(&HostMessage::OpenResult(result));
    assert_eq!(bench.broken(), []);
    bench.close(RELID);
    assert_eq!(bench.broken(), [Rule::UseAfterClose]);
}

#[test]
fn what_crosses_a_rescind_is_no_fault() {
    let mut bench = Bench::opened();
    bench.close(RELID);
    bench.host(&HostMessage::Rescind(Relid { relid: RELID }));
    bench.close(RELID);
    bench.teardown(RELID, GPADL);
    bench.teardown(RELID, 77);
    assert_eq!(bench.broken(), []);
}

#[test]
fn rings_are_a_complete_gpadl_of_their_channel() {
    let mut bench = Bench::connected(Version::V5_3);
    bench.open(RELID, GPADL);
    assert_eq!(bench.broken(), [Rule::OpenGpadl]);
    bench.close(RELID);
    let header = GpadlHeader { relid: RELID, gpadl: GPADL, range_buffer_len: 24, range_count: 1 };
    bench.gpadl_with(header, 0, 1);
    bench.open(RELID, GPADL);
    assert_eq!(bench.broken(), [Rule::OpenGpadl]);
    bench.close(RELID);
    let body = GuestMessage::GpadlBody(GpadlBody { message_number: 0, gpadl: GPADL }, &[0; 8]);
    bench.says(&body);
    bench.open(RELID, GPADL);
    assert_eq!(bench.broken(), []);
    bench.says(&body);
    assert_eq!(bench.broken(), [Rule::GpadlBody]);
}

#[test]
fn gpadls_live_from_header_to_torndown() {
    let mut bench = Bench::opened();
    bench.gpadl(RELID, GPADL);
    assert_eq!(bench.broken(), [Rule::GpadlReuse]);
    bench.teardown(RELID, GPADL);
    assert_eq!(bench.broken(), [Rule::GpadlInUse]);
    bench.close(RELID);
    bench.teardown(RELID, GPADL);
    assert_eq!(bench.broken(), [Rule::GpadlUnknown], "a second time");
    bench.host(&HostMessage::GpadlTorndown(GpadlTorndown { gpadl: GPADL }));
    bench.gpadl(RELID, GPADL);
    bench.created(0xc000_0001);
    bench.gpadl(RELID, GPADL);
    assert_eq!(bench.broken(), []);
    bench.teardown(RELID, 77);
    assert_eq!(bench.broken(), [Rule::GpadlUnknown]);
}

#[test]
fn ranges_are_as_long_as_they_say() {
    let mut bench = Bench::connected(Version::V5_3);
    let header = GpadlHeader { relid: RELID, gpadl: 1, range_buffer_len: 32, range_count: 1 };
    bench.gpadl_with(header, 0, 2);
    assert_eq!(bench.broken(), [Rule::GpadlLength]);
    bench.gpadl_with(GpadlHeader { gpadl: 2, ..header }, 8, 3);
    assert_eq!(bench.broken(), []);
    bench.gpadl_with(GpadlHeader { gpadl: 3, range_buffer_len: 32, ..header }, 0x1000, 3);
    bench.gpadl_with(GpadlHeader { gpadl: 4, range_count: 0, ..header }, 0, 2);
    assert_eq!(bench.broken(), [Rule::GpadlRange; 2]);
}

#[test]
fn a_guest_cannot_make_the_checker_grow() {
    let mut bench = Bench::connected(Version::V5_3);
    for gpadl in 0..100_000 {
        bench.gpadl(RELID, gpadl);
    }
    bench.teardown(RELID, 99_999);
    bench.open(RELID, 99_999);
    assert_eq!(bench.broken(), [], "what is not followed is not held against it");
    assert_eq!(bench.checker.connection.gpadls(), 8192);
}
