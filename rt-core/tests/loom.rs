//! Every interleaving of the lock-free code that we wrote, explored by loom.
//!
//! `scripts/loom` runs this file twice: as it is, and with `--cfg sinew_broken`, which takes the
//! ordering, the change count, the fence and the look away that the four types rest on. Then each test must
//! fail, and for the reason it was written for, or it proves nothing.
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use sinew_rt::clock::Nanos;
use sinew_rt::health::Health;
use sinew_rt::ladder::Level;
use sinew_rt::wait::Doorbell;
use sinew_rt::{latest, pool::Pool};

#[test]
#[cfg_attr(sinew_broken, should_panic(expected = "Concurrent read and write accesses"))]
fn a_newest_value_is_never_torn_and_never_goes_back() {
    loom::model(|| {
        let (mut writer, mut reader) = latest::channel::<[u64; 2]>();
        let publisher = thread::spawn(move || {
            for n in 1..=2 {
                writer.publish([n, n], Nanos::ZERO);
            }
        });
        let mut last = 0;
        for _ in 0..2 {
            if let Some(newest) = reader.read() {
                assert_eq!(newest.value[0], newest.value[1]);
                assert_eq!(newest.value[0], newest.sequence);
                assert!(newest.sequence >= last);
                last = newest.sequence;
            }
        }
        publisher.join().unwrap();
        assert_eq!(reader.read().unwrap().sequence, 2, "the newest is readable in the end");
    });
}

#[test]
#[cfg_attr(sinew_broken, should_panic(expected = "lent twice"))]
fn a_slot_is_lent_to_one_at_a_time() {
    loom::model(|| {
        let pool = Pool::new(2, || AtomicBool::new(false));
        let claim = |slot: &AtomicBool| {
            assert!(!slot.swap(true, Ordering::Relaxed), "lent twice");
        };
        let other = {
            let pool = pool.clone();
            thread::spawn(move || {
                // Takes both and returns the first: the pattern that fools a stack without a count.
                let first = pool.take();
                let second = pool.take();
                for slot in [&first, &second].into_iter().flatten() {
                    claim(slot);
                }
                if let Some(first) = first {
                    first.store(false, Ordering::Relaxed);
                }
                second
            })
        };
        let mine = [pool.take(), pool.take()];
        for slot in mine.iter().flatten() {
            claim(slot);
        }
        let theirs = other.join().unwrap();
        drop((mine, theirs));
        assert_eq!(pool.free(), 2);
    });
}

#[test]
#[cfg_attr(sinew_broken, should_panic(expected = "deadlock"))]
fn a_wake_up_is_never_lost() {
    loom::model(|| {
        let work = Arc::new(AtomicBool::new(false));
        let woken = Arc::new(loom::sync::Notify::new());
        let waker = woken.clone();
        let bell = Arc::new(Doorbell::with_waker(move || waker.notify()));
        let producer = {
            let (work, bell) = (work.clone(), bell.clone());
            thread::spawn(move || {
                work.store(true, Ordering::Relaxed);
                bell.ring();
            })
        };
        bell.announce_sleep();
        if !work.load(Ordering::Relaxed) {
            woken.wait(); // a lost wake-up is a deadlock, which loom reports
        }
        bell.awake();
        producer.join().unwrap();
    });
}

/// Two loops re-arm what each of them saw, while something goes wrong elsewhere.
fn rearm_while(goes_wrong: fn(&Health), shows: fn(&Health) -> bool) {
    loom::model(move || {
        let health = Arc::new(Health::new());
        health.set_panicked();
        let before = health.seen();
        let rearm = move |health: &Health| {
            let seen = health.seen();
            health.rearm(seen);
            seen.panicked_since(before) || seen.hung_since(before)
        };
        let elsewhere = {
            let health = health.clone();
            thread::spawn(move || goes_wrong(&health))
        };
        let other_loop = {
            let health = health.clone();
            thread::spawn(move || rearm(&health))
        };
        let mine = rearm(&health);
        elsewhere.join().unwrap();
        let known = other_loop.join().unwrap() || mine;
        assert!(known || shows(&health), "forgiven, and nobody saw it");
        assert_eq!(shows(&health), health.level() == Level::SafeStop);
    });
}

#[test]
#[cfg_attr(sinew_broken, should_panic(expected = "forgiven, and nobody saw it"))]
fn a_panic_that_nobody_saw_outlasts_every_rearm() {
    rearm_while(Health::set_panicked, Health::panicked);
}

#[test]
#[cfg_attr(sinew_broken, should_panic(expected = "forgiven, and nobody saw it"))]
fn a_hang_that_nobody_saw_outlasts_every_rearm() {
    rearm_while(Health::set_hung, Health::hung);
}

#[test]
fn no_rearm_at_any_moment_forgives_a_dead_thread() {
    rearm_while(Health::set_dead, Health::dead);
}
