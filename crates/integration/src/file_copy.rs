// SPDX-License-Identifier: MIT OR Apache-2.0

//! File copy: a file of the host's is written in the guest.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use busway_vmbus::Device;
use busway_wire::ic::file_copy::{
    FRAGMENT_LEN, Header, Operation, Start, StartFlags, VERSIONS, Write,
};
use busway_wire::ic::{MessageType, Version};
use busway_wire::{Guid, class, utf16};
use zerocopy::IntoBytes;

use crate::asks::Asks;
use crate::component::{About, Component};
use crate::{Failure, Phase};

const ABOUT: About = About {
    class: class::FILE_COPY,
    // The daemon of newer kernels finds the device by this name.
    instance: Guid::from_text_order(0xeb765408_105f_49b6_b4aa_c123b64d17d4),
    kind: MessageType::FILE_COPY,
    versions: &VERSIONS,
};

/// Linux gives its daemon 30 s and then answers in its place.
const PATIENCE: Duration = Duration::from_secs(40);

/// The file copy component.
#[derive(Clone)]
pub struct FileCopy {
    component: Component<Asks>,
    /// The guest keeps one file open.
    turn: Arc<Mutex<()>>,
}

/// Where a file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The directory in the guest.
    pub directory: String,
    /// The file's name there.
    pub name: String,
    /// What may be done for it.
    pub flags: StartFlags,
}

/// A file was not copied. What the guest has of it, it has been told to remove.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The guest did not do what it was asked.
    #[error(transparent)]
    Guest(#[from] Failure),
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Source(#[source] io::Error),
    /// Whoever wanted it does not want it any more.
    #[error("the copy was cancelled after {0} B")]
    Cancelled(u64),
}

impl FileCopy {
    /// One that no guest has seen.
    pub fn new() -> io::Result<Self> {
        Ok(Self { component: Component::new(&ABOUT)?, turn: Arc::default() })
    }

    /// The same, on a host that speaks no newer version than this of framework and messages; the
    /// oldest of each is always spoken.
    #[must_use]
    pub fn with_newest_version(self, newest: Version) -> Self {
        Self { component: self.component.with_newest_version(newest), ..self }
    }

    /// It, for the bus.
    pub fn device(&self) -> impl Device + use<> {
        self.component.clone()
    }

    /// How far it and its guest have come.
    pub fn phase(&self) -> Phase {
        self.component.phase()
    }

    /// Copies `len` bytes of `source`, when those before have been copied. After each part, `progress` hears how many bytes are there,
    /// and says whether to go on.
    pub fn copy(
        &self,
        source: &mut dyn Read,
        len: u64,
        target: &Target,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), CopyError> {
        let field = |what, text: &str| {
            utf16::field(text).map_err(|reason| Failure::TooLong { what, reason })
        };
        // Without a slash behind it, Linux's daemon does not make the last part.
        let directory = format!("{}/", target.directory.trim_end_matches('/'));
        let start = Start {
            header: Header::request(Operation::START),
            name: field("the file's name", &target.name)?,
            path: field("the directory's name", &directory)?,
            flags: target.flags.bits(),
            size: len,
        };
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.ask(start.as_bytes())?;
        let written = self.write(source, len, progress);
        let complete = || Ok(self.ask(Header::request(Operation::COMPLETE).as_bytes())?);
        let result = written.and_then(|()| complete());
        if result.is_err() {
            // What there is to say has been said.
            let _ = self.ask(Header::request(Operation::CANCEL).as_bytes());
        }
        result
    }

    fn write(
        &self,
        source: &mut dyn Read,
        len: u64,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), CopyError> {
        let mut offset = 0;
        while offset < len {
            let part = usize::try_from(len - offset).unwrap_or(FRAGMENT_LEN).min(FRAGMENT_LEN);
            let mut data = vec![0; FRAGMENT_LEN];
            let room = data.get_mut(..part).unwrap_or_default();
            source.read_exact(room).map_err(CopyError::Source)?;
            let header = Header::request(Operation::WRITE);
            let len = u32::try_from(part).unwrap_or(u32::MAX);
            let write = Write { header, padding: 0, offset: offset.into(), len };
            self.ask(&[write.as_bytes(), &data].concat())?;
            offset += part as u64;
            if progress(offset).is_break() {
                return Err(CopyError::Cancelled(offset));
            }
        }
        Ok(())
    }

    fn ask(&self, body: &[u8]) -> Result<(), Failure> {
        self.component.ask(body, PATIENCE)?.done()?;
        Ok(())
    }
}
