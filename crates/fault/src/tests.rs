// SPDX-License-Identifier: MIT OR Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use busway_wire::control::MessageType;
use busway_wire::packet::PacketType;
use busway_wire::{Guid, class};

use super::*;

const COMPLETION: PacketType = PacketType::COMPLETION;
const NOW: Duration = Duration::ZERO;

fn script(text: &str) -> Arc<Script> {
    Arc::new(Script::parse(text, None, 0).unwrap())
}

fn storage(subchannel: u16) -> OnChannel {
    OnChannel { number: 3, class: class::SCSI, instance: Guid([7; 16]), subchannel }
}

fn play(text: &str) -> ChannelPlay {
    ChannelPlay::new(&script(text), &storage(0)).unwrap()
}

fn passes(
    play: &mut ChannelPlay,
    from: End,
    kind: PacketType,
    payload: &[u8],
    now: Duration,
) -> Option<Fired> {
    play.packet(&Passing { from, kind, transaction_id: 0, payload }, now)
}

/// Which of 1 to `count` completions of the host's the play acts on.
fn hits(play: &mut ChannelPlay, count: u64) -> Vec<u64> {
    let hit = |_| passes(play, End::Host, COMPLETION, &[], NOW);
    (0..count).filter_map(hit).map(|fired| fired.number).collect()
}

fn refused(text: &str) -> (usize, String) {
    let ScriptError { line, reason } = Script::parse(text, None, 0).unwrap_err();
    assert!(!reason.contains('\n'), "{reason}");
    (line, reason)
}

#[test]
fn counts_say_which_packet_it_is() {
    let rule = "[[rule]]\nfrom = \"host\"\ndo = \"drop\"\n";
    assert_eq!(hits(&mut play(rule), 3), [1, 2, 3]);
    assert_eq!(hits(&mut play(&format!("{rule}nth = 4")), 20), [4]);
    assert_eq!(hits(&mut play(&format!("{rule}every = 4")), 13), [4, 8, 12]);
    assert_eq!(hits(&mut play(&format!("{rule}every = 4\ntimes = 2")), 20), [4, 8]);
    assert_eq!(hits(&mut play(&format!("{rule}probability = 0.0")), 50), []);
    assert_eq!(hits(&mut play(&format!("{rule}probability = 1.0\ntimes = 1")), 50), [1]);
}

#[test]
fn a_rule_sees_only_what_it_is_about() {
    let mut play = play(
        "[[rule]]\nfrom = \"host\"\npacket = \"completion\"\nnth = 1\ndo = \"drop\"\n\
         payload = { at = 1, bytes = [5, 6] }\nafter = \"2s\"",
    );
    let late = Duration::from_secs(2);
    let right = [0, 5, 6, 0];
    let early = Duration::from_millis(1999);
    assert_eq!(passes(&mut play, End::Host, COMPLETION, &right, early), None);
    assert_eq!(passes(&mut play, End::Guest, COMPLETION, &right, late), None);
    assert_eq!(passes(&mut play, End::Host, PacketType::DATA_IN_BAND, &right, late), None);
    assert_eq!(passes(&mut play, End::Host, COMPLETION, &[0, 5, 7, 0], late), None);
    assert_eq!(passes(&mut play, End::Host, COMPLETION, &[0, 5], late), None);
    let fired = Some(Fired { rule: 0, number: 5 });
    assert_eq!(passes(&mut play, End::Host, COMPLETION, &right, late), fired);
}

#[test]
fn the_first_rule_that_fires_has_it_and_those_behind_do_not_see_it() {
    let rule = "[[rule]]\nfrom = \"host\"\ndo = \"drop\"\n";
    let mut play = play(&format!("{rule}nth = 2\n{rule}nth = 2"));
    let mut hit = || passes(&mut play, End::Host, COMPLETION, &[], NOW).map(|fired| fired.rule);
    assert_eq!([hit(), hit(), hit(), hit()], [None, Some(0), Some(1), None]);
}

