// SPDX-License-Identifier: MIT OR Apache-2.0

//! The files that reports go to: opened before anything boots, so that no test is run for nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;

use super::junit;
use super::report::Report;
use crate::spec::ValueError;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Junit,
}

/// A report that is wanted: `json=FILE` or `junit=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportSpec {
    kind: Kind,
    path: PathBuf,
}

impl FromStr for ReportSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (kind, path) = match text.split_once('=') {
            Some(("json", path)) if !path.is_empty() => (Kind::Json, path),
            Some(("junit", path)) if !path.is_empty() => (Kind::Junit, path),
            _ => return Err(ValueError("give json=FILE or junit=FILE".to_owned())),
        };
        Ok(Self { kind, path: path.into() })
    }
}

/// A report cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("--report: cannot write {path}: {reason}; give a file that you may write", path = path.display())]
pub struct OutputError {
    path: PathBuf,
    reason: io::Error,
}

/// Open files for all reports.
#[derive(Debug)]
pub struct Outputs(Vec<(ReportSpec, File)>);

impl Outputs {
    /// Opens them. What stands in a file stays until there is a report.
    pub fn open(specs: &[ReportSpec]) -> Result<Self, OutputError> {
        let open = |spec: &ReportSpec| {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&spec.path);
            let error = |reason| OutputError { path: spec.path.clone(), reason };
            Ok((spec.clone(), file.map_err(error)?))
        };
        Ok(Self(specs.iter().map(open).collect::<Result<_, _>>()?))
    }

    /// Writes `report` into each.
    pub fn write(self, report: &Report) -> Result<(), OutputError> {
        for (ReportSpec { kind, path }, file) in self.0 {
            write(kind, file, report).map_err(|reason| OutputError { path, reason })?;
        }
        Ok(())
    }
}

fn write(kind: Kind, mut file: File, report: &Report) -> io::Result<()> {
    let text = match kind {
        Kind::Json => serde_json::to_string_pretty(report)? + "\n",
        Kind::Junit => junit::document(report),
    };
    // A pipe or a device has no length to set.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    file.write_all(text.as_bytes())
}
