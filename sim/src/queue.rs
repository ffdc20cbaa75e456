//! What happens next: events in the order of their instants, and of their making at the same instant.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use sinew_rt::clock::Nanos;

#[derive(Debug)]
struct Entry<E> {
    at: Nanos,
    /// The number of the entry: ties at one instant are broken by it, never by chance.
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// The earliest entry is the greatest: the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The events that are to come.
#[derive(Debug)]
pub struct EventQueue<E> {
    heap: BinaryHeap<Entry<E>>,
    pushed: u64,
}

impl<E> EventQueue<E> {
    /// An empty queue with room for `room` events before it grows.
    #[must_use]
    pub fn with_room(room: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(room), pushed: 0 }
    }

    /// Lets `event` happen at `at`, after everything that is already due at that instant.
    #[inline]
    pub fn push(&mut self, at: Nanos, event: E) {
        self.heap.push(Entry { at, number: self.pushed, event });
        self.pushed += 1;
    }

    /// The next event and its instant.
    #[inline]
    pub fn pop(&mut self) -> Option<(Nanos, E)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }

    /// Events that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_ties_in_the_order_of_making() {
        let mut queue = EventQueue::with_room(4);
        for (at, event) in [(5, 'd'), (1, 'a'), (5, 'e'), (1, 'b'), (3, 'c')] {
            queue.push(Nanos::new(at), event);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(order, "abcde");
        assert!(queue.is_empty());
    }
}
