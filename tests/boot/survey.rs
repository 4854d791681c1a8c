// SPDX-License-Identifier: MIT OR Apache-2.0

//! One boot of each kernel with four vCPUs and a disk, for all the tests that only look at a guest.

use crate::case::Case;
use crate::guest::script_status;
use busway_harness::Report;

const SCRIPT: &str = include_str!("survey.sh");

/// What the guest found; the first test that asks boots it.
pub(crate) fn of(case: &Case) -> &'static Report {
    let survey = case.kernel.survey.get_or_init(|| {
        // The tests that come later have to show the same transcript: it goes with the result.
        let own = Case::new(case.kernel);
        let disk = own.disk(8);
        let running = own.guest().cpus(4).disk_with(&disk, "serial=SURVEY").start(SCRIPT);
        let report = running.end();
        match (script_status(&report), report.status) {
            (Some(0), 0) => Ok(report),
            _ => Err(own.transcript().text()),
        }
    });
    match survey {
        Ok(report) => {
            for line in &report.lines {
                case.transcript().line(&format!("  {line}"));
            }
            report
        }
        Err(transcript) => panic!("the guest that is looked at did not get through:\n{transcript}"),
    }
}
