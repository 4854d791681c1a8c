// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's screen, as the host shows it. It outlives the machine's resets.

mod png;
mod vnc;

use std::path::{Path, PathBuf};

use busway_video::Screen;
use busway_wire::video::Version;
use log::{info, warn};

use crate::bus::VmBus;
use crate::input::Input;
use crate::spec::DisplaySpec;

pub use png::PngError;
pub use vnc::VncError;

/// A machine's screen.
#[derive(Clone)]
pub struct Display {
    screen: Screen,
    /// Where the last picture goes.
    file: Option<PathBuf>,
}

/// There is no picture, or it cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum ScreenshotError {
    /// Nobody said where to.
    #[error("name a file for the picture: the machine was started without --display png=PATH")]
    NoFile,
    /// The guest has no driver for the screen, or has switched it off.
    #[error("the guest shows nothing on its screen")]
    Dark,
    /// It cannot be written.
    #[error(transparent)]
    Png(#[from] PngError),
}

/// A picture that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screenshot {
    /// Where.
    pub file: PathBuf,
    /// Its width and height in pixels.
    pub size: (u32, u32),
}

impl Display {
    /// The screen that `spec` wants, if any, which speaks versions up to `newest`. Keys and pointer of
    /// those who see it go to `input`.
    pub fn open(
        spec: &DisplaySpec,
        newest: Version,
        input: &Input,
    ) -> Result<Option<Self>, VncError> {
        let Some(size) = spec.size() else { return Ok(None) };
        let screen = Screen::new(size).with_newest_version(newest);
        let file = match spec {
            DisplaySpec::Vnc(address, _) => {
                let address = vnc::start(*address, screen.clone(), input.clone())?;
                info!("the guest's screen is at {address}");
                None
            }
            DisplaySpec::Png(path, _) => Some(path.clone()),
            DisplaySpec::None => None,
        };
        Ok(Some(Self { screen, file }))
    }

    /// Puts it on a bus.
    pub fn attach(&self, bus: &mut VmBus) {
        bus.add(Box::new(self.screen.device()));
    }

    /// Writes what the guest shows into `file`, or where the machine's pictures go.
    pub fn screenshot(&self, file: Option<&Path>) -> Result<Screenshot, ScreenshotError> {
        let file = file.or(self.file.as_deref()).ok_or(ScreenshotError::NoFile)?;
        let picture = self.screen.picture().ok_or(ScreenshotError::Dark)?;
        png::write(&picture, file)?;
        Ok(Screenshot { file: file.to_owned(), size: (picture.width, picture.height) })
    }

    /// The machine has ended.
    pub fn end(&self) {
        if self.file.is_none() {
            return;
        }
        if let Err(error) = self.screenshot(None) {
            warn!("--display: no last picture: {error}");
        }
    }
}
