// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs inside a guest. Linked statically, so that it starts in any initramfs.
//!
//! ```text
//! agent write FILE  [seed= block= count= start= stride=] [direct skew=] [sync=each|dsync|end says=]
//! agent check FILE  [seed= block= count= start= stride=] [direct skew=]
//! agent read  FILE  [block= count=]
//! agent churn FILE  [seed= threads= count= region=]
//! agent load  FILE  [depth= count= block=]
//! agent reset FILE  [seed= block= count= start= stride=]
//! agent stick CPU   [until=]
//! agent clock       [threads= count=]
//! agent ptp FILE
//! agent echo PORT   [count=]
//! agent call PORT   [seed= bytes= turns= parallel=]
//! agent picture FILE
//! agent push ADDRESS:PORT [seed= length=]
//! agent pull ADDRESS:PORT [seed= length=]
//! agent bounce ADDRESS:PORT [seed= count= size=]
//! agent flood ADDRESS:PORT [count= size=]
//! agent watch MAC   [count=]
//! ```
//!
//! `write` and `check` go through [`Blocks`]; numbers may end in k or m. `direct` bypasses the page cache
//! with a buffer that begins `skew` bytes into a page. With `sync` each or dsync, a line `synced=NUMBER`, or
//! what it `says` instead, follows each block that is safe. `read` copies blocks from the disk's beginning to
//! standard output; it reads them with O_DIRECT, for which the `dd` of old busyboxes has no word. `churn` writes
//! blocks of many lengths with O_DIRECT, each thread in a region of its own, and reads each back at once. `load`
//! reads blocks with O_DIRECT all over the disk, `depth` at any time. `reset` resets the disk's controller while
//! it writes all blocks at once. `stick` has a processor take no interrupts from when it says `stuck` until there
//! is a file `until`. `clock` looks for time that runs backwards between threads. `ptp` reads a clock of the PTP
//! class between two readings of the system's.
//! `echo` listens on an AF_VSOCK port and sends back what each of `count` connections sends, until that has
//! no more to say; `call` connects to a port of the host's where such a one listens, `parallel` times at once
//! and `turns` times one after another, and compares what comes back.
//! `picture` says of a framebuffer what [`Fingerprint`] says of its pixels.
//! `push` sends noise by TCP, `pull` takes and checks it, `bounce` sends datagrams that must come back.
//! `flood` sends datagrams that nobody waits for.
//! `watch` says to whom frames were that came in while `count` came to MAC.

mod churn;
mod clock;
mod copy;
mod file;
mod frames;
mod load;
mod net;
mod ptp;
mod reset;
mod stick;
mod vsock;
mod words;

use std::process::ExitCode;

use busway_guest_agent::{Blocks, Fingerprint};
use words::Words;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("agent: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next().unwrap_or_default();
    let path = match task.as_str() {
        "clock" => String::new(),
        _ => arguments.next().ok_or("which file or address?")?,
    };
    let mut words = Words::new(arguments);
    match task.as_str() {
        "write" => {
            let blocks = blocks(&mut words)?;
            let (sync, says) = (words.text("sync", "end"), words.text("says", "synced"));
            let file = file::Options::from_words(&mut words)?;
            words.end()?;
            file::write(&path, &blocks, &file, &sync, &says)
        }
        "check" => {
            let blocks = blocks(&mut words)?;
            let file = file::Options::from_words(&mut words)?;
            words.end()?;
            file::check(&path, &blocks, &file)
        }
        "reset" => {
            let blocks = blocks(&mut words)?;
            words.end()?;
            reset::run(&path, &blocks)
        }
        "read" => copy::run(&path, words),
        "churn" => churn::run(&path, words),
        "load" => load::run(&path, words),
        "stick" => stick::run(&path, words),
        "clock" => clock::run(words),
        "ptp" => ptp::run(&path, words),
        "echo" => vsock::echo(&path, words),
        "call" => vsock::call(&path, words),
        "picture" => picture(&path),
        "push" => net::push(&path, words),
        "pull" => net::pull(&path, words),
        "bounce" => net::bounce(&path, words),
        "flood" => net::flood(&path, words),
        "watch" => frames::watch(&path, words),
        other => Err(format!("no task is called {other:?}")),
    }
}

fn picture(path: &str) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let pixels = bytes.chunks_exact(4).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
    let Fingerprint { hash, lit } = Fingerprint::of(pixels);
    println!("{hash:016x} {lit}");
    Ok(())
}

fn blocks(words: &mut Words) -> Result<Blocks, String> {
    let block = words.number("block", 4096)?;
    Ok(Blocks {
        seed: words.number("seed", 1)?,
        block: usize::try_from(block).map_err(|_| "block is too large")?,
        count: words.number("count", 1)?,
        start: words.number("start", 0)?,
        stride: words.number("stride", block)?,
    })
}
