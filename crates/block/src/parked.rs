// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests that wait until their disk's [limit](crate::RateLimit) lets them go. Each has its slot of the
//! queue, so that there are never more of them than it has.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::{Disk, Request};

/// One that waits.
pub(crate) struct Parked {
    pub(crate) slot: usize,
    pub(crate) disk: usize,
    pub(crate) request: Request,
}

/// All that wait, in the order in which they came, and the timer by which they are looked at again.
pub(crate) struct Parking {
    parked: VecDeque<Parked>,
    timer: OwnedFd,
    /// When it expires.
    due: Option<Instant>,
    /// Disks whose first request has to wait longer; kept for its memory.
    blocked: Vec<usize>,
}

impl Parking {
    /// Nothing, with room for `depth`.
    pub(crate) fn new(depth: usize) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let (parked, blocked) = (VecDeque::with_capacity(depth), Vec::with_capacity(depth));
        Ok(Self { parked, timer, due: None, blocked })
    }

    /// Readable when something may go.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Has a request wait if the limit of its disk says so, or if others of that disk wait already; else gives it
    /// back, and it goes.
    pub(crate) fn enter(&mut self, parked: Parked, disk: Option<&Disk>) -> Option<Parked> {
        let Some(rate) = disk.map(Disk::rate).filter(|rate| rate.is_limited()) else {
            return Some(parked);
        };
        if !self.parked.iter().any(|other| other.disk == parked.disk) {
            match rate.take(parked.request.data.len() as u64) {
                Ok(()) => return Some(parked),
                Err(wait) if self.due.is_none_or(|due| Instant::now() + wait < due) => {
                    self.wake_in(Some(wait));
                }
                Err(_) => {}
            }
        }
        rate.delay();
        self.parked.push_back(parked);
        None
    }

    /// The next that goes. When none does, the timer is set for those that are left.
    pub(crate) fn leave(&mut self, disks: &[Option<Disk>]) -> Option<Parked> {
        if self.due.is_none_or(|due| Instant::now() < due) {
            return None;
        }
        self.blocked.clear();
        let mut soonest: Option<Duration> = None;
        for (index, parked) in self.parked.iter().enumerate() {
            if self.blocked.contains(&parked.disk) {
                continue;
            }
            let rate = disks.get(parked.disk).and_then(Option::as_ref).map(Disk::rate);
            match rate.map_or(Ok(()), |rate| rate.take(parked.request.data.len() as u64)) {
                Ok(()) => return self.parked.remove(index),
                Err(wait) => {
                    self.blocked.push(parked.disk);
                    soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait)));
                }
            }
        }
        self.wake_in(soonest);
        None
    }

    /// All of them, when nothing is to be done any more.
    pub(crate) fn clear(&mut self) -> VecDeque<Parked> {
        self.wake_in(None);
        mem::take(&mut self.parked)
    }

    fn wake_in(&mut self, wait: Option<Duration>) {
        self.due = wait.map(|wait| Instant::now() + wait);
        // Zero stops it.
        let it_value = Timespec::try_from(wait.unwrap_or_default()).unwrap_or_default();
        let it_interval = Timespec::default();
        let time = Itimerspec { it_interval, it_value };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time) {
            log::error!("a disk's limit has no timer: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use busway_memory::{GuestAddress, GuestMemory, GuestSlices, PAGE_SIZE, Region};
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::{Completion, DiskOptions, IoError, Operation, Queue, RateLimit};

    fn disk(requests: u64, bytes: u64) -> Disk {
        let (requests, bytes) = (NonZeroU64::new(requests), NonZeroU64::new(bytes));
        let rate = RateLimit { requests, bytes };
        Disk::ram(1 << 20, &DiskOptions { rate, ..DiskOptions::default() }).unwrap()
    }

    fn read(token: u64) -> Request {
        let region = Region { start: GuestAddress(0), len: PAGE_SIZE };
        let mut data = GuestSlices::new(GuestMemory::allocate(&[region]).unwrap());
        data.push(GuestAddress(0), 512).unwrap();
        Request { token, operation: Operation::Read, offset: 0, data }
    }

    fn ended(queue: &mut Queue) -> Option<(u64, Result<(), IoError>)> {
        queue.reap().unwrap().map(|Completion { token, result, .. }| (token, result))
    }

    /// Sleeps until the queue has something.
    fn wait_for(queue: &Queue) {
        let fds: Vec<_> = queue.fds().collect();
        let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        poll(&mut fds, None).unwrap();
    }

    #[test]
    fn what_is_beyond_a_limit_waits_and_other_disks_go_on() {
        // The first block costs more than eight minutes.
        let slow = disk(0, 1);
        let mut queue = Queue::new(4, vec![slow.clone(), disk(0, 0)]);
        for (token, disk) in [(1, 0), (2, 0), (3, 0), (4, 1)] {
            queue.submit(disk, read(token)).unwrap();
        }
        assert_eq!(ended(&mut queue), Some((1, Ok(()))));
        assert_eq!(ended(&mut queue), Some((4, Ok(()))));
        assert_eq!(ended(&mut queue), None);
        assert_eq!((queue.in_flight(), slow.delayed()), (2, 2));
        queue.cancel_all().unwrap();
        assert_eq!(ended(&mut queue), Some((2, Err(IoError::Cancelled))));
        assert_eq!(ended(&mut queue), Some((3, Err(IoError::Cancelled))));
        assert_eq!((ended(&mut queue), queue.in_flight()), (None, 0));
    }

    #[test]
    fn what_has_waited_goes_in_the_order_in_which_it_came() {
        let mut queue = Queue::new(64, vec![disk(200, 0), disk(300, 0)]);
        for token in 0..64 {
            queue.submit(token as usize % 2, read(token)).unwrap();
        }
        let (mut even, mut odd) = (Vec::new(), Vec::new());
        while queue.in_flight() != 0 {
            match ended(&mut queue) {
                Some((token, result)) => {
                    result.unwrap();
                    if token % 2 == 0 { even.push(token) } else { odd.push(token) }
                }
                None => wait_for(&queue),
            }
        }
        assert!(even.is_sorted() && odd.is_sorted(), "{even:?} {odd:?}");
        assert_eq!((even.len(), odd.len()), (32, 32));
    }

    #[test]
    fn what_waits_goes_when_the_limit_does() {
        let slow = disk(0, 1);
        let mut queue = Queue::with_places(4, 1);
        queue.plug(0, slow.clone()).unwrap();
        for token in 1..=3 {
            queue.submit(0, read(token)).unwrap();
        }
        assert_eq!(ended(&mut queue), Some((1, Ok(()))));
        assert_eq!((ended(&mut queue), queue.in_flight()), (None, 2));
        slow.set_rate_limit(RateLimit::default());
        for token in 2..=3 {
            let end = loop {
                match ended(&mut queue) {
                    Some(end) => break end,
                    None => wait_for(&queue),
                }
            };
            assert_eq!(end, (token, Ok(())));
        }
        assert_eq!((queue.in_flight(), slow.delayed()), (0, 2));
    }

    #[test]
    fn a_disk_that_comes_later_has_its_limit_too() {
        let mut queue = Queue::with_places(4, 2);
        queue.plug(1, disk(0, 1)).unwrap();
        queue.submit(1, read(1)).unwrap();
        queue.submit(1, read(2)).unwrap();
        assert_eq!(ended(&mut queue), Some((1, Ok(()))));
        assert_eq!((ended(&mut queue), queue.in_flight()), (None, 1));
    }
}