/// A storvsc packet that asks for a SCSI command.
fn srb(opcode: u8) -> Vec<u8> {
    let mut payload = vec![0; 64];
    payload[0] = 3;
    payload[20] = 10;
    payload[28] = opcode;
    payload
}

fn asks(play: &mut ChannelPlay, transaction_id: u64, payload: &[u8]) -> bool {
    let kind = PacketType::DATA_USING_GPA_DIRECT;
    play.packet(&Passing { from: End::Guest, kind, transaction_id, payload }, NOW).is_some()
}

fn answers(play: &mut ChannelPlay, transaction_id: u64) -> bool {
    let (from, kind, payload) = (End::Host, COMPLETION, &[1, 0, 0, 0][..]);
    play.packet(&Passing { from, kind, transaction_id, payload }, NOW).is_some()
}

#[test]
fn an_answer_is_known_by_its_request() {
    let text = "[[rule]]\ndevice = \"storage\"\nfrom = \"host\"\ndo = \"drop\"\n";
    for request in ["operation = \"READ_10\"", "request = { at = 28, bytes = [0x28] }"] {
        let mut play = play(&format!("{text}{request}"));
        for (id, opcode) in [(5, 0x28), (6, 0x2a), (7, 0x28)] {
            assert!(!asks(&mut play, id, &srb(opcode)), "the request itself passes");
        }
        assert_eq!([7, 6, 5].map(|id| answers(&mut play, id)), [true, false, true], "{request}");
        assert!(!answers(&mut play, 7), "it is answered");
        assert!(!asks(&mut play, 8, &srb(0x28)) && !asks(&mut play, 8, &srb(0x2a)));
        assert!(!answers(&mut play, 8), "the name was given to another");
    }
}

#[test]
fn a_request_is_kept_in_mind_that_an_earlier_rule_has() {
    let drop = "device = \"storage\"\nfrom = \"guest\"\nnth = 1\ndo = \"drop\"";
    let answer = "device = \"storage\"\nfrom = \"host\"\noperation = \"INQUIRY\"\ndo = \"drop\"";
    let mut play = play(&format!("[[rule]]\n{drop}\n[[rule]]\n{answer}"));
    assert!(asks(&mut play, 1, &srb(0x12)));
    assert!(answers(&mut play, 1));
}

#[test]
fn what_is_asked_has_a_name() {
    let fires = |device: &str, from: End, name: &str, payload: &[u8]| {
        let end = if from == End::Host { "host" } else { "guest" };
        let text = format!(
            "[[rule]]\ndevice = \"{device}\"\nfrom = \"{end}\"\noperation = \"{name}\"\ndo = \"drop\""
        );
        let script = script(&text);
        let channel = OnChannel { class: script.rules[0].class.unwrap(), ..storage(0) };
        let mut play = ChannelPlay::new(&script, &channel).unwrap();
        passes(&mut play, from, PacketType::DATA_IN_BAND, payload, NOW).is_some()
    };
    assert!(fires("storage", End::Guest, "READ_10", &srb(0x28)));
    assert!(!fires("storage", End::Guest, "READ_10", &srb(0x2a)));
    // TEST_UNIT_READY is 0, as is most of the handshake.
    assert!(fires("storage", End::Guest, "TEST_UNIT_READY", &srb(0)));
    assert!(!fires("storage", End::Guest, "TEST_UNIT_READY", &[0; 64]));
    assert!(fires("storage", End::Guest, "QUERY_PROTOCOL_VERSION", &[9, 0, 0, 0]));
    assert!(fires("network", End::Host, "INIT_COMPLETE", &[2, 0, 0, 0]));
    assert!(!fires("network", End::Host, "INIT_COMPLETE", &[1, 0, 0, 0]));
    let beat = [0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0, 1, 0, 0, 0];
    assert!(fires("heartbeat", End::Host, "HEARTBEAT", &beat));
    assert!(!fires("heartbeat", End::Host, "NEGOTIATE", &beat));
}

