// SPDX-License-Identifier: MIT OR Apache-2.0

//! Load on a disk that checks itself: many threads, many lengths, each block read back at once.

use std::os::unix::fs::FileExt;
use std::thread;

use busway_guest_agent::{noise, scramble};

use crate::file::{Buffer, Options, same};
use crate::words::Words;

const SECTOR: usize = 512;

/// Sectors of the longest block.
const LONGEST: u64 = 300;

pub(crate) fn run(path: &str, mut words: Words) -> Result<(), String> {
    let seed = words.number("seed", 1)?;
    let threads = words.number("threads", 4)?;
    let count = words.number("count", 100)?;
    let region = words.number("region", 4 << 20)?;
    words.end()?;
    if region < LONGEST * SECTOR as u64 {
        return Err("region is shorter than a block".to_owned());
    }
    thread::scope(|scope| {
        let one =
            |thread| move || rounds(path, seed ^ (thread << 32), count, thread * region, region);
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(one(thread))).collect();
        let mut ended = running.into_iter().map(|thread| thread.join());
        ended.try_for_each(|result| result.map_err(|_| "a thread panicked".to_owned())?)
    })
}

fn rounds(path: &str, seed: u64, count: u64, start: u64, region: u64) -> Result<(), String> {
    for round in 0..count {
        let choice = scramble(seed.wrapping_add(round));
        let sectors = 1 + choice % LONGEST;
        let room = region / SECTOR as u64 - sectors;
        let offset = start + (choice >> 16) % (room + 1) * SECTOR as u64;
        let skew = (choice >> 40) as usize % 8 * SECTOR;
        let wanted = noise(choice, sectors as usize * SECTOR);
        round_trip(path, offset, skew, &wanted).map_err(|reason| {
            format!("{path}: round {round}, {sectors} sectors at {offset}: {reason}")
        })?;
    }
    Ok(())
}

fn round_trip(path: &str, offset: u64, skew: usize, wanted: &[u8]) -> Result<(), String> {
    let file = Options { direct: true, skew }.open(path, true, false)?;
    let mut buffer = Buffer::new(wanted.len(), skew);
    buffer.bytes().copy_from_slice(wanted);
    file.write_all_at(buffer.bytes(), offset).map_err(|error| format!("write: {error}"))?;
    buffer.bytes().fill(0);
    file.read_exact_at(buffer.bytes(), offset).map_err(|error| format!("read: {error}"))?;
    same(buffer.bytes(), wanted)
}
