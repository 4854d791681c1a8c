// SPDX-License-Identifier: MIT OR Apache-2.0

//! Records into a file: from any thread, in bounded memory, with a thread that writes.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use zerocopy::IntoBytes;

use crate::layout::{HEADER_LEN, HOST, Header, Kind, Lost};
use crate::pcapng;

/// Bytes that may wait for the writer. It has as many in hand.
const ROOM: usize = 16 << 20;

/// As soon as so many wait, they are written.
const BATCH: usize = 256 << 10;

/// And whatever waits, after so long: somebody may be following the file.
const PAUSE: Duration = Duration::from_millis(50);

/// Where records go.
pub type Write = Box<dyn io::Write + Send>;

/// Takes records, and has them written. Dropping it ends the capture as [`finish`](Self::finish)
/// does, and says nothing.
pub struct Recorder {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What became of a capture.
#[derive(Debug)]
pub struct Summary {
    /// Records in the file.
    pub records: u64,
    /// Records that found no room on the way to it.
    pub lost: u64,
    /// The file could not be written.
    pub error: Option<io::Error>,
}

struct Shared {
    state: Mutex<State>,
    bell: Condvar,
    /// Bytes of a body at most.
    snap: usize,
    room: usize,
    started: Instant,
    /// When that was, in nanoseconds since 1970.
    epoch: u64,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    records: u64,
    /// Lost since the last record.
    lost: u64,
    /// Lost before that.
    said: u64,
    closing: bool,
    error: Option<io::Error>,
}

impl Recorder {
    /// Starts a capture of `program` into `file`, with at most `snap` bytes of each body.
    pub fn start(file: Write, program: &str, snap: u32) -> io::Result<Self> {
        Self::with_room(file, program, snap, ROOM)
    }

    fn with_room(file: Write, program: &str, snap: u32, room: usize) -> io::Result<Self> {
        let longest = snap.saturating_add(HEADER_LEN as u32);
        let waiting = pcapng::start(program, longest);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let shared = Arc::new(Shared {
            state: Mutex::new(State { waiting, ..State::default() }),
            bell: Condvar::new(),
            snap: snap as usize,
            room,
            started: Instant::now(),
            epoch: u64::try_from(now.as_nanos()).unwrap_or_default(),
        });
        let for_writer = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || for_writer.write(file))?;
        Ok(Self { shared, writer: Mutex::new(Some(writer)) })
    }

    /// Bytes of a body that are kept.
    pub fn snap(&self) -> usize {
        self.shared.snap
    }

    /// Records `header` with the body that `parts` are together, now. [`Header::len`] is filled in.
    pub fn record(&self, header: Header, parts: &[&[u8]]) {
        let len = parts.iter().map(|part| part.len()).sum();
        self.record_start(header, len, parts);
    }

    /// As [`record`](Self::record), of a body of `len` bytes of which `parts` are the first.
    pub fn record_start(&self, mut header: Header, len: usize, parts: &[&[u8]]) {
        header.len = u32::try_from(len).unwrap_or(u32::MAX);
        let mut room = self.shared.snap;
        let mut cut: [&[u8]; 5] = [&[]; 5];
        let [first, rest @ ..] = &mut cut;
        *first = header.as_bytes();
        for (to, part) in rest.iter_mut().zip(parts) {
            *to = part.get(..room).unwrap_or(part);
            room -= to.len();
        }
        self.shared.put(HEADER_LEN + len, &cut);
    }

    /// Ends the capture: all that was recorded is in the file, or the summary says why not.
    pub fn finish(&self) -> Summary {
        self.shared.lock().closing = true;
        self.shared.bell.notify_all();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It does not panic; if it did, its error is that it wrote no end.
            let _ = writer.join();
        }
        let mut state = self.shared.lock();
        let (records, lost) = (state.records, state.said + state.lost);
        Summary { records, lost, error: state.error.take() }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        let since = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.epoch.saturating_add(since)
    }

    fn put(&self, original: usize, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut state = self.lock();
        // Under the lock, so that times never go back in the file.
        let now = self.now();
        let need = 2 * pcapng::PACKET_OVERHEAD + HEADER_LEN + size_of::<Lost>() + 8 + len;
        if state.closing || state.waiting.len() + need > self.room {
            state.lost += 1;
            return;
        }
        state.say_lost(now);
        let idle = state.waiting.is_empty();
        pcapng::packet(&mut state.waiting, now, original, parts);
        state.records += 1;
        if idle || state.waiting.len() >= BATCH {
            self.bell.notify_one();
        }
    }

    /// The writer's thread.
    fn write(&self, mut file: Write) {
        let mut batch = Vec::new();
        loop {
            let closing = self.take(&mut batch);
            if let Err(error) = file.write_all(&batch) {
                let mut state = self.lock();
                // What comes now is lost, and counted.
                state.closing = true;
                state.error = Some(error);
                return;
            }
            batch.clear();
            if closing {
                let mut state = self.lock();
                if let Err(error) = file.flush() {
                    state.error = Some(error);
                }
                return;
            }
        }
    }

    /// Waits for something to write; true if nothing follows it.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let state = self.lock();
        let quiet = |state: &mut State| state.waiting.is_empty() && !state.closing;
        let state = self.bell.wait_while(state, quiet).unwrap_or_else(PoisonError::into_inner);
        let few = |state: &mut State| state.waiting.len() < BATCH && !state.closing;
        let waited = self.bell.wait_timeout_while(state, PAUSE, few);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.closing {
            let now = self.now();
            state.say_lost(now);
            let (records, lost) = (state.records, state.said);
            pcapng::end(&mut state.waiting, now, records, lost);
        }
        std::mem::swap(batch, &mut state.waiting);
        state.closing
    }
}

