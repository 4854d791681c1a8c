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

mod channels;
mod reply;
mod request;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use channels::{ChannelState, Latency};
pub use reply::{Card, DiskState, FaultRule, Heartbeat, Pair, Reply, Service, Shortfall, Status};
pub use request::{
    Action, Addresses, DiskTask, DvdTask, FaultTask, Kvp, LinkState, NetTask, Pool, Request,
};

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
    use crate::spec::Size;

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
        let text = r#"{"command":"kvp","operation":"get","pool":"auto","key":"OSVersion"}"#;
        let (pool, key) = (Pool::Auto, "OSVersion".to_owned());
        let request: Request = serde_json::from_str(text).unwrap();
        assert_eq!(request, Request::Kvp(Kvp::Get { pool, key }));
        let text = r#"{"command":"disk","operation":"add","disk":{"file":"a.img"}}"#;
        let disk = "a.img".parse().unwrap();
        let request: Request = serde_json::from_str(text).unwrap();
        assert_eq!(request, Request::Disk(DiskTask::Add { disk }));
        let text = r#"{"command":"disk","operation":"resize","unit":"0"}"#;
        let request: Request = serde_json::from_str(text).unwrap();
        let unit = "0".to_owned();
        assert_eq!(request, Request::Disk(DiskTask::Resize { unit, size: None }));
        let text = r#"{"command":"disk","operation":"rate","unit":"0","bps":"10M"}"#;
        let (unit, bps) = ("0".to_owned(), Some(Size(10 << 20)));
        let request: Request = serde_json::from_str(text).unwrap();
        assert_eq!(request, Request::Disk(DiskTask::Rate { unit, iops: None, bps }));
        for wrong in [r#"{"command":"explode"}"#, r#"{"command":"shutdown","now":1}"#, "[]"] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }
}
