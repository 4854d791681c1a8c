// SPDX-License-Identifier: MIT OR Apache-2.0

//! AF_VSOCK, at both ends of connections.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;

use busway_guest_agent::{check_noise, send_noise};
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener, VsockStream};

use crate::words::Words;

fn number(port: &str) -> Result<u32, String> {
    port.parse().map_err(|_| format!("{port}: not a port"))
}

/// Sends back what comes.
pub(crate) fn echo(port: &str, mut words: Words) -> Result<(), String> {
    let count = words.number("count", u64::MAX)?;
    words.end()?;
    let failed = |error| format!("port {port}: {error}");
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, number(port)?);
    let listener = listener.map_err(failed)?;
    println!("listening={port}");
    let mut threads = Vec::new();
    for _ in 0..count {
        let (stream, _) = listener.accept().map_err(failed)?;
        threads.push(thread::spawn(move || send_back(stream)));
    }
    let mut bytes = 0;
    for thread in threads {
        bytes += thread.join().map_err(|_| "a thread panicked")?.map_err(failed)?;
    }
    println!("echoed={bytes}");
    Ok(())
}

fn send_back(mut stream: VsockStream) -> io::Result<u64> {
    let (mut chunk, mut bytes) = (vec![0; 64 << 10], 0);
    loop {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            stream.shutdown(Shutdown::Write)?;
            return Ok(bytes);
        }
        bytes += length as u64;
        stream.write_all(&chunk[..length])?;
    }
}

/// Says something and listens to its echo.
pub(crate) fn call(port: &str, mut words: Words) -> Result<(), String> {
    let (seed, bytes) = (words.number("seed", 1)?, words.number("bytes", 4096)?);
    let (turns, parallel) = (words.number("turns", 1)?, words.number("parallel", 1)?);
    words.end()?;
    let port = number(port)?;
    // One connects at a time, as Linux gives each 2 s for that; all are open at once then.
    let (turn_to_connect, all_connected) = (Mutex::new(()), Barrier::new(parallel as usize));
    let one = |seed| {
        let turn = turn_to_connect.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port);
        drop(turn);
        all_connected.wait();
        converse(stream, seed, bytes).map_err(|error| format!("port {port}: {error}"))
    };
    let one = &one;
    thread::scope(|scope| {
        let callers: Vec<_> = (0..parallel)
            .map(|caller| {
                scope.spawn(move || {
                    // All turns, as the others wait at each for all.
                    let turns = (0..turns).map(|turn| one(seed + caller * turns + turn));
                    turns.collect::<Vec<_>>().into_iter().collect::<Result<(), String>>()
                })
            })
            .collect();
        let mut ended = callers.into_iter().map(|caller| caller.join());
        ended.try_for_each(|result| result.map_err(|_| "a thread panicked".to_owned())?)
    })?;
    println!("called={}", turns * parallel);
    Ok(())
}

fn converse(stream: io::Result<VsockStream>, seed: u64, bytes: u64) -> Result<(), String> {
    let mut stream = stream.map_err(|error| error.to_string())?;
    let mut writer = stream.try_clone().map_err(|error| error.to_string())?;
    thread::scope(|scope| {
        let saying = scope.spawn(move || {
            send_noise(&mut writer, seed, bytes)?;
            writer.shutdown(Shutdown::Write)
        });
        let heard =
            check_noise(&mut stream, seed, bytes).and_then(|()| match stream.read(&mut [0]) {
                Ok(0) => Ok(()),
                Ok(_) => Err(format!("more than {bytes} bytes came back")),
                Err(error) => Err(error.to_string()),
            });
        if heard.is_err() {
            // Nobody listens any more, so that nobody need wait until all is said.
            let _ = stream.shutdown(Shutdown::Both);
            return heard;
        }
        let said = saying.join().map_err(|_| "a thread panicked")?;
        said.map_err(|error| error.to_string())
    })
}
