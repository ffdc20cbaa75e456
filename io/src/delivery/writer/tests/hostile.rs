//! Readers that lie, silent ones, and a caller that does whatever it likes.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Act {
    Wait {
        us: i64,
    },
    Publish {
        len: usize,
    },
    Acknowledge {
        reader: usize,
        floor: u64,
        held: u64,
        limit: u64,
        wanted: bool,
        echo: i64,
        held_us: u32,
        epoch: u64,
    },
    More {
        reader: usize,
        floor: u64,
        held: [u64; 3],
        wanted: bool,
        epoch: u64,
    },
    Word {
        reader: usize,
        base: u64,
        codes: [u8; OUTCOMES_MAX],
    },
    Resend,
    Heartbeat,
    Restart {
        reader: usize,
    },
}

/// Numbers near what is true, and numbers far from it. Those above 2⁶³ count down
/// from the last sequence.
fn number_near() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..70, 4 => (u64::MAX - 70)..=u64::MAX, 1 => any::<u64>()]
}

fn act() -> impl Strategy<Value = Act> {
    let acknowledge = (
        (0usize..5, number_near(), any::<u64>(), 0u32..64),
        (number_near(), any::<bool>(), prop_oneof![0i64..200_000, any::<i64>()]),
        (prop_oneof![0u32..2_000, any::<u32>()], prop_oneof![9 => Just(7u64), 1 => any::<u64>()]),
    )
        .prop_map(|((reader, floor, held, shift), (limit, wanted, echo), (held_us, epoch))| {
            Act::Acknowledge {
                reader,
                floor,
                held: held >> shift,
                limit,
                wanted,
                echo,
                held_us,
                epoch,
            }
        });
    prop_oneof![
        4 => prop_oneof![0i64..3_000, 0i64..400_000].prop_map(|us| Act::Wait { us }),
        6 => (8usize..=FRAME_MAX).prop_map(|len| Act::Publish { len }),
        8 => acknowledge,
        4 => (0usize..5, number_near(), any::<[u64; 3]>(), 0u32..192, any::<bool>(), 7u64..9).prop_map(
            |(reader, floor, mut held, cut, wanted, epoch)| {
                // Few bits, or nearly all claim what was never sent.
                for (word, bits) in held.iter_mut().enumerate() {
                    let kept = cut.saturating_sub(64 * word as u32);
                    *bits &= 1u64.checked_shl(kept).map_or(u64::MAX, |end| end - 1);
                }
                Act::More { reader, floor, held, wanted, epoch }
            }
        ),
        2 => (0usize..5, number_near(), any::<[u8; OUTCOMES_MAX]>())
            .prop_map(|(reader, base, codes)| Act::Word { reader, base, codes }),
        4 => Just(Act::Resend),
        2 => Just(Act::Heartbeat),
        1 => (0usize..5).prop_map(|reader| Act::Restart { reader }),
    ]
}

