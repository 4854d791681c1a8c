// SPDX-License-Identifier: MIT OR Apache-2.0

//! A component that asks when somebody wants to know.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use busway_wire::ic::{Agreed, Status};

use crate::Failure;
use crate::component::{About, Component, Phase, Question, Service};

/// What the guest has answered, whatever it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) status: Status,
    pub(crate) body: Vec<u8>,
}

impl Answered {
    /// The body, if the guest did what it was asked.
    pub(crate) fn done(self) -> Result<Vec<u8>, Failure> {
        match self.status {
            Status::OK => Ok(self.body),
            status => Err(Failure::Refused(status)),
        }
    }
}

type Answer = SyncSender<Result<Answered, Failure>>;

/// Questions in the order in which they came.
pub(crate) struct Asks {
    about: &'static About,
    waiting: VecDeque<(Question, Answer)>,
    asked: Option<Answer>,
}

impl Component<Asks> {
    pub(crate) fn new(about: &'static About) -> io::Result<Self> {
        Self::with(Asks { about, waiting: VecDeque::new(), asked: None })
    }

    /// Asks the guest and waits for what it says.
    pub(crate) fn ask(&self, body: &[u8], patience: Duration) -> Result<Answered, Failure> {
        let (sender, answer) = sync_channel(1);
        let question = Question { body: body.to_vec(), patience };
        self.change(|asks, phase| match phase {
            Phase::Agreed(_) => {
                asks.waiting.push_back((question, sender));
                Ok(())
            }
            phase => Err(Failure::NotReady(phase)),
        })?;
        // The sender goes with the channel.
        answer.recv().unwrap_or(Err(Failure::Gone))
    }
}

impl Asks {
    fn answer(&mut self, answer: Result<Answered, Failure>) {
        if let Some(asked) = self.asked.take() {
            // Who asked may have gone.
            let _ = asked.try_send(answer);
        }
    }
}

impl Service for Asks {
    fn about(&self) -> &'static About {
        self.about
    }

    fn next(&mut self, _agreed: Agreed) -> Option<Question> {
        let (question, answer) = self.waiting.pop_front()?;
        self.asked = Some(answer);
        Some(question)
    }

    fn answered(&mut self, status: Status, body: &[u8]) {
        self.answer(Ok(Answered { status, body: body.to_vec() }));
    }

    fn failed(&mut self, failure: Failure) {
        self.answer(Err(failure));
        if failure == Failure::Gone {
            self.waiting.clear();
        }
    }
}
