// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every line of the control socket.
//!
//! A client sends a [`Request`] a line. Each is followed by any number of [`Line::Event`] and then
//! by one [`Line::Done`] or [`Line::Failed`].
//!
//! ```text
//! {"command":"shutdown","action":"reboot","force":false}
//! {"done":{"reply":"nothing"}}
//! {"command":"shutdown","action":"hibernate","force":false}
//! {"failed":"the guest refuses: FAIL"}
//! ```

use std::fmt;

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Say which services the guest has taken up, and whether it is alive
    Status,
    /// Ask the guest to switch off, to start over, or to hibernate
    Shutdown {
        /// What to ask for
        #[arg(default_value = "power-off")]
        #[serde(default)]
        action: Action,
        /// Tell the guest not to listen to programs that object
        #[arg(long)]
        #[serde(default)]
        force: bool,
    },
    /// Have the guest set its clock to the host's time now
    SetTime,
}

/// What a guest can be asked to do with itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Switch off
    #[default]
    PowerOff,
    /// Start over
    Reboot,
    /// Save everything on a disk and switch off
    Hibernate,
}

/// What the machine says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The request is done.
    Done(Reply),
    /// It is not, and why.
    Failed(String),
    /// Something happens on the way.
    Event(Event),
}

/// The end of a request that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// There is nothing to say.
    Nothing,
    /// How the machine and its guest are.
    Status(Status),
}

/// How the machine and its guest are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Each service that the guest is offered, and how far the two have come.
    pub services: Vec<Service>,
    /// What the heartbeat says; none before its service is ready.
    pub heartbeat: Option<Heartbeat>,
    /// Times that the guest was told since its driver came.
    pub time_samples: u64,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name in `--integration`.
    pub name: String,
    /// The guest can be asked.
    pub ready: bool,
    /// The version of its messages, or what is missing.
    pub state: String,
}

/// A guest's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// It has answered the last beat.
    pub alive: bool,
    /// Beats answered since its driver came.
    pub answered: u64,
    /// Beats missed since the last that was answered.
    pub missed: u64,
    /// When it answered last, in milliseconds since 1970; 0 for never.
    pub last_ms: u64,
}

/// What happens while a request is worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// So much of it is done.
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        of: u64,
    },
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Status(status) => status.fmt(f),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Service { name, state, .. } in &self.services {
            writeln!(f, "{name:<12} {state}")?;
        }
        if let Some(Heartbeat { alive, answered, missed, .. }) = &self.heartbeat {
            let state = if *alive { "alive" } else { "silent" };
            writeln!(f, "{:<12} {state}: {answered} beats answered, {missed} missed", "guest")?;
        }
        Ok(())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Progress { done, of } => write!(f, "{done} of {of} B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: Serialize>(value: &T) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn lines_are_what_the_description_shows() {
        let request = Request::Shutdown { action: Action::Reboot, force: false };
        assert_eq!(text(&request), r#"{"command":"shutdown","action":"reboot","force":false}"#);
        assert_eq!(text(&Line::Done(Reply::Nothing)), r#"{"done":{"reply":"nothing"}}"#);
        assert_eq!(text(&Line::Failed("no".to_owned())), r#"{"failed":"no"}"#);
        let progress = Line::Event(Event::Progress { done: 1, of: 2 });
        assert_eq!(text(&progress), r#"{"event":{"event":"progress","done":1,"of":2}}"#);
    }

    #[test]
    fn a_request_needs_to_say_no_more_than_it_means() {
        let request: Request = serde_json::from_str(r#"{"command":"shutdown"}"#).unwrap();
        assert_eq!(request, Request::Shutdown { action: Action::PowerOff, force: false });
        for wrong in [r#"{"command":"explode"}"#, r#"{"command":"shutdown","now":1}"#, "[]"] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }
}