/// `u64::MAX` is `last`, and so on downwards.
fn near(number: u64, last: u64) -> u64 {
    match number > u64::MAX / 2 {
        true => last.saturating_sub(u64::MAX - number),
        false => number,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_readers_claim_the_writer_keeps_its_bounds(
        acts in prop::collection::vec(act(), 1..400), capacity in 1usize..300, lifespan_ms in prop::option::of(1i64..500),
        command: bool, percent in 0u8..=100,
    ) {
        let class = if command { Class::Command } else { Class::Stream };
        let spec = WriterSpec {
            class, readers: 4, capacity, lifespan: lifespan_ms.map(ms), resend_share_percent: percent, ..spec()
        };
        let mut now = Nanos::from_secs(10);
        let mut writer = Writer::new(spec, now);
        let mut dates = vec![now];
        let (mut sent, mut resent) = (Vec::new(), Vec::new());
        let mut told = BTreeSet::new();
        // What a heartbeat told each reader is out of reach, until it comes anew.
        let mut out_of_reach = [0; 4];
        // What was sent to each reader since it came; what was there before it comes for the first time.
        let mut got = [const { BTreeSet::new() }; 4];
        for act in acts {
            let last = writer.next().get() - 1;
            match act {
                Act::Wait { us: span } => now += us(span),
                Act::Publish { len } => {
                    if writer.room(now) {
                        let sequence = writer.next().get();
                        let mut matched = 0;
                        for reader in (0..4).filter(|n| writer.is_matched(peer(*n))) {
                            got[reader].insert(sequence);
                            matched += 1;
                        }
                        writer.keep(now, &frame(sequence, len));
                        prop_assert_eq!(writer.next().get(), sequence + 1);
                        dates.push(now);
                        sent.push((now, len * matched));
                    } else if let Some(span) = lifespan_ms
                        && *dates.last().unwrap() <= now - ms(span)
                    {
                        // One that waited in vain.
                        writer.outlive(now, now - ms(span));
                        dates.push(now - ms(span));
                    }
                }
                Act::Acknowledge { reader, floor, held, limit, wanted, echo, held_us, epoch } => {
                    let entry = Acknowledgement {
                        class, held, wanted, held_us, epoch: Epoch::new(epoch), echo: Some(now - Nanos::new(echo)),
                        limit: Sequence::new(near(limit, last)), ..acknowledgement(near(floor, last))
                    };
                    // One whose lease ends now comes anew.
                    writer.attend(now);
                    let before = writer.is_matched(peer(reader));
                    writer.acknowledge(peer(reader), EPOCH, &entry, now).unwrap();
                    if reader < 4 && !before {
                        out_of_reach[reader] = 0;
                        got[reader].clear();
                    }
                }
                Act::More { reader, floor, held, wanted, epoch } => {
                    let (floor, epoch) = (Sequence::new(near(floor, last)), Epoch::new(epoch));
                    let entry = MoreHeld { topic: spec.topic, epoch, floor, held, wanted };
                    writer.more_held(peer(reader), EPOCH, &entry, now);
                }
                Act::Word { reader, base, codes } => {
                    let base = Sequence::new(near(base, last));
                    let entry = Outcomes { topic: spec.topic, epoch: EPOCH, base, count: 32, codes };
                    writer.outcomes(peer(reader), EPOCH, &entry, now);
                }
                Act::Resend => {
                    let mut calls = 0;
                    while let Some((to, sequence, bytes)) = writer.resend(now) {
                        let (to, sequence, len) = (to.get(), sequence.get(), bytes.len());
                        prop_assert_eq!(number(bytes), sequence);
                        prop_assert!(sequence <= last && sequence + capacity as u64 > last, "a freed slot");
                        prop_assert!(sequence > out_of_reach[to], "it was given up");
                        prop_assert!(lifespan_ms.is_none_or(|span| now - dates[sequence as usize] < ms(span)));
                        prop_assert!(writer.is_matched(peer(to)));
                        if !got[to].insert(sequence) {
                            resent.push((now, len));
                        }
                        calls += 1;
                        prop_assert!(calls <= 1_024);
                    }
                    let past = |all: &[(Nanos, usize)], span| -> usize {
                        all.iter().filter(|(at, _)| now - *at < span).map(|(_, len)| *len).sum()
                    };
                    let allowed = past(&sent, us(1_062_500)) * usize::from(percent) / 100;
                    prop_assert!(past(&resent, ms(1_000)) <= allowed.max(64 * 1_024));
                }
                Act::Heartbeat => {
                    let mut calls = 0;
                    while let Some((to, entry)) = writer.heartbeat(now) {
                        let (first, end) = (entry.first.get(), entry.last.get());
                        prop_assert!(first >= 1 && first <= end + 1 && end == last);
                        prop_assert!(entry.unresolved.is_none_or(|n| command && n.get() <= end));
                        out_of_reach[to.get()] = first - 1;
                        calls += 1;
                        prop_assert!(calls <= 4);
                    }
                }
                Act::Restart { reader } => writer.reader_restarted(peer(reader)),
            }
            let _ = writer.next_deadline();
            while let Some(event) = writer.event() {
                if let WriterEvent::Resolved { sequence, .. } = event {
                    prop_assert!(command && sequence.get() < writer.next().get());
                    prop_assert!(told.insert(sequence), "told twice");
                }
            }
        }
        // Nobody speaks any more: nobody is held up for longer than the longest of the times.
        now += ms(500) + spec.linger.max(spec.lease);
        for _ in 0..17 {
            writer.room(now);
        }
        prop_assert!(writer.room(now), "a silent reader blocks for ever");
        prop_assert!((0..4).all(|n| !writer.is_matched(peer(n))));
        while let Some(event) = writer.event() {
            if let WriterEvent::Resolved { sequence, .. } = event {
                prop_assert!(told.insert(sequence));
            }
        }
        let published = writer.next().get() - 1;
        prop_assert_eq!(told.len() as u64, if command { published } else { 0 }, "a command without an outcome");
    }

    #[test]
    fn deadlines_lead_on(acts in prop::collection::vec(act(), 1..60)) {
        // A caller that only wakes at deadlines comes to rest: none stays in the past for ever.
        let mut now = Nanos::from_secs(10);
        let mut writer = Writer::new(WriterSpec { readers: 4, ..spec() }, now);
        for act in acts {
            let last = writer.next().get() - 1;
            if let Act::Acknowledge { reader, floor, held, wanted, .. } = act {
                let entry = Acknowledgement { held, wanted, ..acknowledgement(near(floor, last)) };
                writer.acknowledge(peer(reader), EPOCH, &entry, now).unwrap();
            } else if writer.room(now) {
                writer.keep(now, &frame(last + 1, 500));
            }
        }
        let mut wakes = 0;
        while let Some(next) = writer.next_deadline() {
            now = now.max(next);
            while writer.resend(now).is_some() {}
            while writer.heartbeat(now).is_some() {}
            while writer.event().is_some() {}
            wakes += 1;
            prop_assert!(wakes < 5_000, "it never rests");
        }
        prop_assert!((0..4).all(|n| !writer.is_matched(peer(n))));
    }
}
