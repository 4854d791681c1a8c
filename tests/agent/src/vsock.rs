// SPDX-License-Identifier: MIT OR Apache-2.0

//! AF_VSOCK, at both ends of connections.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::thread;

use busway_guest_agent::noise;
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener, VsockStream};

use crate::file::same;
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
    let (port, bytes) = (number(port)?, usize::try_from(bytes).map_err(|_| "bytes is too large")?);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..parallel)
            .map(|caller| {
                scope.spawn(move || {
                    (0..turns).try_for_each(|turn| one(port, seed + caller * turns + turn, bytes))
                })
            })
            .collect();
        let mut ended = callers.into_iter().map(|caller| caller.join());
        ended.try_for_each(|result| result.map_err(|_| "a thread panicked".to_owned())?)
    })?;
    println!("called={}", turns * parallel);
    Ok(())
}

fn one(port: u32, seed: u64, bytes: usize) -> Result<(), String> {
    let failed = |error| format!("port {port}: {error}");
    let mut stream = VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port).map_err(failed)?;
    let said = noise(seed, bytes);
    let heard = thread::scope(|scope| {
        let (mut writer, said) = (stream.try_clone()?, &said);
        let saying = scope.spawn(move || {
            writer.write_all(said)?;
            writer.shutdown(Shutdown::Write)
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard)?;
        saying.join().map_err(|_| io::Error::other("a thread panicked"))??;
        Ok(heard)
    });
    let heard = heard.map_err(failed)?;
    if heard.len() != said.len() {
        return Err(format!("port {port}: {} of {} bytes came back", heard.len(), said.len()));
    }
    same(&heard, &said)
}