#[test]
fn a_channel_that_no_rule_is_about_has_no_play() {
    let of = |text: &str| ChannelPlay::new(&script(text), &storage(0)).is_some();
    let rule = "[[rule]]\nfrom = \"host\"\ndo = \"drop\"\n";
    assert!(of(&format!("{rule}device = \"storage\"\nchannel = 3")));
    assert!(of(&format!("{rule}device = \"ba6163d9-04a1-4d29-b605-72e2ffb1dc7f\"")));
    assert!(!of(&format!("{rule}device = \"network\"")));
    assert!(!of(&format!("{rule}channel = 4")));
    assert!(!of("[[rule]]\nmessage = \"UNLOAD\"\ndo = \"drop\""));
}

#[test]
fn a_seed_makes_the_same_faults_and_another_makes_others() {
    let rule = "[[rule]]\nfrom = \"host\"\nprobability = 0.5\ndo = \"drop\"\n";
    let of = |seed, subchannel| {
        let script = Arc::new(Script::parse(rule, Some(seed), 0).unwrap());
        hits(&mut ChannelPlay::new(&script, &storage(subchannel)).unwrap(), 64)
    };
    assert_eq!(of(7, 0), of(7, 0));
    assert_ne!(of(7, 0), of(8, 0));
    assert_ne!(of(7, 0), of(7, 1), "each channel has numbers of its own");
    assert!((8..=56).contains(&of(7, 0).len()));
}

#[test]
fn the_flags_seed_counts_more_than_the_files() {
    let seed = |text: &str, flag| Script::parse(text, flag, 99).unwrap().seed;
    let rule = "[[rule]]\nfrom = \"host\"\ndo = \"drop\"";
    assert_eq!(seed(rule, None), 99);
    assert_eq!(seed(&format!("seed = 5\n{rule}"), None), 5);
    assert_eq!(seed(&format!("seed = 5\n{rule}"), Some(6)), 6);
}

#[test]
fn interrupts_that_are_due_and_others_are_counted_apart() {
    let mut play = play("[[rule]]\nnth = 2\ndo = \"no-interrupt\"\n[[rule]]\ndo = \"interrupt\"");
    let mut at = |due| play.interrupt(due, NOW).map(|fired| (fired.rule, fired.number));
    assert_eq!([at(true), at(false), at(true)], [None, Some((1, 1)), Some((0, 2))]);
}

#[test]
fn messages_are_counted_by_type_and_told_apart_by_device() {
    let text = "[[rule]]\nmessage = \"OPEN_CHANNEL\"\ndevice = \"network\"\ndo = \"refuse\"";
    let mut play = MessagePlay::new(&script(text));
    let open = MessageType::OPEN_CHANNEL;
    assert_eq!(play.message(open, Some(class::SCSI), NOW), None);
    assert_eq!(play.message(MessageType::UNLOAD, None, NOW), None);
    let fired = Some(Fired { rule: 0, number: 2 });
    assert_eq!(play.message(open, Some(class::NETWORK), NOW), fired);
}

#[test]
fn a_header_is_edited_where_it_is() {
    let (mut header, mut payload) = ([0; 8], vec![1; 8]);
    let action = Action::SetHeader(Write { at: 5, bytes: vec![7; 9] });
    action.edit(&mut 1, &mut header, &mut payload);
    assert_eq!((header, payload), ([0, 0, 0, 0, 0, 7, 7, 7], vec![1; 8]));
}

