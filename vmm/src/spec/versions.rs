// SPDX-License-Identifier: MIT OR Apache-2.0

//! The newest versions that the host speaks: what `--vmbus-version` and its like say.

use std::fmt::Display;

use busway_wire::{Version as BusVersion, balloon, ic, nvsp, storvsc, video};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{SpecError, ValueError};

/// A protocol whose newest version can be chosen.
pub trait Protocol: Copy + Display + 'static {
    /// Its versions, oldest first.
    const VERSIONS: &'static [Self];
    /// The last of them.
    const NEWEST: Self;
}

impl Protocol for BusVersion {
    const VERSIONS: &'static [Self] = &Self::ALL;
    const NEWEST: Self = Self::V6_0;
}

impl Protocol for storvsc::Version {
    const VERSIONS: &'static [Self] = &Self::ALL;
    const NEWEST: Self = Self::V6_2;
}

impl Protocol for nvsp::Version {
    const VERSIONS: &'static [Self] = &Self::ALL;
    const NEWEST: Self = Self::V6_1;
}

/// Of the components' messages and of the framework around them.
impl Protocol for ic::Version {
    const VERSIONS: &'static [Self] =
        &[Self::new(1, 0), Self::new(3, 0), Self::new(3, 1), Self::new(3, 2), Self::new(4, 0)];
    const NEWEST: Self = Self::new(4, 0);
}

impl Protocol for video::Version {
    const VERSIONS: &'static [Self] = &Self::ALL;
    const NEWEST: Self = Self::V3_5;
}

impl Protocol for balloon::Version {
    const VERSIONS: &'static [Self] = &Self::ALL;
    const NEWEST: Self = Self::V2_0;
}

/// The newest version that the host speaks of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String", bound = "")]
pub struct Newest<P: Protocol>(pub P);

impl<P: Protocol> TryFrom<String> for Newest<P> {
    type Error = ValueError;

    /// A version as it is printed, or without the `.0` at its end.
    fn try_from(text: String) -> Result<Self, ValueError> {
        let is_meant = |version: &&P| {
            let name = version.to_string();
            name == text || name.strip_suffix(".0") == Some(&text)
        };
        P::VERSIONS.iter().find(is_meant).copied().map(Self).ok_or_else(|| {
            let names: Vec<_> = P::VERSIONS.iter().map(P::to_string).collect();
            ValueError(format!("give one of {}", names.join(", ")))
        })
    }
}

impl<P: Protocol> From<Newest<P>> for String {
    fn from(Newest(version): Newest<P>) -> Self {
        version.to_string()
    }
}

impl<P: Protocol> Default for Newest<P> {
    /// The newest there is.
    fn default() -> Self {
        Self(P::NEWEST)
    }
}

/// The newest version that the host speaks of each protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VersionsSpec {
    /// Of the bus.
    pub vmbus: Newest<BusVersion>,
    /// Of its disk controller.
    pub storage: Newest<storvsc::Version>,
    /// Of its network cards (NVSP).
    pub network: Newest<nvsp::Version>,
    /// Of its integration components. Of vss and copy there is one version, which is always there.
    pub integration: Newest<ic::Version>,
    /// Of its screen.
    pub video: Newest<video::Version>,
    /// Of its balloon.
    pub balloon: Newest<balloon::Version>,
}

/// The same by flags.
#[derive(Clone, Debug, Default, Args)]
pub struct VersionArgs {
    /// Newest version of VMBus that the host speaks, so that the guest falls back to it: 0.13, 1.1,
    /// 2.4, 3.0, 4.0, 4.1, 5.0, 5.1, 5.2, 5.3 or 6.0 [default: 6.0]
    #[arg(long, value_name = "VERSION")]
    pub vmbus_version: Option<String>,

    /// The same for disks: 2.0, 4.2, 5.1, 6.0 or 6.2 [default: 6.2]
    #[arg(long, value_name = "VERSION")]
    pub storage_version: Option<String>,

    /// The same for network cards (NVSP): 1, 2, 4.0, 5.0, 6.0 or 6.1 [default: 6.1]
    #[arg(long, value_name = "VERSION")]
    pub network_version: Option<String>,

    /// The same for integration components and their framework: 1.0, 3.0, 3.1, 3.2 or 4.0 [default:
    /// 4.0]
    #[arg(long, value_name = "VERSION")]
    pub integration_version: Option<String>,

    /// The same for the screen: 3.2 or 3.5 [default: 3.5]
    #[arg(long, value_name = "VERSION")]
    pub video_version: Option<String>,

    /// The same for the balloon: 1.0 or 2.0 [default: 2.0]
    #[arg(long, value_name = "VERSION")]
    pub balloon_version: Option<String>,
}

