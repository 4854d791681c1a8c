// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sets of VPs, as hypercalls name them.
//!
//! Source: TLFS, "Virtual Processor Sets".

use busway_wire::hypercall::{VpSetFormat, VpSetHeader};

/// VPs, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VpSet {
    /// Every VP there is.
    All,
    /// These, a word for each 64 of them. The words of VPs that no guest has are left out.
    Some(Vec<u64>),
}

/// The words that are kept: 4096 VPs, more than any machine has. The guest cannot name others.
const BANKS: usize = 64;

impl VpSet {
    /// The VPs 0 to 63 whose bits are set.
    pub fn from_mask(mask: u64) -> Self {
        Self::Some(vec![mask])
    }

    /// The set of `header` and the words that follow it; `None` if their number is wrong.
    pub(crate) fn sparse(header: VpSetHeader, words: &[u64]) -> Option<Self> {
        match header.format {
            VpSetFormat::ALL => Some(Self::All),
            VpSetFormat::SPARSE_4K if header.valid_banks.count_ones() as usize == words.len() => {
                let mut banks = vec![0; BANKS];
                let named = (0..BANKS).filter(|bank| header.valid_banks & 1 << bank != 0);
                for (bank, word) in named.zip(words) {
                    *banks.get_mut(bank)? = *word;
                }
                Some(Self::Some(banks))
            }
            _ => None,
        }
    }

    /// Whether `vp` is one of them.
    pub fn contains(&self, vp: u32) -> bool {
        match self {
            Self::All => true,
            Self::Some(banks) => {
                banks.get(vp as usize / 64).is_some_and(|bank| bank & 1 << (vp % 64) != 0)
            }
        }
    }

    /// Those of them that exist where there are `count`.
    pub fn iter(&self, count: u32) -> impl Iterator<Item = u32> {
        (0..count).filter(|&vp| self.contains(vp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(format: u64, valid_banks: u64) -> VpSetHeader {
        VpSetHeader { format: VpSetFormat(format), valid_banks }
    }

    #[test]
    fn banks_are_packed_in_ascending_order() {
        let set = VpSet::sparse(header(0, 1 << 0 | 1 << 2), &[1 << 5, 1 << 1]).unwrap();
        assert_eq!(set.iter(1000).collect::<Vec<_>>(), [5, 129]);
        assert_eq!(set.iter(100).collect::<Vec<_>>(), [5]);
        let last = VpSet::sparse(header(0, 1 << 63), &[1 << 63]).unwrap();
        assert!(last.contains(4095) && !last.contains(4096) && !last.contains(u32::MAX));
    }

    #[test]
    fn all_is_all() {
        assert_eq!(VpSet::sparse(header(1, 0), &[]), Some(VpSet::All));
        assert_eq!(VpSet::All.iter(3).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_mask_names_the_first_64() {
        let set = VpSet::from_mask(1 << 63 | 1);
        assert_eq!(set.iter(200).collect::<Vec<_>>(), [0, 63]);
    }

    #[test]
    fn a_wrong_number_of_words_or_format_is_none() {
        assert_eq!(VpSet::sparse(header(0, 3), &[0]), None);
        assert_eq!(VpSet::sparse(header(0, 0), &[0]), None);
        assert_eq!(VpSet::sparse(header(2, 1), &[0]), None);
        assert_eq!(VpSet::sparse(header(0, 0), &[]).unwrap().iter(64).count(), 0);
    }
}