#[test]
fn an_edit_never_makes_a_payload_longer() {
    let edited = |action: Action| {
        let (mut id, mut payload) = (1, vec![0, 1, 2, 3]);
        action.edit(&mut id, &mut [], &mut payload);
        (id, payload)
    };
    let bytes = vec![8, 9];
    assert_eq!(edited(Action::Truncate(1)), (1, vec![0]));
    assert_eq!(edited(Action::Truncate(9)), (1, vec![0, 1, 2, 3]));
    assert_eq!(edited(Action::Flip(Flip { at: 3, mask: 0x81 })), (1, vec![0, 1, 2, 0x82]));
    assert_eq!(edited(Action::Flip(Flip { at: 4, mask: 1 })), (1, vec![0, 1, 2, 3]));
    assert_eq!(edited(Action::Set(Write { at: 1, bytes: bytes.clone() })), (1, vec![0, 8, 9, 3]));
    assert_eq!(edited(Action::Set(Write { at: 3, bytes: bytes.clone() })), (1, vec![0, 1, 2, 8]));
    assert_eq!(edited(Action::Set(Write { at: 9, bytes })), (1, vec![0, 1, 2, 3]));
    assert_eq!(edited(Action::TransactionId(7)), (7, vec![0, 1, 2, 3]));
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_its_number() {
    let rule = "[[rule]]\nfrom = \"host\"\n";
    for (text, line, word) in [
        (String::new(), 1, "no [[rule]]"),
        ("seed = 1\n[[rule]]\nfrom = \"host\"\ndo = \"dorp\"".to_owned(), 4, "`dorp`"),
        (format!("{rule}do = \"drop\"\nn_th = 1"), 4, "`n_th`"),
        (format!("{rule}do = \"drop\"\n\n[[rules]]\ndo = 1"), 5, "`rules`"),
        (format!("{rule}do = {{ flip = {{ at = 1, msk = 2 }} }}"), 3, "`msk`"),
        (format!("{rule}do = {{ delay = \"2 min\" }}"), 3, "\"2 min\" is no time"),
        (format!("{rule}do = {{ delay = \"0s\" }}"), 3, "no time at all"),
        (format!("{rule}do = {{ rescind-for = \"0s\" }}"), 3, "no time at all"),
        (
            "[[rule]]\nmessage = \"UNLOAD\"\ndo = { rescind-for = \"1s\" }".to_owned(),
            3,
            "cannot be done",
        ),
        (format!("{rule}do = {{ set = {{ at = 1, bytes = [256] }} }}"), 3, "256"),
        (format!("{rule}\ndevice = \"storag\"\ndo = \"drop\""), 4, "\"storag\""),
        (format!("{rule}do = \"drop\"\nnth = 1\nevery = 2"), 1, "one of nth"),
        (format!("{rule}do = \"drop\"\nevery = 0"), 1, "from 1"),
        (format!("{rule}do = \"drop\"\nprobability = 1.5"), 1, "0.0 to 1.0"),
        (format!("{rule}do = \"refuse\""), 3, "only messages are refused"),
        (format!("{rule}do = \"no-interrupt\""), 1, "about interrupts"),
        ("[[rule]]\ndo = \"drop\"".to_owned(), 1, "give from"),
        (format!("{rule}do = \"drop\"\noperation = \"READ_10\""), 4, "operation has names for"),
        (
            format!("{rule}do = \"drop\"\ndevice = \"storage\"\noperation = \"READ\""),
            5,
            "none of TEST_UNIT_READY",
        ),
        (
            "[[rule]]\nfrom = \"guest\"\nrequest = { at = 0, bytes = [1] }\ndo = \"drop\""
                .to_owned(),
            1,
            "about answers",
        ),
        ("[[rule]]\nfrom = \"guest\"\ndo = \"duplicate\"".to_owned(), 3, "the guest's packets"),
        (
            "[[rule]]\nfrom = \"host\"\ndo = { set-data = { at = 0, bytes = [1] } }".to_owned(),
            3,
            "packet = \"transfer-pages\"",
        ),
        ("[[rule]]\nmessage = \"OPEN\"\ndo = \"drop\"".to_owned(), 2, "none of OFFER_CHANNEL"),
        ("[[rule]]\nmessage = \"UNLOAD\"\ndo = \"refuse\"".to_owned(), 3, "cannot be done"),
        (
            "[[rule]]\nmessage = \"UNLOAD\"\ndo = { delay = \"1s\" }".to_owned(),
            3,
            "the host's delayed",
        ),
        (
            "[[rule]]\nmessage = \"UNLOAD\"\ndo = \"drop\"\ndevice = \"storage\"".to_owned(),
            4,
            "about no device",
        ),
        ("a = ".to_owned(), 1, ""),
    ] {
        let (at, reason) = refused(&text);
        assert!(at == line && reason.contains(word), "{text}\n{at}: {reason}");
    }
}

/// What a script that comes along silences, of all that the host and the guest tell each other of the bus.
fn silenced(text: &str) -> Vec<MessageType> {
    let mut messages = MessagePlay::new(&script(text));
    let known = MessageType::KNOWN.iter().copied();
    known.filter(|kind| messages.message(*kind, Some(class::SCSI), NOW).is_some()).collect()
}

#[test]
fn scripts_silence_the_bus_at_each_step() {
    for (text, step) in [
        (include_str!("../../../docs/faults/silent-version.toml"), MessageType::VERSION_RESPONSE),
        (include_str!("../../../docs/faults/silent-offers.toml"), MessageType::REQUEST_OFFERS),
        (include_str!("../../../docs/faults/silent-gpadl.toml"), MessageType::GPADL_CREATED),
        (include_str!("../../../docs/faults/silent-open.toml"), MessageType::OPEN_CHANNEL_RESULT),
    ] {
        assert_eq!(silenced(text), [step]);
        assert_eq!(script(text).rules[0].action, Action::Drop);
    }
}

#[test]
fn scripts_silence_storage_at_each_step() {
    for (text, step) in [
        (include_str!("../../../docs/faults/silent-storage-1.toml"), 7),
        (include_str!("../../../docs/faults/silent-storage-2.toml"), 9),
        (include_str!("../../../docs/faults/silent-storage-3.toml"), 10),
        (include_str!("../../../docs/faults/silent-storage-4.toml"), 8),
    ] {
        let mut play = play(text);
        // The operations of storvsc's handshake, and a command (`enum vstor_packet_operation`).
        for operation in [7, 9, 10, 8, 3] {
            let asked = [operation, 0, 0, 0];
            assert_eq!(passes(&mut play, End::Guest, PacketType::DATA_IN_BAND, &asked, NOW), None);
            let answered = passes(&mut play, End::Host, COMPLETION, &[1, 0, 0, 0], NOW);
            assert_eq!(answered.is_some(), operation == step, "{operation}: {text}");
        }
    }
}

#[test]
fn scripts_silence_other_devices_at_each_step() {
    let of =
        |class, text| ChannelPlay::new(&script(text), &OnChannel { class, ..storage(0) }).unwrap();
    for (text, step) in [
        (include_str!("../../../docs/faults/silent-network-1.toml"), 2),
        (include_str!("../../../docs/faults/silent-network-2.toml"), 102),
        (include_str!("../../../docs/faults/silent-network-3.toml"), 105),
    ] {
        let mut play = of(class::NETWORK, text);
        // What the host answers with, and a frame (drivers/net/hyperv/hyperv_net.h).
        for message in [2, 102, 105, 107] {
            let sent = passes(&mut play, End::Host, COMPLETION, &[message, 0, 0, 0], NOW);
            assert_eq!(sent.is_some(), message == step, "{message}: {text}");
        }
    }
    let text = include_str!("../../../docs/faults/silent-component.toml");
    let mut play = of(class::HEARTBEAT, text);
    for (message, is_dropped) in [(0, true), (1, false)] {
        let mut payload = [0; 16];
        payload[12] = message;
        let sent = passes(&mut play, End::Host, PacketType::DATA_IN_BAND, &payload, NOW);
        assert_eq!(sent.is_some(), is_dropped, "{message}");
    }
}
