// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a smoke test says: a line while it runs, the whole at its end, and the same for programs.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::judge::{Expectation, Stage};
use super::knowledge::{self, Missing};
use super::watch::Findings;
use crate::event_loop::End;
use crate::faults::Summary as FaultsSummary;
use crate::run::{RunError, Verdict};
use crate::spec::VmSpec;
use crate::strict::Summary as StrictSummary;

/// A report. Its JSON form is stable: fields are added, not changed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// All that was expected was seen, and the guest did not crash.
    pub passed: bool,
    /// The kernel.
    pub kernel: String,
    /// How long the machine ran.
    pub seconds: f64,
    /// Why it ended.
    pub end: String,
    /// Why it could not be tested, if so.
    pub error: Option<String>,
    /// What was expected.
    pub expectations: Vec<Line>,
    /// What `--faults` did to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<FaultsSummary>,
    /// What the guest did that it must not do, with `--strict`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<StrictSummary>,
}

/// One expectation.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Whether it is met.
    pub passed: bool,
    /// When it was, since the start.
    pub seconds: Option<f64>,
    /// What was negotiated, or who the guest is.
    pub version: Option<String>,
    /// The last step that the guest took.
    pub last_step: Option<&'static str>,
    /// When it did.
    pub last_step_seconds: Option<f64>,
    /// What it should have sent next, if something is missing.
    pub next: Option<String>,
    /// Why it may not have.
    pub explanation: Option<String>,
    /// Each step, in order.
    pub steps: Vec<StepLine>,
}

/// A step that was taken.
#[derive(Clone, Debug, Serialize)]
pub struct StepLine {
    /// Its name.
    pub step: &'static str,
    /// When, since the start.
    pub seconds: f64,
}

/// The line for an expectation that is met now.
pub fn met_line(met: &Expectation, at: Duration) -> String {
    let mut words: Vec<&str> = met.version.as_deref().into_iter().collect();
    words.extend(met.subject.driver().map(|driver| driver.works));
    format!("✓ {:<12} {:>7.3} s  {}", met.name, at.as_secs_f64(), words.join(", "))
        .trim_end()
        .to_owned()
}

impl Report {
    /// What is to be said of a run.
    pub fn new(spec: &VmSpec, findings: &Findings, result: &Result<Verdict, RunError>) -> Self {
        let all = &findings.expectations;
        let is_whole = all.iter().all(|expectation| expectation.met().is_some());
        let crashed = matches!(findings.end, Some(End::Panicked | End::Crashed));
        let broke_rules = findings.strict.as_ref().is_some_and(|strict| strict.failed);
        Self {
            passed: result.is_ok() && is_whole && !crashed && !broke_rules,
            kernel: spec.kernel.display().to_string(),
            seconds: seconds(findings.time),
            end: end(findings.end.as_ref(), spec),
            error: result.as_ref().err().map(ToString::to_string),
            expectations: all.iter().map(|expectation| Line::new(expectation, all)).collect(),
            faults: findings.faults.clone(),
            strict: findings.strict.clone(),
        }
    }

    /// The program's exit status.
    pub fn status(&self, verdict: Verdict) -> u8 {
        match verdict {
            Verdict::Signalled(_) => verdict.status(),
            _ => u8::from(!self.passed),
        }
    }

    /// The expectations that are met, and all.
    fn counts(&self) -> (usize, usize) {
        let met = self.expectations.iter().filter(|line| line.passed).count();
        (met, self.expectations.len())
    }
}

/// To the millisecond.
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

fn end(end: Option<&End>, spec: &VmSpec) -> String {
    match end {
        None => "the machine did not run".to_owned(),
        Some(End::Watched) => "all was seen, and the machine was switched off".to_owned(),
        Some(End::PoweredOff) => "the guest switched itself off".to_owned(),
        Some(End::Reset) => "the guest started over".to_owned(),
        Some(End::Panicked) => "the guest panicked".to_owned(),
        Some(End::Crashed) => "the guest crashed".to_owned(),
        Some(End::TimedOut) => {
            format!("its {} s were over", spec.timeout.unwrap_or_default())
        }
        Some(End::Signal(signal)) => format!("signal {signal} ended busway"),
        Some(End::Quit) => "the user ended it".to_owned(),
        Some(End::Broken(reason)) => format!("the host failed: {reason}"),
    }
}

impl Line {
    fn new(expectation: &Expectation, all: &[Expectation]) -> Self {
        let met = expectation.met();
        let missing = met.is_none().then(|| knowledge::missing(expectation, all));
        let (next, explanation) = missing.map(|Missing { next, why }| (next, why)).unzip();
        let step = |(stage, at): (&Stage, &Duration)| StepLine {
            step: stage.name(),
            seconds: seconds(*at),
        };
        let last = expectation.last();
        Self {
            name: expectation.name.clone(),
            passed: met.is_some(),
            seconds: met.map(seconds),
            version: expectation.version.clone(),
            last_step: last.map(|(stage, _)| stage.name()),
            last_step_seconds: last.map(|(_, at)| seconds(at)),
            next,
            explanation,
            steps: expectation.reached.iter().map(step).collect(),
        }
    }

    /// What is missing, in lines.
    pub fn missing(&self) -> String {
        let last = match (self.last_step, self.last_step_seconds) {
            (Some(step), Some(at)) => format!("{step} after {at:.3} s"),
            _ => "none".to_owned(),
        };
        let next = self.next.as_deref().unwrap_or_default();
        let why = self.explanation.as_deref().unwrap_or_default();
        format!("last step: {last}\nnext would have been: {next}\nwhy not: {why}")
    }
}

impl fmt::Display for Report {
    /// The end of what was said while it ran: what is missing, and the verdict.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.expectations.iter().filter(|line| !line.passed) {
            writeln!(f, "✗ {}", line.name)?;
            for text in line.missing().lines() {
                writeln!(f, "    {text}")?;
            }
        }
        if let Some(strict) = &self.strict {
            writeln!(f, "{strict}")?;
        }
        let (met, all) = self.counts();
        let verdict = if self.passed { "passed" } else { "FAILED" };
        let (seconds, end) = (self.seconds, &self.end);
        writeln!(f, "{verdict}: {met} of {all} seen in {seconds:.3} s; {end}")
    }
}
