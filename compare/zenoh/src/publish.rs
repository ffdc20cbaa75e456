//! The publishing process.

use std::time::{Duration, Instant};
use zenoh::Wait;
use zenoh::bytes::ZBytes;
use zenoh::pubsub::Publisher;
use zenoh::qos::CongestionControl;

use crate::load::{KEY, LEN, Stamp, WARM_UP, WARM_UP_NS};
use crate::session::{Side, open};
use crate::{EndArgs, Failure, What, clock};

/// Two processes on one machine find each other within this, or something is wrong.
const MATCHED_WITHIN: Duration = Duration::from_secs(10);
/// Between the subscriber's appearing and the first message.
const SETTLE: Duration = Duration::from_millis(100);
/// Messages of the throughput between two looks at the clock.
const STRIDE: u32 = 256;

/// Publishes what was asked for.
pub(crate) fn run(end: &EndArgs) -> Result<(), Failure> {
    let session = open(end, Side::Connects)?;
    let publisher = session
        .declare_publisher(KEY)
        .congestion_control(CongestionControl::Block)
        // Batches are what makes a throughput, and what may hold up a single message.
        .express(end.what == What::Latency && !end.batched)
        .wait()
        .map_err(Failure::zenoh)?;
    await_subscriber(&publisher)?;
    match end.what {
        What::Throughput => flat_out(&publisher, end)?,
        What::Latency => paced(&publisher, end)?,
    }
    // Closing waits until everything has left.
    session.close().wait().map_err(Failure::zenoh)
}

fn await_subscriber(publisher: &Publisher<'_>) -> Result<(), Failure> {
    let give_up = Instant::now() + MATCHED_WITHIN;
    while !publisher.matching_status().wait().map_err(Failure::zenoh)?.matching() {
        if Instant::now() > give_up {
            return Err(Failure::Silent("subscriber", MATCHED_WITHIN));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(SETTLE);
    Ok(())
}

/// As fast as Zenoh takes them, and for a little longer than the subscriber measures. The bytes are
/// shared by all messages, as in Zenoh's own `z_pub_thr`.
fn flat_out(publisher: &Publisher<'_>, end: &EndArgs) -> Result<(), Failure> {
    let payload = ZBytes::from(vec![0x5A_u8; LEN]);
    let until = clock::now_ns() + i64::from(end.seconds) * 1_000_000_000 + 4 * WARM_UP_NS;
    while clock::now_ns() < until {
        for _ in 0..STRIDE {
            publisher.put(payload.clone()).wait().map_err(Failure::zenoh)?;
        }
    }
    Ok(())
}

/// One message a period, at absolute instants, whatever became of earlier ones.
fn paced(publisher: &Publisher<'_>, end: &EndArgs) -> Result<(), Failure> {
    let period_ns = i64::from(end.period_us) * 1_000;
    let measured = u64::from(end.seconds) * 1_000_000 / u64::from(end.period_us);
    let count = measured + WARM_UP;
    let start = clock::now_ns() + period_ns;
    let mut message = [0x5A; LEN];
    for number in 0..count {
        clock::sleep_until(start + number.cast_signed() * period_ns);
        // What is made once for each message is made before the clock is read.
        let mut bytes = Vec::with_capacity(LEN);
        Stamp { sent_at_ns: clock::now_ns(), number, count }.write(&mut message);
        bytes.extend_from_slice(&message);
        publisher.put(bytes).wait().map_err(Failure::zenoh)?;
    }
    Ok(())
}
