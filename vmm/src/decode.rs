// SPDX-License-Identifier: MIT OR Apache-2.0

//! `busway decode`: what a capture says.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use busway_capture::decode::{Filter, FilterError};
use busway_capture::{Decoder, ReadError, Reader, Timeline};
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  busway run --kernel vmlinuz --initrd initrd.img --capture boot.pcapng
  busway decode boot.pcapng --filter channel=storage
  busway decode boot.pcapng --filter channel=network,slower=1000 --json
  busway decode boot.pcapng --timeline boot.json     (for ui.perfetto.dev)

Exit status:
  0  the capture is whole, and all of it was understood
  1  it has records that were lost or not understood
  2  it cannot be read, or it is torn (what is whole of it is printed)";

/// How long a file that is followed has to grow.
const PAUSE: Duration = Duration::from_millis(100);

/// A capture, and what is wanted of it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = EXAMPLES)]
pub struct DecodeArgs {
    /// The capture
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Print JSON, an object a line
    #[arg(long)]
    pub json: bool,

    /// Go on as the file grows, to the end of the capture
    #[arg(long)]
    pub follow: bool,

    /// Only what meets all of: channel=NAME|NUMBER|GUID, kind=KIND, side=guest|host,
    /// slower=MICROSECONDS (answers), unknown
    #[arg(long, value_name = "CONDITIONS")]
    pub filter: Option<String>,

    /// Write a timeline for Perfetto or chrome://tracing instead: a row for each channel, a slice
    /// for each transaction
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "follow"])]
    pub timeline: Option<PathBuf>,
}

/// A capture cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It cannot be opened.
    #[error("{path}: it cannot be opened", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It cannot be read, or not to its end.
    #[error("{path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: ReadError,
    },
    /// The filter is none.
    #[error("--filter")]
    Filter(#[from] FilterError),
    /// The timeline cannot be written.
    #[error("--timeline {path}: it cannot be written", path = path.display())]
    Timeline {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    records: u64,
    unknown: u64,
    lost: u64,
}

/// Shows the capture; returns the program's exit status.
pub fn decode(arguments: &DecodeArgs) -> Result<u8, DecodeError> {
    let filter = arguments.filter.as_deref().map(str::parse).transpose()?;
    let filter: Filter = filter.unwrap_or_default();
    let path = &arguments.file;
    let open = |source| DecodeError::Open { path: path.clone(), source };
    let file = File::open(path).map_err(open)?;
    let mut timeline = arguments.timeline.as_deref().map(start).transpose()?;
    let mut reader = Reader::new(BufReader::new(file));
    let (mut decoder, mut tally) = (Decoder::default(), Tally::default());
    let mut out = BufWriter::new(io::stdout().lock());
    let result = loop {
        let record = match reader.next() {
            Ok(Some(record)) => record,
            Ok(None) => break Ok(()),
            Err(ReadError::Torn { .. } | ReadError::NoEnd { .. }) if arguments.follow => {
                if out.flush().is_err() {
                    return Ok(0);
                }
                thread::sleep(PAUSE);
                continue;
            }
            Err(error) => break Err(error),
        };
        let decoded = decoder.decode(&record);
        tally.records += 1;
        tally.unknown += u64::from(!decoded.known);
        tally.lost += decoded.lost;
        if !filter.wants(&decoded) {
            continue;
        }
        let written = match &mut timeline {
            Some(timeline) => {
                timeline.add(&decoded);
                Ok(())
            }
            None if arguments.json => writeln!(out, "{}", decoded.to_json()),
            None => writeln!(out, "{decoded}"),
        };
        // Whoever reads has seen enough.
        if written.is_err() {
            return Ok(0);
        }
    };
    let _ = out.flush();
    if let (Some(timeline), Some(path)) = (timeline, &arguments.timeline) {
        let failed = |source| DecodeError::Timeline { path: path.clone(), source };
        timeline.finish().map_err(failed)?;
    }
    let Tally { records, unknown, lost } = tally;
    if records != 0 {
        eprintln!("busway: {records} records, {unknown} unknown, {lost} lost");
    }
    result.map_err(|source| DecodeError::Read { path: path.clone(), source })?;
    Ok(u8::from(unknown + lost != 0))
}

fn start(path: &Path) -> Result<Timeline<BufWriter<File>>, DecodeError> {
    let failed = |source| DecodeError::Timeline { path: path.to_owned(), source };
    File::create(path).and_then(|file| Timeline::start(BufWriter::new(file))).map_err(failed)
}
