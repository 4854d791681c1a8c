// SPDX-License-Identifier: MIT OR Apache-2.0

//! The guest's screen: what `--display` says.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use busway_video::{MAX_SIZE, MIN_SIZE};
use serde::{Deserialize, Serialize};

use super::ValueError;

/// Who sees the guest's screen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DisplaySpec {
    /// It has none.
    #[default]
    None,
    /// Whoever connects to this address by VNC.
    Vnc(SocketAddr, ScreenSize),
    /// A file, which gets the last picture when the machine ends, and one whenever it is asked for.
    Png(PathBuf, ScreenSize),
}

/// Which width and height the guest should choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScreenSize(pub u16, pub u16);

impl Default for ScreenSize {
    fn default() -> Self {
        Self(1024, 768)
    }
}

impl FromStr for ScreenSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let size = text.split_once('x').and_then(|(width, height)| {
            Some((width.parse::<u16>().ok()?, height.parse::<u16>().ok()?))
        });
        let (min, max) = (MIN_SIZE, MAX_SIZE);
        match size {
            // Guests count lines in words of a few pixels.
            Some((w, h))
                if w % 8 == 0 && (min.0..=max.0).contains(&w) && (min.1..=max.1).contains(&h) =>
            {
                Ok(Self(w, h))
            }
            _ => Err(ValueError(format!(
                "size={text} is none of {}x{} to {}x{} with a width in whole eights",
                min.0, min.1, max.0, max.1
            ))),
        }
    }
}

impl DisplaySpec {
    /// The size that the guest should choose, if it has a screen.
    pub fn size(&self) -> Option<(u16, u16)> {
        match self {
            Self::None => None,
            Self::Vnc(_, ScreenSize(width, height)) | Self::Png(_, ScreenSize(width, height)) => {
                Some((*width, *height))
            }
        }
    }
}

impl FromStr for DisplaySpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            let forms = "give none, vnc=ADDRESS:PORT[,size=WxH] or png=PATH[,size=WxH]";
            ValueError(forms.to_owned())
        };
        if text == "none" {
            return Ok(Self::None);
        }
        let (kind, value) = text.split_once('=').ok_or_else(wrong)?;
        let (value, size) = match value.rsplit_once(",size=") {
            Some((value, size)) => (value, size.parse()?),
            None => (value, ScreenSize::default()),
        };
        match kind {
            "vnc" => Ok(Self::Vnc(value.parse().map_err(|_| wrong())?, size)),
            "png" if !value.is_empty() => Ok(Self::Png(value.into(), size)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for DisplaySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Vnc(address, ScreenSize(width, height)) => {
                write!(f, "vnc={address},size={width}x{height}")
            }
            Self::Png(path, ScreenSize(width, height)) => {
                write!(f, "png={},size={width}x{height}", path.display())
            }
        }
    }
}

impl TryFrom<String> for DisplaySpec {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<DisplaySpec> for String {
    fn from(display: DisplaySpec) -> Self {
        display.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_printed() {
        for text in ["none", "png=a,b=c.png,size=1280x720", "vnc=[::1]:5900,size=1920x1080"] {
            assert_eq!(text.parse::<DisplaySpec>().unwrap().to_string(), text);
        }
        assert_eq!("png=x".parse::<DisplaySpec>().unwrap().size(), Some((1024, 768)));
    }

    #[test]
    fn what_no_guest_can_show_is_refused() {
        let sizes = ["", "800", "639x480", "640x479", "1928x1080", "1920x1081", "1001x700", "-8x9"];
        for size in sizes {
            let error = format!("png=x,size={size}").parse::<DisplaySpec>().unwrap_err();
            assert!(error.to_string().contains("640x480"), "{error}");
        }
        for wrong in ["", "png", "png=", "sdl", "none=1", "vnc=", "vnc=5900", "vnc=localhost:5900"]
        {
            assert!(wrong.parse::<DisplaySpec>().is_err(), "{wrong:?}");
        }
    }
}
