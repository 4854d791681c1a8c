// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine's keyboard and mouse, which outlive its resets.

use std::io;

use busway_input::{Key, Keyboard, Mouse, Pointer, Refused, strokes};

use crate::bus::VmBus;

/// A keyboard and a mouse, if the machine has them.
#[derive(Clone)]
pub struct Input {
    keyboard: Option<Keyboard>,
    mouse: Option<Mouse>,
}

/// Something was not typed, or the pointer not moved.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The machine was started without.
    #[error("the machine has no {0}: start it with --{0}")]
    None(&'static str),
    /// No key makes it.
    #[error("no key of the keyboard makes {0:?}")]
    NoKey(char),
    /// The guest does not take it.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Input {
    /// What a machine is to have.
    pub fn new(keyboard: bool, mouse: bool) -> io::Result<Self> {
        let keyboard = keyboard.then(Keyboard::new).transpose()?;
        Ok(Self { keyboard, mouse: mouse.then(Mouse::new).transpose()? })
    }

    /// These.
    #[cfg(test)]
    pub(crate) fn with(keyboard: Option<Keyboard>, mouse: Option<Mouse>) -> Self {
        Self { keyboard, mouse }
    }

    /// Puts the devices on a bus.
    pub fn attach(&self, bus: &mut VmBus) {
        if let Some(keyboard) = &self.keyboard {
            bus.add(Box::new(keyboard.device()));
        }
        if let Some(mouse) = &self.mouse {
            bus.add(Box::new(mouse.device()));
        }
    }

    /// Types a text, all of it or nothing.
    pub fn type_text(&self, text: &str) -> Result<(), InputError> {
        let keyboard = self.keyboard.as_ref().ok_or(InputError::None("keyboard"))?;
        let mut keys: Vec<Key> = Vec::new();
        for character in text.chars() {
            keys.extend(strokes(character).ok_or(InputError::NoKey(character))?);
        }
        Ok(keyboard.press(&keys)?)
    }

    /// Presses keys and lets them go, all of them or none.
    pub fn press(&self, keys: &[Key]) -> Result<(), InputError> {
        let keyboard = self.keyboard.as_ref().ok_or(InputError::None("keyboard"))?;
        Ok(keyboard.press(keys)?)
    }

    /// Puts the pointer somewhere.
    pub fn point(&self, pointer: Pointer) -> Result<(), InputError> {
        let mouse = self.mouse.as_ref().ok_or(InputError::None("mouse"))?;
        Ok(mouse.point(&[pointer])?)
    }
}
