// SPDX-License-Identifier: MIT OR Apache-2.0

//! Both ends of a ring under any history: what goes in comes out, in order, once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::VecDeque;

use busway_ring::{Full, Outgoing, PacketBuf};
use common::{Ring, ring};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Push { header_words: usize, payload: Vec<u8> },
    Publish,
    Take,
    Release,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..40, prop::collection::vec(any::<u8>(), 0..1500))
            .prop_map(|(header_words, payload)| Step::Push { header_words, payload }),
        2 => Just(Step::Publish),
        4 => Just(Step::Take),
        2 => Just(Step::Release),
    ]
}

/// What went in and what the reader may see of it.
#[derive(Default)]
struct Model {
    sent: VecDeque<(u64, Vec<u8>, Vec<u8>)>,
    visible: usize,
    /// Bytes in the ring whose room the writer has not got back, in total and by packet.
    unreleased: Vec<usize>,
    released: usize,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_goes_in_comes_out(steps in prop::collection::vec(step(), 1..200), pages in 1_u64..4) {
        let Ring { mut writer, mut reader, view } = ring(pages);
        let mut buf = PacketBuf::for_ring(view.data_len());
        let mut model = Model::default();
        let mut taken = 0;
        for (id, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push { header_words, payload } => {
                    let header = vec![id as u8; header_words * 8];
                    let packet = Outgoing {
                        header: &header,
                        ..Outgoing::in_band(id as u64, &payload)
                    };
                    let in_use: usize = model.unreleased[model.released..].iter().sum();
                    let fits = in_use + packet.ring_len() < view.data_len() as usize;
                    match writer.push(&packet) {
                        Ok(()) => {
                            prop_assert!(fits);
                            model.unreleased.push(packet.ring_len());
                            model.sent.push_back((id as u64, header, payload));
                        }
                        Err(Full::Broken(error)) => prop_assert!(false, "{error}"),
                        Err(_) => prop_assert!(!fits),
                    }
                }
                Step::Publish => {
                    let _ = writer.publish();
                    model.visible = model.sent.len();
                }
                Step::Take => match reader.next(&mut buf).unwrap() {
                    Some(packet) => {
                        prop_assert!(model.visible > 0);
                        model.visible -= 1;
                        let (id, header, payload) = model.sent.pop_front().unwrap();
                        prop_assert_eq!(packet.descriptor.transaction_id, id);
                        prop_assert_eq!(packet.header, header);
                        prop_assert_eq!(&packet.payload[..payload.len()], payload);
                        taken += 1;
                    }
                    None => prop_assert_eq!(model.visible, 0),
                },
                Step::Release => {
                    let _ = reader.publish();
                    model.released = taken;
                }
            }
        }
    }

    /// Any bytes at all in the ring: the reader returns, and never more than the ring holds.
    #[test]
    fn junk_is_read_without_harm(
        junk in prop::collection::vec(any::<u8>(), 4096),
        write_index in any::<u32>(),
        small in any::<bool>(),
    ) {
        let Ring { mut reader, view, .. } = ring(1);
        view.write(0, &junk);
        let write_index = if small { write_index % 512 * 8 } else { write_index };
        view.control_word(0).store(write_index, std::sync::atomic::Ordering::SeqCst);
        let mut buf = PacketBuf::for_ring(4096);
        let mut total = 0;
        while let Ok(Some(packet)) = reader.next(&mut buf) {
            total += packet.descriptor.total_len() + 8;
            prop_assert!(total <= 4096);
        }
    }
}