impl State {
    /// Writes down how many were lost since the last record.
    fn say_lost(&mut self, now: u64) {
        let count = std::mem::take(&mut self.lost);
        if count == 0 {
            return;
        }
        self.said += count;
        let body = Lost { count };
        let header = Header { len: size_of::<Lost>() as u32, ..Header::new(Kind::Lost, HOST) };
        let parts = [header.as_bytes(), body.as_bytes()];
        pcapng::packet(&mut self.waiting, now, HEADER_LEN + size_of::<Lost>(), &parts);
        self.records += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::reader::Reader;

    /// A file that a test can look into, and hold up.
    #[derive(Clone, Default)]
    struct Shelf(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shelf {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes nothing until the sender is gone.
    struct Stuck(mpsc::Receiver<()>, Shelf);

    impl io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl io::Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn message() -> Header {
        Header::new(Kind::Message, crate::layout::GUEST)
    }

    #[test]
    fn what_is_recorded_is_read() {
        let shelf = Shelf::default();
        let recorder = Recorder::start(Box::new(shelf.clone()), "test", 6).unwrap();
        recorder.record(Header { vp: 3, channel: 7, ..message() }, &[b"abc"]);
        recorder.record(message(), &[b"abcd", b"efgh", b"i"]);
        let summary = recorder.finish();
        assert_eq!((summary.records, summary.lost), (2, 0));
        assert!(summary.error.is_none());
        let bytes = shelf.0.lock().unwrap().clone();
        let mut reader = Reader::new(&bytes[..]);
        let first = reader.next().unwrap().unwrap();
        assert_eq!((first.header.vp, first.header.channel, first.header.len), (3, 7, 3));
        assert_eq!(first.body, b"abc");
        assert!(!first.is_cut());
        let second = reader.next().unwrap().unwrap();
        assert_eq!((&*second.body, second.header.len), (b"abcdef".as_slice(), 9));
        assert!(second.is_cut() && second.time >= first.time);
        assert!(reader.next().unwrap().is_none());
        let statistics = reader.statistics().unwrap();
        assert_eq!((statistics.records, statistics.lost), (2, 0));
    }

    /// A disk that is slower than the machine.
    #[test]
    fn what_finds_no_room_is_counted_where_it_is_missing() {
        let (hold, held) = mpsc::channel();
        let shelf = Shelf::default();
        let file = Box::new(Stuck(held, shelf.clone()));
        let recorder = Recorder::with_room(file, "test", 4096, 8192).unwrap();
        let body = [0xaa; 1000];
        // The writer may have taken what was there, once.
        (0..100).for_each(|_| recorder.record(message(), &[&body]));
        drop(hold);
        let summary = recorder.finish();
        assert!(summary.lost >= 80, "{summary:?}");
        let bytes = shelf.0.lock().unwrap().clone();
        let mut reader = Reader::new(&bytes[..]);
        let (mut kept, mut lost) = (0, 0);
        while let Some(record) = reader.next().unwrap() {
            match Kind::from_number(record.header.kind) {
                Some(Kind::Lost) => lost += u64::from_le_bytes(record.body[..].try_into().unwrap()),
                _ => kept += 1,
            }
        }
        assert_eq!((kept + lost, lost), (100, summary.lost));
        assert_eq!(reader.statistics().unwrap().lost, lost);
    }

    #[test]
    fn a_disk_without_room_is_an_error_and_no_end_to_the_machine() {
        let recorder = Recorder::start(Box::new(Full), "test", 64).unwrap();
        recorder.record(message(), &[b"x"]);
        let summary = recorder.finish();
        assert_eq!(summary.error.unwrap().kind(), io::ErrorKind::StorageFull);
        recorder.record(message(), &[b"x"]);
    }
}
