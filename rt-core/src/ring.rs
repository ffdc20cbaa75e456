//! A bounded single-producer single-consumer ring between two threads, over `rtrb`, which can
//! ring the doorbell of a consumer that sleeps.

use crate::wait::Doorbell;
use std::sync::Arc;

/// The ring was full; the value comes back to the caller, who counts the loss or tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ring is full")]
pub struct Full<T>(pub T);

/// Makes a ring that holds up to `capacity` values. The consumer spins or polls.
///
/// Allocates: call before the lanes start.
#[must_use]
pub fn channel<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let (producer, consumer) = rtrb::RingBuffer::new(capacity);
    (Producer { ring: producer, doorbell: None }, Consumer { ring: consumer })
}

/// The same, for a consumer that parks on `doorbell`.
#[must_use]
pub fn channel_with_doorbell<T>(
    capacity: usize,
    doorbell: Arc<Doorbell>,
) -> (Producer<T>, Consumer<T>) {
    let (mut producer, consumer) = channel(capacity);
    producer.doorbell = Some(doorbell);
    (producer, consumer)
}

/// The pushing side. Not `Clone`: one producer.
#[derive(Debug)]
pub struct Producer<T> {
    ring: rtrb::Producer<T>,
    doorbell: Option<Arc<Doorbell>>,
}

impl<T> Producer<T> {
    /// Appends `value`. Wait-free; when the consumer sleeps, one system call wakes it.
    ///
    /// # Errors
    /// [`Full`] with the value, when the consumer has not kept up.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), Full<T>> {
        match self.ring.push(value) {
            Ok(()) => {
                self.announce();
                Ok(())
            }
            Err(rtrb::PushError::Full(value)) => Err(Full(value)),
        }
    }

    /// Appends what `make` returns, made in its place where the compiler sees to it: for values too large
    /// to be copied on the way. `make` is not called when the ring is full. Wait-free as
    /// [`push`](Self::push) is.
    ///
    /// # Errors
    /// [`Full`], when the consumer has not kept up.
    #[inline]
    pub fn push_with(&mut self, make: impl FnOnce() -> T) -> Result<(), Full<()>> {
        let mut place = self.ring.write_chunk_uninit(1).map_err(|_| Full(()))?;
        let Some(slot) = place.as_mut_slices().0.first_mut() else { return Err(Full(())) };
        slot.write(make());
        // SAFETY: the chunk has one slot, which was just written.
        unsafe { place.commit_all() };
        self.announce();
        Ok(())
    }

    #[inline]
    fn announce(&self) {
        if let Some(doorbell) = &self.doorbell {
            doorbell.ring();
        }
    }

    /// How many more values fit at least.
    #[inline]
    #[must_use]
    pub fn free(&self) -> usize {
        self.ring.slots()
    }

    /// Whether the consumer is gone, so that nobody will ever read what is pushed.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

/// The popping side. Not `Clone`: one consumer.
#[derive(Debug)]
pub struct Consumer<T> {
    ring: rtrb::Consumer<T>,
}

impl<T> Consumer<T> {
    /// The oldest value, if there is one. Wait-free.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.ring.pop().ok()
    }

    /// What `read` makes of the oldest value, if there is one, where it lies; then the value is dropped
    /// (if `read` panics, it stays). For values too large to be copied on the way. Wait-free as
    /// [`pop`](Self::pop) is.
    #[inline]
    pub fn pop_with<R>(&mut self, read: impl FnOnce(&T) -> R) -> Option<R> {
        let result = read(self.ring.peek().ok()?);
        if let Ok(read) = self.ring.read_chunk(1) {
            read.commit_all();
        }
        Some(result)
    }

    /// The oldest value, if there is one, which stays. Wait-free.
    #[inline]
    #[must_use]
    pub fn peek(&self) -> Option<&T> {
        self.ring.peek().ok()
    }

    /// How many values wait at least.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.slots()
    }

    /// Whether no value waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Whether the producer is gone: what waits now is all that will ever come.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_in_order_and_a_full_ring_gives_the_value_back() {
        let (mut producer, mut consumer) = channel(2);
        producer.push(1).unwrap();
        producer.push(2).unwrap();
        assert_eq!(producer.push(3), Err(Full(3)));
        assert_eq!(consumer.len(), 2);
        assert_eq!(consumer.pop(), Some(1));
        producer.push(3).unwrap();
        assert_eq!((consumer.peek(), consumer.len()), (Some(&2), 2), "a look takes nothing");
        assert_eq!((consumer.pop(), consumer.pop(), consumer.pop()), (Some(2), Some(3), None));
        assert_eq!(consumer.peek(), None);
    }

    #[test]
    fn values_that_are_made_and_read_in_place_come_out_once_and_in_order() {
        let (mut producer, mut consumer) = channel(2);
        let (value, other) = (Arc::new(1), Arc::new(2));
        producer.push_with(|| value.clone()).unwrap();
        producer.push(other.clone()).unwrap();
        assert_eq!(producer.push_with(|| panic!("it is full")), Err(Full(())));
        assert_eq!((consumer.pop_with(|value| **value), Arc::strong_count(&value)), (Some(1), 1));
        assert_eq!(consumer.pop(), Some(other));
        assert_eq!(consumer.pop_with(|_| panic!("it is empty")), None::<()>);
    }

    #[test]
    fn either_side_learns_that_the_other_is_gone() {
        let (producer, mut consumer) = channel::<u8>(1);
        assert!(!producer.is_abandoned());
        drop(producer);
        assert!(consumer.is_abandoned());
        assert_eq!(consumer.pop(), None);
    }
}
