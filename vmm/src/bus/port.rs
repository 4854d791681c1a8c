// SPDX-License-Identifier: MIT OR Apache-2.0

//! What reaches the bus's thread from vCPUs and from the channels' workers.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use busway_vmbus::{Absence, ChannelKey, Completion, Device, Fault, Meddler, RingSnapshots};
use busway_wire::Guid;
use busway_wire::control::{Header, MessageBuf, MessageType};
use busway_wire::hypercall::{PostMessage, Status, connection};
use busway_wire::synic::MessageKind;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use zerocopy::FromBytes;

use crate::lock;
use crate::partition::Bus;

/// Messages of the guest that may wait, for the bus or for a free slot, before it is told to try
/// later. Linux posts up to 292 in a row, to describe the 7936 pages of a NIC's buffer.
const MAX_WAITING: usize = 1024;

/// News for the bus.
#[expect(
    clippy::large_enum_variant,
    reason = "few wait, and a box would be an allocation for each"
)]
pub enum News {
    /// The guest posted a channel message.
    Message(MessageBuf),
    /// A channel has done what the bus wanted.
    Completed(Completion),
    /// A channel is to have so many more subchannels.
    Subchannels(ChannelKey, u16),
    /// A channel's device is to be taken from the guest.
    Ended(ChannelKey, Absence),
    /// Somebody has a device for the guest.
    Add(Box<dyn Device>),
    /// The device of this instance is to go, unless the guest has opened it.
    RemoveUnopened(Guid),
    /// The device of this instance is to go, whatever the guest does with it.
    Remove(Guid),
    /// What passes is changed by somebody else, or by nobody.
    Meddle(Option<Arc<dyn Meddler>>),
    /// Somebody wants to see the rings of the open channel with this relid.
    Show(u32, SyncSender<RingSnapshots>),
    /// A channel cannot go on.
    Failed(ChannelKey, Fault),
    /// The machine cannot go on.
    HostFailed(Fault),
}

/// The bus's letter box.
pub struct Port {
    news: Mutex<VecDeque<News>>,
    /// For who waits for news without an event loop.
    arrived: Condvar,
    slot_freed: AtomicBool,
    /// Messages to the guest that wait for a free slot.
    undelivered: AtomicUsize,
    bell: EventFd,
}

impl Port {
    /// An empty box.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            news: Mutex::default(),
            arrived: Condvar::new(),
            slot_freed: AtomicBool::new(false),
            undelivered: AtomicUsize::new(0),
            bell: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Readable while there is anything in the box.
    pub const fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// Puts news of a worker's into the box.
    pub fn send(&self, news: News) {
        lock(&self.news).push_back(news);
        self.arrived.notify_all();
        self.ring();
    }

    /// Waits until there is news.
    pub fn wait(&self) {
        let news = lock(&self.news);
        let waited = self.arrived.wait_while(news, |news| news.is_empty());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The oldest news, if there is any.
    pub(super) fn take(&self) -> Option<News> {
        lock(&self.news).pop_front()
    }

    /// Whether a slot may have become free since the last time this was asked.
    pub(super) fn take_slot_freed(&self) -> bool {
        self.slot_freed.swap(false, Ordering::SeqCst)
    }

    /// The bus's own backlog, which counts against the guest.
    pub(super) fn set_undelivered(&self, count: usize) {
        self.undelivered.store(count, Ordering::Relaxed);
    }

    fn ring(&self) {
        // Fails only when the counter is full, and then the bell has rung anyway.
        let _ = self.bell.write(1);
    }
}

impl Bus for Port {
    fn post_message(&self, _vp: u32, message: &PostMessage) -> Status {
        if ![connection::MESSAGE, connection::MESSAGE_5].contains(&message.connection_id) {
            return Status::INVALID_CONNECTION_ID;
        }
        if message.kind != MessageKind::CHANNEL {
            return Status::INVALID_PARAMETER;
        }
        let payload = message.payload.get(..message.payload_len as usize).unwrap_or_default();
        let mut news = lock(&self.news);
        let waiting = news.len() + self.undelivered.load(Ordering::Relaxed);
        // A kernel that takes over from one that has read nothing must still be heard.
        let limit = if starts_over(payload) { MAX_WAITING * 4 } else { MAX_WAITING };
        if waiting >= limit {
            return Status::INSUFFICIENT_BUFFERS;
        }
        news.push_back(News::Message(MessageBuf::from_bytes(payload)));
        drop(news);
        self.ring();
        Status::SUCCESS
    }

    fn slot_freed(&self, _vp: u32) {
        self.slot_freed.store(true, Ordering::SeqCst);
        self.ring();
    }
}

/// Whether a message makes all that waits before it void.
fn starts_over(payload: &[u8]) -> bool {
    let kind = Header::read_from_prefix(payload).map(|(header, _)| header.kind);
    matches!(kind, Ok(MessageType::INITIATE_CONTACT | MessageType::UNLOAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(connection_id: u32, kind: u8) -> PostMessage {
        let mut payload = [0; 240];
        payload[0] = kind;
        let kind = MessageKind::CHANNEL;
        PostMessage { connection_id, reserved: 0, kind, payload_len: 8, payload }
    }

    #[test]
    fn messages_are_taken_on_the_two_connections_that_exist() {
        let port = Port::new().unwrap();
        assert_eq!(port.post_message(0, &message(1, 3)), Status::SUCCESS);
        assert_eq!(port.post_message(0, &message(4, 3)), Status::SUCCESS);
        // What a kernel in VTL 2 tries first.
        assert_eq!(port.post_message(0, &message(0x0080_0074, 3)), Status::INVALID_CONNECTION_ID);
        assert_eq!(port.bell().read().unwrap(), 2);
    }

    #[test]
    fn a_guest_that_posts_without_end_is_told_to_wait_and_may_still_start_over() {
        let port = Port::new().unwrap();
        let accepted =
            (0..10_000).filter(|_| port.post_message(0, &message(1, 3)) == Status::SUCCESS);
        assert_eq!(accepted.count(), MAX_WAITING);
        assert_eq!(port.post_message(0, &message(1, 14)), Status::SUCCESS);
        let contacts =
            (0..10_000).filter(|_| port.post_message(0, &message(1, 14)) == Status::SUCCESS);
        assert!(contacts.count() < 4 * MAX_WAITING, "that has an end too");
    }

    #[test]
    fn what_the_guest_does_not_read_counts_against_it() {
        let port = Port::new().unwrap();
        port.set_undelivered(MAX_WAITING);
        assert_eq!(port.post_message(0, &message(1, 3)), Status::INSUFFICIENT_BUFFERS);
        port.set_undelivered(0);
        assert_eq!(port.post_message(0, &message(1, 3)), Status::SUCCESS);
    }
}
