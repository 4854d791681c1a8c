// SPDX-License-Identifier: MIT OR Apache-2.0

//! Parts of a picture.

/// A part of a picture, in pixels; empty if it has no width or no height.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    /// The first column.
    pub x: u32,
    /// The first line.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Lines.
    pub height: u32,
}

/// Rectangles that are kept apart; what comes beyond is put together with the rest.
const MAX_APART: usize = 16;

impl Rect {
    /// All of a picture.
    pub const fn whole((width, height): (u32, u32)) -> Self {
        Self { x: 0, y: 0, width, height }
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// The part of it that is in a picture of that size.
    #[must_use]
    pub fn within(&self, (width, height): (u32, u32)) -> Self {
        let (x, y) = (self.x.min(width), self.y.min(height));
        Self { x, y, width: self.width.min(width - x), height: self.height.min(height - y) }
    }

    /// The least rectangle that has both in it.
    #[must_use]
    fn with(&self, other: &Self) -> Self {
        if self.is_empty() {
            return *other;
        }
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        let right = (self.x + self.width).max(other.x + other.width);
        let bottom = (self.y + self.height).max(other.y + other.height);
        Self { x, y, width: right - x, height: bottom - y }
    }
}

/// What has changed in a picture: a few rectangles, or one around them all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dirt {
    rects: Vec<Rect>,
}

impl Dirt {
    /// Adds a rectangle that lies within the picture.
    pub(crate) fn add(&mut self, rect: Rect) {
        if rect.is_empty() || self.rects.contains(&rect) {
            return;
        }
        if self.rects.len() < MAX_APART {
            return self.rects.push(rect);
        }
        let all = self.rects.iter().fold(rect, |all, rect| all.with(rect));
        self.rects.clear();
        self.rects.push(all);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rects.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.rects.clear();
    }

    pub(crate) fn take(&mut self) -> Vec<Rect> {
        std::mem::take(&mut self.rects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect { x, y, width, height }
    }

    #[test]
    fn nothing_reaches_beyond_the_picture() {
        let size = (100, 50);
        assert_eq!(rect(90, 40, 20, 20).within(size), rect(90, 40, 10, 10));
        assert!(rect(100, 0, 5, 5).within(size).is_empty());
        let all = u32::MAX;
        assert_eq!(rect(0, 0, all, all).within(size), Rect::whole(size));
        assert!(rect(all, all, all, all).within(size).is_empty());
    }

    #[test]
    fn many_rectangles_become_one() {
        let mut dirt = Dirt::default();
        dirt.add(rect(5, 5, 0, 9));
        assert!(dirt.is_empty());
        for x in 0..16 {
            dirt.add(rect(x * 10, 2, 5, 5));
            dirt.add(rect(x * 10, 2, 5, 5));
        }
        assert_eq!(dirt.rects.len(), 16);
        dirt.add(rect(3, 90, 1, 1));
        assert_eq!(dirt.take(), [rect(0, 2, 155, 89)]);
        assert!(dirt.is_empty());
    }
}
