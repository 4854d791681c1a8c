// SPDX-License-Identifier: MIT OR Apache-2.0

//! Time must not run backwards, whichever CPU asks: each reading is compared with the latest that any
//! thread had published before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::words::Words;

pub(crate) fn run(mut words: Words) -> Result<(), String> {
    let threads = words.number("threads", 4)?;
    let count = words.number("count", 100_000)?;
    words.end()?;
    let (origin, latest) = (Instant::now(), AtomicU64::new(0));
    thread::scope(|scope| {
        let running: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| readings(origin, &latest, count))).collect();
        let mut ended = running.into_iter().map(|thread| thread.join());
        ended.try_for_each(|result| result.map_err(|_| "a thread panicked".to_owned())?)
    })
}

fn readings(origin: Instant, latest: &AtomicU64, count: u64) -> Result<(), String> {
    for reading in 0..count {
        let before = latest.load(Ordering::SeqCst);
        // Saturating: a clock from before the start reads as 0, and is caught as such.
        let now = Instant::now().saturating_duration_since(origin).as_nanos() as u64;
        if now < before {
            return Err(format!("reading {reading} is {} ns before an earlier one", before - now));
        }
        latest.fetch_max(now, Ordering::SeqCst);
    }
    Ok(())
}
