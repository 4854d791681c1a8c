// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;

fn vectors(lengths: &[usize]) -> Vec<iovec> {
    lengths.iter().map(|&len| iovec { iov_base: std::ptr::null_mut(), iov_len: len }).collect()
}

fn done(flow: ControlFlow<Result<(), IoError>>) -> Result<(), IoError> {
    match flow {
        ControlFlow::Break(result) => result,
        ControlFlow::Continue(()) => panic!("not done"),
    }
}

#[test]
fn a_short_transfer_goes_on_where_it_stopped() {
    let vectors = vectors(&[100, 200, 300]);
    let mut read = Progress::new(Operation::Read, 4096, 600, false);
    let cursor = |vector, skip| Cursor { vector, skip };
    assert_eq!(read.call(), Some(Call::Read { cursor: cursor(0, 0), at: 4096 }));
    assert!(read.absorb(150, &vectors).is_continue());
    assert_eq!(read.call(), Some(Call::Read { cursor: cursor(1, 50), at: 4246 }));
    assert!(read.absorb(150, &vectors).is_continue());
    assert_eq!(read.call(), Some(Call::Read { cursor: cursor(2, 0), at: 4396 }));
    assert_eq!(done(read.absorb(300, &vectors)), Ok(()));
    assert_eq!(read.call(), None);
}

#[test]
fn an_interrupted_call_is_made_again_but_not_for_ever() {
    let vectors = vectors(&[512]);
    let mut write = Progress::new(Operation::Write { durable: true }, 0, 512, false);
    let first = write.call();
    assert!(write.absorb(-libc::EINTR, &vectors).is_continue());
    assert_eq!(write.call(), first);
    assert!(write.absorb(-libc::EAGAIN, &vectors).is_continue());
    let error = (0..1000).find_map(|_| write.absorb(-libc::EAGAIN, &vectors).break_value());
    assert_eq!(error, Some(Err(IoError::Failed { errno: libc::EAGAIN })));
}

#[test]
fn the_end_of_the_image_is_an_error_and_no_loop() {
    let vectors = vectors(&[512]);
    let mut read = Progress::new(Operation::Read, 1024, 512, false);
    assert!(read.absorb(100, &vectors).is_continue());
    assert_eq!(done(read.absorb(0, &vectors)), Err(IoError::Truncated { at: 1124 }));
    let mut write = Progress::new(Operation::Write { durable: false }, 0, 512, false);
    assert_eq!(done(write.absorb(0, &vectors)), Err(IoError::Failed { errno: libc::EIO }));
}

#[test]
fn zeroes_are_written_as_well_as_the_file_system_can() {
    let mut zeroes = Progress::new(Operation::WriteZeroes { len: 200_000 }, 512, 0, false);
    assert_eq!(zeroes.call(), Some(Call::ZeroRange { at: 512, len: 200_000 }));
    assert!(zeroes.absorb(-libc::EOPNOTSUPP, &[]).is_continue());
    assert_eq!(zeroes.call(), Some(Call::PunchHole { at: 512, len: 200_000 }));
    assert!(zeroes.absorb(-libc::EOPNOTSUPP, &[]).is_continue());
    assert_eq!(zeroes.call(), Some(Call::Fill { skip: 0, len: FILL_LEN, at: 512 }));
    assert!(zeroes.absorb(65536, &[]).is_continue());
    assert!(zeroes.absorb(65536, &[]).is_continue());
    assert!(zeroes.absorb(65536, &[]).is_continue());
    assert_eq!(zeroes.call(), Some(Call::Fill { skip: 0, len: 3392, at: 512 + 3 * 65536 }));
    assert_eq!(done(zeroes.absorb(3392, &[])), Ok(()));
}

#[test]
fn a_range_that_was_zeroed_is_done_at_once() {
    let mut zeroes = Progress::new(Operation::WriteZeroes { len: 4096 }, 0, 0, false);
    assert_eq!(done(zeroes.absorb(0, &[])), Ok(()));
    let mut discard = Progress::new(Operation::Discard { len: 4096 }, 0, 0, false);
    assert_eq!(discard.call(), Some(Call::PunchHole { at: 0, len: 4096 }));
    assert_eq!(done(discard.absorb(-libc::EIO, &[])), Err(IoError::Failed { errno: libc::EIO }));
}

#[test]
fn a_pattern_goes_on_within_a_block() {
    let mut same = Progress::new(Operation::WriteSame { len: 2048 }, 0, 512, true);
    assert_eq!(same.call(), Some(Call::Fill { skip: 0, len: 2048, at: 0 }));
    assert!(same.absorb(700, &[]).is_continue());
    assert_eq!(same.call(), Some(Call::Fill { skip: 188, len: 1348, at: 700 }));
    assert_eq!(done(same.absorb(1348, &[])), Ok(()));
    let zero = Progress::new(Operation::WriteSame { len: 2048 }, 0, 512, false);
    assert_eq!(zero.call(), Some(Call::ZeroRange { at: 0, len: 2048 }));
}

#[test]
fn nothing_needs_no_call() {
    assert_eq!(Progress::new(Operation::Read, 0, 0, false).call(), None);
    assert_eq!(Progress::new(Operation::Discard { len: 0 }, 0, 0, false).call(), None);
    assert_eq!(Progress::new(Operation::Flush, 0, 0, false).call(), Some(Call::Flush));
}
