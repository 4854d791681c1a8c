// SPDX-License-Identifier: MIT OR Apache-2.0

//! Devices that are taken from the guest for a time.

use super::*;

/// [`Host::open`], with the channel taken away, closed and rescinded.
fn away() -> (Host, ChannelKey) {
    let (mut host, key) = Host::open(Version::V5_3);
    assert!(host.server.take_away(key));
    assert_eq!(host.messages(), [], "not before it is closed");
    host.complete(Completion::Closed(key));
    let (messages, actions) = host.drain();
    assert_eq!(messages, [rescind(1)]);
    assert!(!actions.iter().any(|action| matches!(action, Action::Gone(_))));
    (host, key)
}

#[test]
fn a_channel_returns_when_it_is_time_and_its_relid_is_released() {
    let (mut host, key) = away();
    assert!(!host.server.bring_back(key), "the guest is waited for");
    assert_eq!(host.messages(), []);
    host.send(&[13, 0, 1]).unwrap();
    assert_eq!(relids(&host.messages()), [1]);
    // Once more, the other way round.
    assert!(host.server.take_away(key));
    assert_eq!(host.messages(), [rescind(1)]);
    host.send(&[13, 0, 1]).unwrap();
    assert_eq!(host.messages(), [], "it is not time");
    assert!(host.server.bring_back(key));
    assert_eq!(relids(&host.messages()), [1]);
    assert!(host.server.bring_back(key));
    assert_eq!(host.messages(), [], "it is there");
}

#[test]
fn a_channel_returns_no_sooner_than_it_is_closed() {
    let (mut host, key) = Host::open(Version::V5_3);
    assert!(host.server.take_away(key));
    assert!(!host.server.take_away(key), "it goes already");
    // Neither does a guest's fault change that.
    host.server.withdraw(key);
    assert!(!host.server.bring_back(key));
    assert_eq!(host.messages(), []);
    host.complete(Completion::Closed(key));
    assert_eq!(host.messages(), [rescind(1)]);
    host.send(&[13, 0, 1]).unwrap();
    assert_eq!(relids(&host.messages()), [1]);
}

#[test]
fn a_channel_returns_without_its_subchannels() {
    let (mut host, key, child) = Host::with_subchannel();
    assert!(host.server.take_away(key));
    host.complete(Completion::Closed(key));
    assert!(!host.server.bring_back(key));
    assert_eq!(host.messages(), [], "a subchannel is in use");
    host.complete(Completion::Closed(child));
    let (messages, actions) = host.drain();
    assert_eq!(messages, [rescind(2), rescind(1)]);
    assert!(matches!(actions.last(), Some(Action::Gone(gone)) if *gone == child));
    host.send(&[13, 0, 2]).unwrap();
    assert_eq!(host.messages(), []);
    host.send(&[13, 0, 1]).unwrap();
    assert_eq!(relids(&host.messages()), [1]);
}

#[test]
fn a_channel_that_is_away_is_so_for_the_next_connection_too() {
    let ask = |host: &mut Host| {
        host.send(&[3, 0]).unwrap();
        relids(&host.messages())
    };
    let (mut host, key) = away();
    host.contact(Version::V5_3, 0).unwrap();
    host.messages();
    assert_eq!(ask(&mut host), [0; 0]);
    // The one who owed the relid is gone.
    assert!(host.server.bring_back(key));
    assert_eq!(relids(&host.messages()), [1]);

    let (mut host, key) = away();
    assert!(!host.server.bring_back(key));
    host.send(&[16, 0]).unwrap();
    host.contact(Version::V5_3, 0).unwrap();
    host.messages();
    assert_eq!(ask(&mut host), [1]);

    let (mut host, key) = away();
    host.send(&[16, 0]).unwrap();
    host.messages();
    assert!(host.server.bring_back(key), "for whoever comes");
    assert_eq!(host.messages(), []);
    host.contact(Version::V5_3, 0).unwrap();
    host.messages();
    assert_eq!(ask(&mut host), [1]);
}

#[test]
fn a_channel_that_is_revoked_while_it_is_away_does_not_return() {
    let (mut host, key) = away();
    host.server.revoke(key);
    let (_, actions) = host.drain();
    assert!(matches!(actions[..], [Action::Gone(gone)] if gone == key));
    assert!(host.server.bring_back(key), "nobody is waited for");
    host.send(&[13, 0, 1]).unwrap();
    assert_eq!(host.messages(), []);
}
