// SPDX-License-Identifier: MIT OR Apache-2.0

//! A decoded record as a JSON object.

use serde_json::{Value, json};

use super::Decoded;
use crate::layout::Kind;

impl Decoded {
    /// One object, all of whose fields are there in every record that has them to say.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "number": self.number,
            "time_ns": self.time,
            "kind": self.kind.map_or("unknown", Kind::name),
            "side": self.side.name(),
            "text": self.text,
            "known": self.known,
        });
        let mut put = |name: &str, value: Value| {
            if let Some(fields) = object.as_object_mut() {
                fields.insert(name.to_owned(), value);
            }
        };
        if let Some(vp) = self.vp {
            put("vp", json!(vp));
        }
        if let Some(channel) = self.channel {
            put("channel", json!(channel.number));
            put("subchannel", json!(channel.subchannel));
            put("class", json!(channel.class.to_string()));
            put("device", json!(channel.class_name()));
        }
        if self.cut {
            put("cut", json!(true));
        }
        if self.lost != 0 {
            put("lost", json!(self.lost));
        }
        if let Some(answered) = &self.answers {
            put("answers", json!(answered.request));
            put("request", json!(answered.name));
            put("latency_ns", json!(answered.latency));
        }
        object
    }
}
