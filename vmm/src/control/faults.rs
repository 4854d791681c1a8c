// SPDX-License-Identifier: MIT OR Apache-2.0

//! What requests about faults do.

use super::protocol::{FaultRule, FaultTask, Reply};
use super::{Handles, one_line};
use crate::bus::News;
use crate::faults::Faults;
use crate::spec::FaultsSpec;

/// Does what is to be done with the script.
pub(super) fn fault(handles: &Handles, task: FaultTask) -> Result<Reply, String> {
    let faults = &handles.faults;
    match task {
        FaultTask::List => Ok(Reply::Faults { rules: rules(faults) }),
        FaultTask::Add { file, seed } => {
            let script = FaultsSpec { file, seed }.read().map_err(|error| one_line(&error))?;
            let before = rules(faults).len();
            faults.add(script);
            tell(handles);
            Ok(Reply::Faults { rules: rules(faults).into_iter().skip(before).collect() })
        }
        FaultTask::Clear => {
            faults.clear();
            tell(handles);
            Ok(Reply::Nothing)
        }
    }
}

/// Lets the bus know what is so now.
fn tell(handles: &Handles) {
    let Handles { faults, bus, .. } = handles;
    bus.send(News::Meddle(faults.is_active().then(|| faults.meddler())));
}

fn rules(faults: &Faults) -> Vec<FaultRule> {
    let (script, summary) = (faults.script(), faults.summary());
    let rules = script.active().zip(summary.rules.into_iter().skip(script.retired));
    let rules = rules.map(|((_, rule), done)| FaultRule {
        name: done.name,
        action: done.action.to_owned(),
        seed: rule.seed,
        fired: done.fired,
    });
    rules.collect()
}
