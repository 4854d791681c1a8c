// SPDX-License-Identifier: MIT OR Apache-2.0

//! An open channel of a component: versions first, then one question at a time.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use busway_ring::{Outgoing, Packet};
use busway_vmbus::{ChannelHandler, Fault, Io, LogLimit, Progress, Sent, Step, Wakeup, When};
use busway_wire::ic::{
    Header, HeaderFlags, MessageType, Negotiate, NegotiateError, Status, Version,
};

use crate::Failure;
use crate::component::{About, Phase, Question, Service, Shared};
use crate::timer::Timer;

/// Versions of the framework around all components, oldest first. Older hosts had others; no guest
/// needs them.
const FRAMEWORKS: [Version; 2] = [Version::new(1, 0), Version::new(3, 0)];

const BELL: u32 = 0;
const TIMER: u32 = 1;

/// What a guest may not answer.
#[derive(Debug, thiserror::Error)]
enum AnswerError {
    /// A choice of versions that is none.
    #[error("the guest's choice of versions: {0}")]
    Choice(#[from] NegotiateError),
    /// A version that was not offered.
    #[error("the guest chooses version {0}, which was not offered")]
    NotOffered(Version),
}

/// A question under way.
struct Asked {
    id: u8,
    kind: MessageType,
    patience: Option<Duration>,
    /// Its packet, until that has found room.
    unsent: Option<Vec<u8>>,
}

/// The host's end of one channel.
pub(crate) struct Conversation<S: Service> {
    shared: Arc<Shared<S>>,
    about: &'static About,
    /// Versions that the guest is offered, of the framework and of the messages.
    frameworks: &'static [Version],
    messages: &'static [Version],
    timer: Timer,
    next_id: u8,
    asked: Option<Asked>,
    warnings: LogLimit,
}

impl<S: Service> Conversation<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>) -> io::Result<Self> {
        let timer = Timer::new()?;
        let mut state = shared.lock();
        state.phase = Phase::Negotiating;
        let about = state.service.about();
        let frameworks = up_to(state.newest, &FRAMEWORKS);
        let messages = up_to(state.newest, about.versions);
        drop(state);
        let header =
            Header::request(MessageType::NEGOTIATE, Version::default(), Version::default(), 0);
        let packet = header.payload(&Negotiate::body(frameworks, messages));
        let unsent = Some(packet);
        // Without patience: a driver may answer when its daemon runs, and that may be never.
        let asked = Some(Asked { id: 0, kind: MessageType::NEGOTIATE, patience: None, unsent });
        let warnings = LogLimit::default();
        Ok(Self { shared, about, frameworks, messages, timer, next_id: 1, asked, warnings })
    }

    fn agree(&self, body: &[u8], io: &mut Io<'_>) -> Result<(), AnswerError> {
        let mut state = self.shared.lock();
        state.phase = match Negotiate::choice(body) {
            Ok(agreed) => {
                if !self.messages.contains(&agreed.message) {
                    return Err(AnswerError::NotOffered(agreed.message));
                }
                if !self.frameworks.contains(&agreed.framework) {
                    return Err(AnswerError::NotOffered(agreed.framework));
                }
                log::info!("{}: version {agreed}", self.about.kind);
                state.service.opened();
                let Version { major, minor } = agreed.message;
                io.reached(Step::Version { major, minor });
                io.reached(Step::Ready);
                Phase::Agreed(agreed)
            }
            Err(NegotiateError::NoneSpoken) => Phase::NoneSpoken,
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }

    /// Takes the next question of the component's, if none is under way.
    fn ask(&mut self) -> io::Result<()> {
        if self.asked.is_some() {
            return Ok(());
        }
        let mut state = self.shared.lock();
        let Phase::Agreed(agreed) = state.phase else {
            return Ok(());
        };
        let Some(Question { body, patience }) = state.service.next(agreed) else {
            return Ok(());
        };
        drop(state);
        let (id, kind) = (self.next_id, self.about.kind);
        self.next_id = id.wrapping_add(1);
        let packet = Header::request(kind, agreed.framework, agreed.message, id).payload(&body);
        self.asked = Some(Asked { id, kind, patience: Some(patience), unsent: Some(packet) });
        self.timer.set(patience)
    }

    fn expired(&mut self) {
        let mut state = self.shared.lock();
        match self.asked.take_if(|asked| asked.patience.is_some()) {
            Some(Asked { patience, .. }) => {
                state.service.failed(Failure::NoAnswer(patience.unwrap_or_default()));
            }
            None => state.service.tick(),
        }
    }
}

/// Those of `versions` that are not newer, and the oldest in any case.
fn up_to(newest: Version, versions: &'static [Version]) -> &'static [Version] {
    let count = versions.partition_point(|version| *version <= newest).max(1);
    versions.get(..count).unwrap_or(versions)
}

impl<S: Service> ChannelHandler for Conversation<S> {
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        let (header, body) = Header::parse(packet.payload).map_err(Fault::protocol)?;
        let is_answer = |asked: &mut Asked| {
            asked.unsent.is_none()
                && (asked.id, asked.kind) == (header.transaction_id, header.kind)
                && header.flags().contains(HeaderFlags::RESPONSE)
        };
        let Some(asked) = self.asked.take_if(is_answer) else {
            if let Some(seen) = self.warnings.next() {
                log::warn!("nobody has asked the guest for this: {header}{seen}");
            }
            return Ok(());
        };
        log::debug!("{header}");
        if asked.kind == MessageType::NEGOTIATE {
            return self.agree(body, io).map_err(Fault::protocol);
        }
        let mut state = self.shared.lock();
        state.service.answered(header.status, body);
        if header.status == Status::OK && state.service.has_worked() {
            io.worked();
        }
        Ok(())
    }

    fn on_batch(&mut self, io: &mut Io<'_>) -> Result<Progress, Fault> {
        self.ask().map_err(Fault::host)?;
        if let Some(asked) = &mut self.asked
            && let Some(packet) = &asked.unsent
            && io.send(&Outgoing::in_band(asked.id.into(), packet))? == Sent::Yes
        {
            asked.unsent = None;
        }
        Ok(Progress::Idle)
    }

    fn on_ready(&mut self, token: u32, _io: &mut Io<'_>) -> Result<(), Fault> {
        if token == BELL {
            // What it was rung for is looked at in on_batch.
            let _ = rustix::io::read(&self.shared.bell, &mut [0; 8]);
        } else if self.timer.take() {
            self.expired();
        }
        Ok(())
    }

    fn wakeups(&self) -> Vec<Wakeup<'_>> {
        let when = When::Readable;
        vec![
            Wakeup { token: BELL, fd: self.shared.bell.as_fd(), when },
            Wakeup { token: TIMER, fd: self.timer.as_fd(), when },
        ]
    }
}

impl<S: Service> Drop for Conversation<S> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.phase = Phase::Closed;
        state.service.failed(Failure::Gone);
    }
}
