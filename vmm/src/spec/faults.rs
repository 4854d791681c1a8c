// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults: what `--faults` and `--fault-seed` say.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::path::PathBuf;

use busway_fault::{Script, ScriptError};
use serde::{Deserialize, Serialize};

/// A script of faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultsSpec {
    /// The file.
    pub file: PathBuf,
    /// What random numbers start from, whatever the file says.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// The script cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum FaultsSpecError {
    /// It cannot be read.
    #[error("--faults {path}: {reason}; check the path", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// It is none.
    #[error("--faults {path}, {reason}", path = path.display())]
    Script {
        /// The file.
        path: PathBuf,
        /// The line, and what is wrong there.
        reason: ScriptError,
    },
}

impl FaultsSpec {
    /// Reads the script. Without a seed, chance gives one.
    pub fn read(&self) -> Result<Script, FaultsSpecError> {
        let Self { file: path, seed } = self;
        let text = std::fs::read_to_string(path)
            .map_err(|reason| FaultsSpecError::File { path: path.clone(), reason })?;
        // As short as a seed that somebody may want to type.
        let chance = RandomState::new().hash_one(0) & 0xffff_ffff;
        Script::parse(&text, *seed, chance)
            .map_err(|reason| FaultsSpecError::Script { path: path.clone(), reason })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_script_that_cannot_be_played_is_named_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.toml");
        let spec = FaultsSpec { file: file.clone(), seed: None };
        let error = spec.read().unwrap_err().to_string();
        assert!(error.contains("a.toml") && error.contains("check the path"), "{error}");
        fs::write(&file, "[[rule]]\nfrom = \"host\"\ndo = \"dorp\"\n").unwrap();
        let error = spec.read().unwrap_err().to_string();
        assert!(error.contains("a.toml, line 3: unknown variant `dorp`"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn the_scripts_that_come_along_can_be_played() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/faults");
        let mut count = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let spec = FaultsSpec { file: entry.unwrap().path(), seed: Some(1) };
            spec.read().unwrap();
            count += 1;
        }
        assert!(count >= 5, "{count}");
    }
}
