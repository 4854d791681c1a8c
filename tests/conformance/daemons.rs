// SPDX-License-Identifier: MIT OR Apache-2.0

//! Components behind which a daemon of the guest stands: pairs, snapshots, file copy.

use std::ops::ControlFlow;

use busway_integration::{Addresses, CopyError, Failure, FileCopy, Kvp, Target, Vss};
use busway_wire::Guid;
use busway_wire::ic::Status;
use busway_wire::ic::file_copy::StartFlags;
use busway_wire::ic::kvp::{Families, Pool, Value};
use busway_wire::ic::vss::HotBackup;

use crate::integration::{Question, Utils, asking};

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Text in UTF-16 up to its zero.
fn text(bytes: &[u8]) -> String {
    let units = bytes.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    String::from_utf16(&units.take_while(|unit| *unit != 0).collect::<Vec<_>>()).unwrap()
}

/// `struct hv_kvp_exchg_msg_value` with a text.
fn pair(key: &str, value: &str) -> Vec<u8> {
    let utf16 = |text: &str, len: usize| {
        let mut bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        bytes.resize(len, 0);
        bytes
    };
    let sizes = [1, 2 * key.len() as u32 + 2, 2 * value.len() as u32 + 2];
    let mut bytes: Vec<u8> = sizes.into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.extend(utf16(key, 512));
    bytes.extend(utf16(value, 2048));
    bytes
}

/// Answers the next question with what `answer` makes of it.
fn answer(utils: &mut Utils, answer: impl FnOnce(&Question) -> (Status, Vec<u8>)) {
    let question = utils.question();
    let (status, body) = answer(&question);
    utils.answer(&question, status, &body);
    utils.pair.work();
}

#[test]
fn pairs_are_written() {
    let kvp = Kvp::new().unwrap();
    let mut utils = Utils::agreed(kvp.device(), 4, 0);
    let guest = || {
        answer(&mut utils, |question| {
            let body = question.body();
            assert_eq!(body[..4], [1, 0, 0, 0], "SET, of the pool EXTERNAL");
            assert_eq!((text(&body[16..]), text(&body[528..])), ("k".into(), "v".into()));
            (Status::OK, vec![])
        });
    };
    let value = Value::Text("v".to_owned());
    assert_eq!(asking(guest, || kvp.set(Pool::EXTERNAL, "k", &value)), Ok(()));
    let guest = || {
        answer(&mut utils, |question| {
            let body = question.body();
            assert_eq!((body[0], u32_at(body, 4), text(&body[8..])), (2, 4, "k".to_owned()));
            (Status::FAIL, vec![])
        });
    };
    let deleted = asking(guest, || kvp.delete(Pool::EXTERNAL, "k"));
    assert_eq!(deleted, Err(Failure::Refused(Status::FAIL)));
}

#[test]
fn a_pool_is_listed_to_its_end() {
    let kvp = Kvp::new().unwrap();
    let mut utils = Utils::agreed(kvp.device(), 4, 0);
    let guest = || {
        for (index, key) in (0..).zip(["a", "b"]) {
            answer(&mut utils, |question| {
                assert_eq!((question.body()[0], u32_at(question.body(), 4)), (3, index));
                (Status::OK, [&question.body()[..8], &pair(key, "x")].concat())
            });
        }
        answer(&mut utils, |_| (Status::NO_MORE_ITEMS, vec![]));
    };
    let x = || Value::Text("x".to_owned());
    let pairs = asking(guest, || kvp.list(Pool::GUEST));
    assert_eq!(pairs, Ok(vec![("a".to_owned(), x()), ("b".to_owned(), x())]));
    for (key, value) in [("a", Some(x())), ("c", None)] {
        let guest = || {
            answer(&mut utils, |_| (Status::OK, [&[0; 8][..], &pair("a", "x")].concat()));
            answer(&mut utils, |_| (Status::NO_MORE_ITEMS, vec![]));
        };
        assert_eq!(asking(guest, || kvp.get(Pool::GUEST, key)), Ok(value));
    }
}

