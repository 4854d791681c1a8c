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

/// Which of 1 to `count` completions of the host's the play acts on.
fn hits(play: &mut ChannelPlay, count: u64) -> Vec<u64> {
    let hit = |_| play.packet(End::Host, COMPLETION, &[], NOW);
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
    assert_eq!(play.packet(End::Host, COMPLETION, &right, early), None);
    assert_eq!(play.packet(End::Guest, COMPLETION, &right, late), None);
    assert_eq!(play.packet(End::Host, PacketType::DATA_IN_BAND, &right, late), None);
    assert_eq!(play.packet(End::Host, COMPLETION, &[0, 5, 7, 0], late), None);
    assert_eq!(play.packet(End::Host, COMPLETION, &[0, 5], late), None);
    let fired = Some(Fired { rule: 0, number: 5 });
    assert_eq!(play.packet(End::Host, COMPLETION, &right, late), fired);
}

#[test]
fn the_first_rule_that_fires_has_it_and_those_behind_do_not_see_it() {
    let rule = "[[rule]]\nfrom = \"host\"\ndo = \"drop\"\n";
    let mut play = play(&format!("{rule}nth = 2\n{rule}nth = 2"));
    let mut hit = || play.packet(End::Host, COMPLETION, &[], NOW).map(|fired| fired.rule);
    assert_eq!([hit(), hit(), hit(), hit()], [None, Some(0), Some(1), None]);
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
        (format!("{rule}do = {{ set = {{ at = 1, bytes = [256] }} }}"), 3, "256"),
        (format!("{rule}\ndevice = \"storag\"\ndo = \"drop\""), 4, "\"storag\""),
        (format!("{rule}do = \"drop\"\nnth = 1\nevery = 2"), 1, "one of nth"),
        (format!("{rule}do = \"drop\"\nevery = 0"), 1, "from 1"),
        (format!("{rule}do = \"drop\"\nprobability = 1.5"), 1, "0.0 to 1.0"),
        (format!("{rule}do = \"refuse\""), 3, "only messages are refused"),
        (format!("{rule}do = \"no-interrupt\""), 1, "about interrupts"),
        ("[[rule]]\ndo = \"drop\"".to_owned(), 1, "give from"),
        ("[[rule]]\nfrom = \"guest\"\ndo = \"duplicate\"".to_owned(), 3, "the guest's packets"),
        ("[[rule]]\nmessage = \"OPEN\"\ndo = \"drop\"".to_owned(), 2, "none of OFFER_CHANNEL"),
        ("[[rule]]\nmessage = \"UNLOAD\"\ndo = \"refuse\"".to_owned(), 3, "cannot be done"),
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
