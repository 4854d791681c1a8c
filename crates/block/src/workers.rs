// SPDX-License-Identifier: MIT OR Apache-2.0

//! Threads that do the requests on an image which io_uring cannot read by itself.
//!
//! All queues give their requests to the image's threads; each has a letter box for what has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::{io, mem};

use busway_memory::GuestSlices;
use rustix::event::EventfdFlags;

use crate::contents::Contents;
use crate::{IoError, Operation};

/// Threads of an image: requests that wait for the host's disk do not hold up all others.
const THREADS: usize = 4;

/// A request for an image's threads.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) slot: usize,
    pub(crate) operation: Operation,
    pub(crate) offset: u64,
    pub(crate) data: GuestSlices,
    pub(crate) mailbox: Arc<Mailbox>,
}

/// A request that has ended: its slot, its result and its memory.
pub(crate) type Ended = (usize, Result<(), IoError>, GuestSlices);

/// Where a queue finds what has ended.
#[derive(Debug)]
pub(crate) struct Mailbox {
    ended: Mutex<Vec<Ended>>,
    arrived: Condvar,
    bell: OwnedFd,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = rustix::event::eventfd(0, flags)?;
        Ok(Self { ended: Mutex::default(), arrived: Condvar::new(), bell })
    }

    fn put(&self, ended: Ended) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
        self.arrived.notify_all();
        // Fails only when the counter is full, and then it has rung.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// What has ended since it was last asked for.
    pub(crate) fn take(&self) -> Vec<Ended> {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// As [`take`](Self::take), and waits until there is something.
    pub(crate) fn wait(&self) -> Vec<Ended> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = self.arrived.wait_while(ended, |ended| ended.is_empty());
        mem::take(&mut *ended.unwrap_or_else(PoisonError::into_inner))
    }

    /// Readable while something is there.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// An image and its threads. Dropped, it waits for what they have begun.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) contents: Arc<Contents>,
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(contents: Contents) -> io::Result<Self> {
        let contents = Arc::new(contents);
        let (jobs, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = (0..THREADS).map(|_| {
            let (contents, receiver) = (Arc::clone(&contents), Arc::clone(&receiver));
            thread::Builder::new()
                .name("image".to_owned())
                .spawn(move || work(&contents, &receiver))
        });
        let threads = threads.collect::<io::Result<_>>()?;
        Ok(Self { contents, jobs: Some(jobs), threads })
    }

    /// Gives a job to the threads; it is returned if there are none any more.
    pub(crate) fn give(&self, job: Job) -> Result<(), Job> {
        match &self.jobs {
            Some(jobs) => jobs.send(job).map_err(|error| error.0),
            None => Err(job),
        }
    }
}

fn work(contents: &Contents, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { slot, operation, offset, data, mailbox }) = job else {
            return;
        };
        let result = contents.perform(operation, offset, &data);
        mailbox.put((slot, result, data));
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of an image has ended before its time");
            }
        }
    }
}
