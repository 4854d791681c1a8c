// SPDX-License-Identifier: MIT OR Apache-2.0

//! storage/watched: the reads of storage/ram while somebody looks on or meddles, beside the same reads alone.
//! The time is that of the thread that does them; a capture is written by one of its own.

use std::sync::Arc;

use busway::capture::Capture;
use busway::faults::Faults;
use busway::spec::{CaptureSpec, Strictness};
use busway::strict::Strict;
use busway::traffic::Traffic;
use busway_fault::Script;
use busway_vmbus::Bus;

use crate::report::{Line, cpu_times};
use crate::storage_ram::reads_on;

const N: u64 = 16;

/// A rule that is asked about each answer, and never about one of these.
const SCRIPT: &str = r#"
[[rule]]
name = "never"
device = "storage"
from = "host"
packet = "completion"
payload = { at = 0, bytes = [0xff] }
do = "drop"
"#;

pub fn run(lines: &mut Vec<Line>) {
    let file = tempfile::NamedTempFile::new().expect("a file for a capture");
    let spec = CaptureSpec { file: file.path().to_owned(), snap: 64 << 10, pages: false };
    let capture = Arc::new(Capture::start(&spec).expect("a capture"));
    let strict = Arc::new(Strict::new(Strictness::Warn, None, false));
    let faults = Faults::none().expect("a timer");
    faults.add(Script::parse(SCRIPT, None, 1).expect("a script"));
    let idle = Faults::none().expect("a timer");
    let mut line = |what: &str, prepare: &dyn Fn(&mut Bus)| {
        let (value, limit) = cpu_times(N, reads_on(N, prepare), reads_on(N, |_| {}));
        lines.push(Line::nanoseconds("storage/watched", what, value, Some(limit)));
    };
    line("nobody, twice", &|_| {});
    line("--capture", &|bus| bus.tap(capture.clone()));
    line("--strict", &|bus| bus.tap(strict.clone()));
    line("--control", &|bus| bus.tap(Arc::new(Traffic::new(None))));
    line("--control, before fault add", &|bus| bus.meddle(Some(idle.meddler())));
    line("--faults", &|bus| bus.meddle(Some(faults.meddler())));
}
