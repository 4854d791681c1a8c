// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who watches a machine while it runs: takes what engine, bus and devices report, on their threads,
//! and says each expectation that is met.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use busway_vmbus::{Milestone, Witness};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::expect::Expected;
use super::judge::{Expectation, Judge, NotOffered, Sight};
use super::report;
use crate::event_loop::End;
use crate::faults::{Faults, Summary as FaultsSummary};
use crate::lock;
use crate::strict::Summary as StrictSummary;

/// The watcher of one machine.
pub struct Watch {
    judge: Mutex<Judge>,
    /// Seconds that the guest has.
    timeout: Option<u64>,
    started: OnceLock<Instant>,
    /// Nothing is to be learned from the guest's MSRs any more.
    knows_identity: AtomicBool,
    /// Rung when all is seen.
    bell: EventFd,
    end: OnceLock<End>,
    faults: OnceLock<Arc<Faults>>,
    strict: OnceLock<StrictSummary>,
}

/// What a watcher knows when the machine has ended.
#[derive(Clone, Debug)]
pub struct Findings {
    /// What was expected, and what of it was seen.
    pub expectations: Vec<Expectation>,
    /// How long the machine ran.
    pub time: Duration,
    /// Why it ended; `None` if it never ran, or the host failed.
    pub end: Option<End>,
    /// What was done to the guest by a script.
    pub faults: Option<FaultsSummary>,
    /// What was found of what the guest must not do, if that was looked for.
    pub strict: Option<StrictSummary>,
}

impl Watch {
    /// One who expects this of a guest that has so many seconds.
    pub fn new(expected: Expected, timeout: Option<u64>) -> io::Result<Self> {
        Ok(Self {
            judge: Mutex::new(Judge::new(expected)),
            timeout,
            started: OnceLock::new(),
            knows_identity: AtomicBool::new(false),
            bell: EventFd::new(EFD_NONBLOCK)?,
            end: OnceLock::new(),
            faults: OnceLock::new(),
            strict: OnceLock::new(),
        })
    }

    /// All devices are on the bus, and the machine is about to be switched on.
    pub fn begin(&self) -> Result<(), NotOffered> {
        let mut judge = lock(&self.judge);
        judge.begin()?;
        let names: Vec<_> = judge.expectations().iter().map(|e| e.name.as_str()).collect();
        let limit = self.timeout.map_or(String::new(), |seconds| format!(", within {seconds} s"));
        say(&format!("expected: {}{limit}", names.join(", ")));
        let _ = self.started.set(Instant::now());
        Ok(())
    }

    /// Takes what was seen now.
    pub fn saw(&self, sight: &Sight) {
        let at = self.time();
        let mut judge = lock(&self.judge);
        let line = judge.saw(at, sight).map(|met| report::met_line(met, at));
        if let Some(line) = line {
            say(&line);
            if judge.is_done() {
                let _ = self.bell.write(1);
            }
        }
    }

    /// Whether somebody who can should look at the guest's MSRs.
    pub fn wants_identity(&self) -> bool {
        !self.knows_identity.load(Ordering::Relaxed)
    }

    /// What GUEST_OS_ID and the hypercall MSR hold.
    pub fn saw_identity(&self, guest_os_id: u64, hypercall: u64) {
        if guest_os_id == 0 {
            return;
        }
        self.saw(&Sight::Identified(guest_os_id));
        if hypercall & busway_hyperv::msr::ENABLE != 0 {
            self.knows_identity.store(true, Ordering::Relaxed);
            self.saw(&Sight::HypercallPage);
        }
    }

    /// Readable once all is seen.
    pub const fn bell(&self) -> &EventFd {
        &self.bell
    }

    /// A script makes the machine misbehave.
    pub fn suffers(&self, faults: &Arc<Faults>) {
        let _ = self.faults.set(Arc::clone(faults));
    }

    /// The machine has ended.
    pub fn ended(&self, end: &End) {
        let _ = self.end.set(end.clone());
    }

    /// What the guest did that it must not do.
    pub fn found(&self, summary: StrictSummary) {
        let _ = self.strict.set(summary);
    }

    /// What there is to report.
    pub fn finish(&self) -> Findings {
        let expectations = lock(&self.judge).expectations().to_vec();
        let faults = self.faults.get().map(|faults| faults.summary());
        let (end, strict) = (self.end.get().cloned(), self.strict.get().cloned());
        Findings { expectations, time: self.time(), end, faults, strict }
    }

    fn time(&self) -> Duration {
        self.started.get().map_or(Duration::ZERO, Instant::elapsed)
    }
}

impl Witness for Watch {
    fn saw(&self, milestone: Milestone) {
        self.saw(&Sight::Bus(milestone));
    }
}

/// A line for whoever looks on. That nobody does is no reason to end.
pub(super) fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