impl VersionArgs {
    /// Changes what the flags name.
    pub fn apply(&self, spec: &mut VersionsSpec) -> Result<(), SpecError> {
        set("vmbus-version", self.vmbus_version.as_ref(), &mut spec.vmbus)?;
        set("storage-version", self.storage_version.as_ref(), &mut spec.storage)?;
        set("network-version", self.network_version.as_ref(), &mut spec.network)?;
        set("integration-version", self.integration_version.as_ref(), &mut spec.integration)?;
        set("video-version", self.video_version.as_ref(), &mut spec.video)?;
        set("balloon-version", self.balloon_version.as_ref(), &mut spec.balloon)
    }
}

fn set<P: Protocol>(
    flag: &'static str,
    text: Option<&String>,
    newest: &mut Newest<P>,
) -> Result<(), SpecError> {
    if let Some(text) = text {
        let wrong = |reason| SpecError::Value { flag, value: text.clone(), reason };
        *newest = text.clone().try_into().map_err(wrong)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_version_is_read_as_it_is_printed() {
        fn agrees<P: Protocol>(names: &str) {
            let names: Vec<_> = names.split(' ').collect();
            let read = names.iter().map(|name| {
                let newest: Newest<P> = (*name).to_owned().try_into().unwrap();
                String::from(newest)
            });
            assert_eq!(read.collect::<Vec<_>>(), names);
            assert_eq!(names.len(), P::VERSIONS.len());
            assert_eq!(String::from(Newest::<P>::default()), *names.last().unwrap());
            for wrong in ["", "0", "7.0", "6.3", "none", " 6.0"] {
                assert!(Newest::<P>::try_from(wrong.to_owned()).is_err(), "{wrong:?}");
            }
        }
        agrees::<BusVersion>("0.13 1.1 2.4 3.0 4.0 4.1 5.0 5.1 5.2 5.3 6.0");
        agrees::<storvsc::Version>("2.0 4.2 5.1 6.0 6.2");
        agrees::<nvsp::Version>("1 2 4.0 5.0 6.0 6.1");
        agrees::<ic::Version>("1.0 3.0 3.1 3.2 4.0");
        agrees::<video::Version>("3.2 3.5");
        agrees::<balloon::Version>("1.0 2.0");
        let short: Newest<nvsp::Version> = "5".to_owned().try_into().unwrap();
        assert_eq!(short.0, nvsp::Version::V5);
    }

    #[test]
    fn flags_change_what_they_name() {
        let mut spec: VersionsSpec = serde_json::from_str(r#"{"network": "5.0"}"#).unwrap();
        let args = VersionArgs {
            vmbus_version: Some("2.4".to_owned()),
            storage_version: Some("6.0".to_owned()),
            integration_version: Some("3.0".to_owned()),
            video_version: Some("3.2".to_owned()),
            balloon_version: Some("1".to_owned()),
            ..VersionArgs::default()
        };
        args.apply(&mut spec).unwrap();
        assert_eq!(spec.vmbus.0, BusVersion::V2_4);
        assert_eq!(spec.storage.0, storvsc::Version::V6_0);
        assert_eq!(spec.network.0, nvsp::Version::V5);
        let printed = serde_json::to_string(&spec).unwrap();
        let bus = r#"{"vmbus":"2.4","storage":"6.0","network":"5.0","#;
        let rest = r#""integration":"3.0","video":"3.2","balloon":"1.0"}"#;
        assert_eq!(printed, [bus, rest].concat());
    }

    /// The help's lists are by hand.
    #[test]
    fn the_help_lists_what_there_is() {
        fn lists<P: Protocol>(help: &str) {
            let (_, rest) = help.split_once(": ").unwrap();
            let (list, default) = rest.split_once(" [default: ").unwrap();
            let names: Vec<_> = P::VERSIONS.iter().map(P::to_string).collect();
            assert_eq!(list.replace(" or ", ", ").split(", ").collect::<Vec<_>>(), names);
            assert_eq!(default.trim_end_matches(']'), *names.last().unwrap());
        }
        let cli = Cli::command();
        for command in ["run", "smoke"] {
            let command = cli.find_subcommand(command).unwrap();
            let help = |flag: &str| {
                let argument = command.get_arguments().find(|known| known.get_id() == flag);
                argument.unwrap().get_help().unwrap().to_string().replace('\n', " ")
            };
            lists::<BusVersion>(&help("vmbus_version"));
            lists::<storvsc::Version>(&help("storage_version"));
            lists::<nvsp::Version>(&help("network_version"));
            lists::<ic::Version>(&help("integration_version"));
            lists::<video::Version>(&help("video_version"));
            lists::<balloon::Version>(&help("balloon_version"));
        }
    }
}