/// A guest that never comes to an end does not keep the host for ever.
#[test]
fn a_pool_without_end_has_one() {
    let kvp = Kvp::new().unwrap();
    let mut utils = Utils::agreed(kvp.device(), 4, 0);
    let guest = || (0..4096).for_each(|_| answer(&mut utils, |_| (Status::OK, vec![])));
    assert_eq!(asking(guest, || kvp.list(Pool::GUEST)).unwrap().len(), 4096);
}

#[test]
fn a_value_that_is_too_long_does_not_reach_the_guest() {
    let kvp = Kvp::new().unwrap();
    let mut utils = Utils::agreed(kvp.device(), 4, 0);
    let value = Value::Text("x".repeat(1 << 20));
    let failure = kvp.set(Pool::EXTERNAL, "k", &value).unwrap_err();
    assert!(failure.to_string().contains("1048576 UTF-16 units"), "{failure}");
    utils.pair.work();
    assert_eq!(utils.channel.try_receive(&mut utils.pair), None);
}

#[test]
fn addresses_are_given_and_read() {
    let kvp = Kvp::new().unwrap();
    let mut utils = Utils::agreed(kvp.device(), 4, 0);
    let adapter = Guid::from_text_order(0x11223344_5566_7788_99aa_bbccddeeff00);
    let addresses = Addresses {
        dhcp: false,
        families: Families::IPV4,
        addresses: vec!["10.0.0.2".to_owned(), "10.0.0.3".to_owned()],
        masks: vec!["255.255.255.0".to_owned(), "255.0.0.0".to_owned()],
        gateways: vec!["10.0.0.1".to_owned()],
        name_servers: vec!["10.0.0.1".to_owned()],
    };
    let mut kept = Vec::new();
    let guest = || {
        answer(&mut utils, |question| {
            let body = question.body();
            assert_eq!(body[0], 5);
            assert_eq!(text(&body[2..]), "{11223344-5566-7788-99aa-bbccddeeff00}");
            assert_eq!(body[258..260], [1, 0]);
            assert_eq!(text(&body[260..]), "10.0.0.2;10.0.0.3");
            kept = body.to_vec();
            (Status::OK, vec![])
        });
    };
    assert_eq!(asking(guest, || kvp.set_addresses(adapter, &addresses)), Ok(()));
    let guest = || {
        answer(&mut utils, |question| {
            assert_eq!(text(&question.body()[2..]), "00:15:5d:12:34:56");
            (Status::OK, kept.clone())
        });
    };
    assert_eq!(asking(guest, || kvp.addresses("00:15:5d:12:34:56")), Ok(addresses));
}

/// Sends the operation of the next question to `seen` and answers with `status`.
fn operate(utils: &mut Utils, seen: &mut Vec<u8>, status: Status) {
    answer(utils, |question| {
        assert_eq!(question.kind(), 5);
        seen.push(question.body()[0]);
        (status, vec![])
    });
}

const FREEZE: u8 = 5;
const THAW: u8 = 6;

#[test]
fn a_thaw_follows_each_freeze() {
    let vss = Vss::new().unwrap();
    let mut utils = Utils::agreed(vss.device(), 5, 0);
    let guest = || {
        answer(&mut utils, |question| {
            let mut body = question.body().to_vec();
            assert_eq!(body[0], 2);
            body[8] = 5;
            (Status::OK, body)
        });
    };
    let flags = HotBackup::SUPPORTED | HotBackup::NO_AUTO_RECOVERY;
    assert_eq!(asking(guest, || vss.check()), Ok(flags));

    let mut seen = Vec::new();
    let guest = || (0..2).for_each(|_| operate(&mut utils, &mut seen, Status::OK));
    assert_eq!(asking(guest, || vss.freeze().and_then(|frozen| frozen.thaw())), Ok(()));
    // By two at once.
    let guest = || (0..2).for_each(|_| operate(&mut utils, &mut seen, Status::OK));
    let twice = || {
        let first = vss.freeze().unwrap();
        let second = vss.freeze().map(|_| ());
        first.thaw().unwrap();
        second
    };
    assert_eq!(asking(guest, twice), Err(Failure::FrozenAlready));
    // Forgotten.
    let guest = || (0..2).for_each(|_| operate(&mut utils, &mut seen, Status::OK));
    asking(guest, || drop(vss.freeze().unwrap()));
    // It failed, and may have frozen something all the same.
    let guest = || (0..2).for_each(|_| operate(&mut utils, &mut seen, Status::FAIL));
    let failure = asking(guest, || vss.freeze().map(|_| ()));
    assert_eq!(failure, Err(Failure::Refused(Status::FAIL)));
    assert_eq!(seen, [FREEZE, THAW].repeat(4));
}

