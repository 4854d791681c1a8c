// SPDX-License-Identifier: MIT OR Apache-2.0

//! The screen's channel.

use std::collections::VecDeque;

use busway_memory::GuestMemory;
use busway_ring::{Outgoing, Packet};
use busway_vmbus::{ChannelHandler, Fault, Io, Progress, Sent, Step};
use busway_wire::pipe::PipeHeader;
use busway_wire::video::{
    Dirt, FeatureChange, Header, MessageType, Rectangle, ResolutionResponse, SituationUpdate,
    Version, VersionResponse, VramLocation,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::rect::Rect;
use crate::screen::Screen;
use crate::surface::Surface;

/// A guest that asks and reads no answer is not listened to.
const MAX_ANSWERS: usize = 8;

/// The host's end of the channel.
pub(crate) struct VideoChannel {
    screen: Screen,
    memory: GuestMemory,
    /// Where the guest keeps its pictures.
    vram: Option<u64>,
    /// What the guest has not been told yet.
    answers: VecDeque<Vec<u8>>,
}

impl VideoChannel {
    pub(crate) fn new(screen: Screen, memory: GuestMemory) -> Self {
        Self { screen, memory, vram: None, answers: VecDeque::new() }
    }

    fn answer(&mut self, kind: MessageType, body: &[u8]) {
        let header = Header::new(kind, u32::try_from(body.len()).unwrap_or(u32::MAX));
        let pipe = PipeHeader::data(header.len.get());
        self.answers.push_back([pipe.as_bytes(), header.as_bytes(), body].concat());
    }

    fn version(&mut self, body: &[u8], io: &mut Io<'_>) {
        let version = u32::read_from_prefix(body).map_or(0, |(version, _)| version);
        let asked = Version(version);
        let accepted = Version::ALL.contains(&asked) && asked <= self.screen.newest;
        if accepted {
            let (major, minor) = (version as u16, (version >> 16) as u16);
            io.reached(Step::Version { major, minor });
        }
        let response =
            VersionResponse { version: version.into(), accepted: accepted.into(), max_outputs: 1 };
        self.answer(MessageType::VERSION_RESPONSE, response.as_bytes());
    }

    fn resolutions(&mut self) {
        let all = self.screen.resolutions();
        let count = u8::try_from(all.len()).unwrap_or(0);
        let front = ResolutionResponse { edid: [0; 128], count, preferred: 0, is_standard: 0 };
        let body = [front.as_bytes(), all.as_bytes()].concat();
        self.answer(MessageType::RESOLUTION_RESPONSE, &body);
    }

    fn vram(&mut self, body: &[u8]) {
        let Ok((location, _)) = VramLocation::read_from_prefix(body) else { return };
        self.vram = (location.has_address != 0).then_some(location.address.get());
        self.answer(MessageType::VRAM_LOCATION_ACK, location.context.as_bytes());
        // A driver that is told so before it shows anything says it at the first change.
        let wanted = FeatureChange { dirt: 1, pointer_position: 0, pointer_shape: 0, situation: 1 };
        self.answer(MessageType::FEATURE_CHANGE, wanted.as_bytes());
    }

    fn situation(&mut self, body: &[u8], io: &mut Io<'_>) {
        let Ok((situation, _)) = SituationUpdate::read_from_prefix(body) else { return };
        let output = situation.output;
        let is_lit = situation.count != 0 && output.active != 0;
        let surface = self
            .vram
            .filter(|_| is_lit)
            .and_then(|address| Surface::new(&self.memory, address, &output));
        if surface.is_some() {
            io.reached(Step::Ready);
        }
        self.screen.set_surface(surface);
        self.answer(MessageType::SITUATION_UPDATE_ACK, situation.context.as_bytes());
    }

    fn dirt(&self, body: &[u8], io: &mut Io<'_>) {
        let Ok((dirt, rects)) = Dirt::read_from_prefix(body) else { return };
        let rects = rects.chunks_exact(size_of::<Rectangle>()).take(dirt.count.into());
        let rects: Vec<_> =
            rects.filter_map(|bytes| Rectangle::read_from_bytes(bytes).ok()).map(rect).collect();
        self.screen.changed(&rects);
        io.worked();
    }
}

/// What a guest's rectangle has in it; nothing, if its edges are the wrong way round.
fn rect(rectangle: Rectangle) -> Rect {
    let edge = |value: i32| u32::try_from(value).unwrap_or(0);
    let (x, y) = (edge(rectangle.left.get()), edge(rectangle.top.get()));
    let width = edge(rectangle.right.get()).saturating_sub(x);
    Rect { x, y, width, height: edge(rectangle.bottom.get()).saturating_sub(y) }
}

impl ChannelHandler for VideoChannel {
    fn on_packet(&mut self, packet: Packet<'_>, io: &mut Io<'_>) -> Result<(), Fault> {
        let data = PipeHeader::parse(packet.payload).map_err(Fault::protocol)?;
        // What is too short is dropped, as by a host that does not understand.
        if let Ok((header, body)) = Header::read_from_prefix(data) {
            match header.kind() {
                MessageType::VERSION_REQUEST => self.version(body, io),
                MessageType::RESOLUTION_REQUEST => self.resolutions(),
                MessageType::VRAM_LOCATION => self.vram(body),
                MessageType::SITUATION_UPDATE => self.situation(body, io),
                MessageType::DIRT => self.dirt(body, io),
                // The pointer of a guest that has one: Linux paints its own into the picture.
                _ => {}
            }
        }
        match packet.descriptor.wants_completion() {
            true => io.complete(packet.descriptor.transaction_id, &[]),
            false => Ok(()),
        }
    }

    fn on_batch(&mut self, io: &mut Io<'_>) -> Result<Progress, Fault> {
        while let Some(answer) = self.answers.front() {
            if io.send(&Outgoing::in_band(0, answer))? == Sent::NoRoom {
                break;
            }
            self.answers.pop_front();
        }
        Ok(Progress::Idle)
    }

    fn has_room(&self) -> bool {
        self.answers.len() < MAX_ANSWERS
    }
}

impl Drop for VideoChannel {
    fn drop(&mut self) {
        self.screen.keep_last();
    }
}
