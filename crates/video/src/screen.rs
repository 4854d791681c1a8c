// SPDX-License-Identifier: MIT OR Apache-2.0

//! The screen, and who looks at it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use busway_vmbus::Device;
use busway_wire::video::{MAX_RESOLUTIONS, Resolution, Version};

use crate::rect::{Dirt, Rect};
use crate::surface::{Picture, Surface};

/// Resolutions that guests may choose, besides the preferred one.
const COMMON: [(u16, u16); 7] =
    [(1024, 768), (1152, 864), (1280, 720), (1280, 1024), (1366, 768), (1600, 900), (1920, 1080)];

const _: () = assert!(COMMON.len() < MAX_RESOLUTIONS);

/// What is shown.
enum View {
    Nothing,
    Painted(Surface),
    /// The driver has gone.
    Last(Picture),
}

struct State {
    view: View,
    /// One for each viewer: a number for it, whether the size has changed, and what else has.
    viewers: Vec<(u64, bool, Dirt)>,
    next_viewer: u64,
}

impl State {
    fn size(&self) -> Option<(u32, u32)> {
        match &self.view {
            View::Nothing => None,
            View::Painted(surface) => Some(surface.size()),
            View::Last(picture) => Some((picture.width, picture.height)),
        }
    }
}

/// A screen.
#[derive(Clone)]
pub struct Screen {
    preferred: (u16, u16),
    pub(crate) newest: Version,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Screen {
    /// One that no guest has seen, and for which it should choose this width and height.
    pub fn new(preferred: (u16, u16)) -> Self {
        let state = State { view: View::Nothing, viewers: Vec::new(), next_viewer: 0 };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        Self { preferred, newest: Version::V3_5, shared }
    }

    /// The same, on a host that speaks no newer version than this.
    #[must_use]
    pub fn with_newest_version(self, newest: Version) -> Self {
        Self { newest, ..self }
    }

    /// It, for the bus.
    pub fn device(&self) -> impl Device + use<> {
        self.clone()
    }

    /// The width and height that a guest should choose.
    pub const fn preferred(&self) -> (u16, u16) {
        self.preferred
    }

    /// What it shows; `None` before a guest shows anything.
    pub fn picture(&self) -> Option<Picture> {
        // Copied with the lock held, so that a driver's going waits for it: some milliseconds.
        match &self.lock().view {
            View::Nothing => None,
            View::Painted(surface) => Some(surface.picture()),
            View::Last(picture) => Some(picture.clone()),
        }
    }

    /// Somebody who is told of changes. The first is all there is.
    pub fn view(&self) -> Viewer {
        let mut state = self.lock();
        let number = state.next_viewer;
        state.next_viewer += 1;
        state.viewers.push((number, true, Dirt::default()));
        drop(state);
        Viewer { screen: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resolutions for the guest; it should take the first.
    pub(crate) fn resolutions(&self) -> Vec<Resolution> {
        let others = COMMON.into_iter().filter(|size| *size != self.preferred);
        let all = std::iter::once(self.preferred).chain(others);
        all.map(|(width, height)| Resolution::new(width, height)).collect()
    }

    /// The guest paints there from now on, or nowhere.
    pub(crate) fn set_surface(&self, surface: Option<Surface>) {
        let mut state = self.lock();
        state.view = surface.map_or(View::Nothing, View::Painted);
        for (_, resized, dirt) in &mut state.viewers {
            *resized = true;
            dirt.clear();
        }
        self.shared.1.notify_all();
    }

    /// The driver goes; what it painted last stays.
    pub(crate) fn keep_last(&self) {
        let mut state = self.lock();
        if let View::Painted(surface) = &state.view {
            state.view = View::Last(surface.picture());
        }
    }

    /// Those parts have changed.
    pub(crate) fn changed(&self, rects: &[Rect]) {
        let mut state = self.lock();
        let Some(size) = state.size() else { return };
        for (_, _, dirt) in &mut state.viewers {
            rects.iter().for_each(|rect| dirt.add(rect.within(size)));
        }
        self.shared.1.notify_all();
    }
}

/// What has changed since a viewer last looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// It is another picture, all of it; of this width and height.
    pub resized: Option<(u32, u32)>,
    /// Parts of it that have changed, within it.
    pub rects: Vec<Rect>,
}

/// Somebody who looks at a screen.
pub struct Viewer {
    screen: Screen,
    number: u64,
}

impl Viewer {
    /// Waits for a change, so long at most. What is returned is not returned again.
    pub fn wait(&self, timeout: Duration) -> Changes {
        let (_, changed) = &*self.screen.shared;
        let nothing_new = |state: &mut State| {
            let has_picture = state.size().is_some();
            let mine = state.viewers.iter().find(|(number, ..)| *number == self.number);
            mine.is_none_or(|(_, resized, dirt)| dirt.is_empty() && !(*resized && has_picture))
        };
        let state = self.screen.lock();
        let waited = changed.wait_timeout_while(state, timeout, nothing_new);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let size = state.size();
        let mine = state.viewers.iter_mut().find(|(number, ..)| *number == self.number);
        let Some((_, resized, dirt)) = mine else { return Changes::default() };
        let resized = size.filter(|_| std::mem::take(resized));
        Changes { resized, rects: dirt.take() }
    }

    /// A part of the picture as it is now: four bytes for each pixel, line by line. `None` if the
    /// picture is not `size` any more.
    pub fn part(&self, size: (u32, u32), rect: Rect) -> Option<Vec<u8>> {
        let state = self.screen.lock();
        if state.size() != Some(size) {
            return None;
        }
        match &state.view {
            View::Nothing => None,
            View::Painted(surface) => Some(surface.part(rect)),
            View::Last(picture) => Some(picture.part(rect)),
        }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.screen.lock().viewers.retain(|(number, ..)| *number != self.number);
    }
}