fn target() -> Target {
    let flags = StartFlags::OVERWRITE;
    Target { directory: "/tmp".to_owned(), name: "motd".to_owned(), flags }
}

#[test]
fn a_file_arrives_in_parts() {
    let copy = FileCopy::new().unwrap();
    let mut utils = Utils::agreed(copy.device(), 1, 1);
    let data: Vec<u8> = (0..15_000_u32).map(|i| (i % 251) as u8).collect();
    let mut arrived: Vec<u8> = Vec::new();
    let mut told = Vec::new();
    let guest = || {
        answer(&mut utils, |question| {
            assert_eq!(question.kind(), 7);
            let body = question.body();
            assert_eq!(body[..36], [0; 36], "START");
            assert_eq!((text(&body[36..]), text(&body[556..])), ("motd".into(), "/tmp/".into()));
            assert_eq!((u32_at(body, 1076), u32_at(body, 1080)), (1, 15_000));
            (Status::OK, vec![])
        });
        for _ in 0..3 {
            answer(&mut utils, |question| {
                let body = question.body();
                assert_eq!((body[0], u32_at(body, 40)), (1, arrived.len() as u32));
                assert!(question.payload.len() >= 28 + 52 + 6144, "always a whole part");
                arrived.extend(&body[52..][..u32_at(body, 48) as usize]);
                (Status::OK, vec![])
            });
        }
        answer(&mut utils, |question| {
            assert_eq!(question.body()[0], 2, "COMPLETE");
            (Status::OK, vec![])
        });
    };
    let mut progress = |done| {
        told.push(done);
        ControlFlow::Continue(())
    };
    asking(guest, || copy.copy(&mut &data[..], 15_000, &target(), &mut progress)).unwrap();
    assert_eq!(arrived, data);
    assert_eq!(told, [6144, 12_288, 15_000]);
}

#[test]
fn what_fails_on_the_way_is_cancelled() {
    let copy = FileCopy::new().unwrap();
    let mut utils = Utils::agreed(copy.device(), 1, 1);
    let mut seen = Vec::new();
    let mut script = |statuses: &[Status]| {
        for status in statuses {
            answer(&mut utils, |question| {
                seen.push(question.body()[0]);
                (*status, vec![])
            });
        }
    };
    let go_on = |_| ControlFlow::Continue(());
    let (ok, full) = (Status::OK, Status::DISK_FULL);
    // The disk is full.
    let result = asking(
        || script(&[ok, full, ok]),
        || copy.copy(&mut &[0; 100][..], 100, &target(), &mut { go_on }),
    );
    assert!(matches!(result, Err(CopyError::Guest(Failure::Refused(Status::DISK_FULL)))));
    // Nobody wants it any more.
    let result = asking(
        || script(&[ok, ok, ok]),
        || copy.copy(&mut &[0; 9000][..], 9000, &target(), &mut |_| ControlFlow::Break(())),
    );
    assert!(matches!(result, Err(CopyError::Cancelled(6144))));
    // The file has become shorter meanwhile.
    let result =
        asking(|| script(&[ok, ok]), || copy.copy(&mut &[0; 5][..], 9, &target(), &mut { go_on }));
    assert!(matches!(result, Err(CopyError::Source(_))));
    // It is there already: nothing was begun, so nothing is cancelled.
    let result = asking(
        || script(&[Status::ALREADY_EXISTS]),
        || copy.copy(&mut &[0; 5][..], 5, &target(), &mut { go_on }),
    );
    assert!(matches!(result, Err(CopyError::Guest(Failure::Refused(Status::ALREADY_EXISTS)))));
    assert_eq!(seen, [0, 1, 3, 0, 1, 3, 0, 3, 0]);
}
