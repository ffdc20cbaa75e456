//! Reliable topics: order, gaps, lives, and the outcomes of commands.

use sinew_rt::clock::Nanos;

use super::{Checker, LOSSLESS_AFTER, Rule, tolerated};
use crate::host::real::REJECTED_EVERY;
use crate::host::{Outcome, Payload};
use crate::plan::{GAP_TIMEOUT, Kind, LINGER, RETAINED, TOPICS};

/// What a node may take, when it is slow, to tell its program what it knows of a command.
const OUTCOME_SLACK: Nanos = Nanos::from_millis(250);

impl Checker {
    pub(super) fn new_life(
        &mut self,
        now: Nanos,
        node: u16,
        topic: u8,
        (from, epoch): (u16, u64),
        first: u64,
    ) {
        let Some(life) = self.life_of(from, epoch) else {
            let text = || format!("epoch {epoch} of n{from} never was");
            return self.accuse(now, node, Rule::Forged, text);
        };
        let published = self.count_of(from, life, topic);
        let liar = self.is_liar(from);
        let ear = self.ear(node, from, topic);
        if ear.open && life <= ear.life && ear.expected != 0 {
            let known = ear.life;
            return self.accuse(now, node, Rule::Epoch, || {
                format!("life {life} of n{from} is announced after life {known}")
            });
        }
        ear.begin(life);
        ear.expected = first;
        ear.fresh_from = published + 1;
        self.living(now, node, from, life, topic);
        if (first == 0 || first > published + 1) && !liar {
            self.accuse(now, node, Rule::SilentLoss, || {
                format!(
                    "life {life} of n{from} is to begin at {first}, and {published} were published"
                )
            });
        }
    }

    pub(super) fn enter(
        &mut self,
        now: Nanos,
        node: u16,
        topic: u8,
        from: u16,
        epoch: u64,
    ) -> bool {
        let Some(life) = self.life_of(from, epoch) else {
            self.accuse(now, node, Rule::Forged, || format!("epoch {epoch} of n{from} never was"));
            return false;
        };
        let ear = self.ear(node, from, topic);
        let (open, known) = (ear.open, ear.life);
        if !open || life > known {
            ear.begin(life);
            self.accuse(now, node, Rule::Epoch, || {
                format!("life {life} of n{from} was not announced")
            });
            return false;
        }
        if life < known {
            self.accuse(now, node, Rule::Duplicate, || {
                format!("life {life} of n{from} goes on after life {known} began")
            });
        }
        life == known
    }

    pub(super) fn message(
        &mut self,
        now: Nanos,
        node: u16,
        topic: u8,
        (from, epoch, sequence): (u16, u64, u64),
        payload: &Payload,
    ) {
        if !self.enter(now, node, topic, from, epoch) {
            return;
        }
        let name = TOPICS[usize::from(topic)].name;
        if !self.is_liar(from) {
            let Some(published) = self.genuine(now, node, topic, payload) else { return };
            let life = self.ear(node, from, topic).life;
            if (payload.node, payload.life, payload.number) != (from, life, sequence) {
                return self.accuse(now, node, Rule::Forged, || {
                    format!("{payload:?} is given out as {name} {sequence} of n{from}, life {life}")
                });
            }
            self.in_time(now, node, topic, payload, published);
        }
        let ear = self.ear(node, from, topic);
        let expected = ear.expected;
        let first_time = ear.see(sequence);
        ear.expected = sequence.saturating_add(1).max(expected);
        if !first_time {
            self.accuse(now, node, Rule::Duplicate, || {
                format!("{name} {sequence} of n{from} comes again")
            });
        } else if sequence < expected {
            self.accuse(now, node, Rule::Order, || {
                format!("{name} {sequence} of n{from} after {}", expected - 1)
            });
        } else if sequence > expected {
            self.accuse(now, node, Rule::SilentLoss, || {
                format!("{name} {sequence} of n{from}, and {expected} was neither delivered nor in a gap")
            });
        }
        let life = self.ear(node, from, topic).life;
        self.hears(now, node, from, life, topic);
    }

    pub(super) fn gap(
        &mut self,
        now: Nanos,
        node: u16,
        topic: u8,
        (from, epoch): (u16, u64),
        (first, last): (u64, u64),
    ) {
        self.counts.gaps += 1;
        self.counts.missing += last.saturating_sub(first).saturating_add(1);
        if !self.enter(now, node, topic, from, epoch) {
            return;
        }
        let liar = self.is_liar(from) || self.is_liar(node);
        let name = TOPICS[usize::from(topic)].name;
        let life = self.ear(node, from, topic).life;
        let published = self.count_of(from, life, topic);
        let ear = self.ear(node, from, topic);
        let expected = ear.expected;
        ear.expected = last.saturating_add(1).max(expected);
        let what = || format!("gap {first}..={last} of {name} of n{from}");
        if first > last || first == 0 {
            return self.accuse(now, node, Rule::FalseGap, || format!("{} is no range", what()));
        }
        if first < expected {
            self.accuse(now, node, Rule::FalseGap, || format!("{} after {}", what(), expected - 1));
        } else if first > expected {
            self.accuse(now, node, Rule::SilentLoss, || {
                format!("{}, and {expected} was neither delivered nor in a gap", what())
            });
        }
        if liar {
            return;
        }
        if last > published {
            return self.accuse(now, node, Rule::FalseGap, || {
                format!("{}, but only {published} were sent", what())
            });
        }
        let newest = self.lives[usize::from(from)][life as usize].published[usize::from(topic)]
            [(last - 1) as usize];
        let patience = LINGER.min(GAP_TIMEOUT);
        // With several readers one that lacks room is not waited for when the ring comes round.
        let overwritten = published - last >= u64::from(RETAINED)
            || last < self.ear(node, from, topic).fresh_from;
        let is_stream = TOPICS[usize::from(topic)].kind == Kind::Stream;
        if is_stream && !overwritten && tolerated(now - newest) < patience {
            let age = now - newest;
            self.accuse(now, node, Rule::Impatient, || {
                format!("{}, the last of which is {age} old", what())
            });
        }
        let calm = self.is_calm[usize::from(node) * self.nodes + usize::from(from)];
        if newest > self.healed + LOSSLESS_AFTER && calm {
            self.accuse(now, node, Rule::NeedlessGap, || {
                format!("{}, the last of which was sent at {newest}", what())
            });
        }
    }

    pub(super) fn outcome(
        &mut self,
        now: Nanos,
        node: u16,
        topic: u8,
        sequence: u64,
        outcome: Outcome,
    ) {
        let place = match outcome {
            Outcome::Accepted => 0,
            Outcome::Rejected(_) => 1,
            Outcome::Expired => 2,
            Outcome::NeverArrived => 3,
            Outcome::Unknown => 4,
        };
        self.counts.outcomes[place] += 1;
        let life = self.lives[usize::from(node)].len().saturating_sub(1) as u32;
        let published = self.count_of(node, life, topic);
        if sequence == 0 || sequence > published {
            return self.accuse(now, node, Rule::Outcome, || {
                format!("an outcome of command {sequence}, and {published} were sent")
            });
        }
        let liar_may_have_said_it = self.is_liar(node)
            || self.liar.is_some_and(|liar| self.peers[usize::from(node)].contains(&liar));
        let sent_at = self.lives[usize::from(node)][life as usize].published[usize::from(topic)]
            [(sequence - 1) as usize];
        let unsaid = !matches!(outcome, Outcome::Accepted | Outcome::Rejected(_));
        let calm = |peer: &u16| self.is_calm[usize::from(node) * self.nodes + usize::from(*peer)];
        let calm = self.peers[usize::from(node)].iter().all(calm);
        if unsaid && sent_at > self.healed + LOSSLESS_AFTER && !liar_may_have_said_it && calm {
            self.accuse(now, node, Rule::Outcome, || {
                format!("command {sequence} of {sent_at} is {outcome:?}, and nothing was wrong")
            });
        }
        let plan = &TOPICS[usize::from(topic)];
        let latest = sent_at + plan.lifespan.unwrap_or(Nanos::ZERO) + LINGER + OUTCOME_SLACK;
        if now > latest && self.stopped_at[usize::from(node)] < sent_at {
            self.accuse(now, node, Rule::Outcome, || {
                format!("command {sequence} of {sent_at} is only now {outcome:?}")
            });
        }
        let rejected = sequence.is_multiple_of(REJECTED_EVERY);
        let wrong = match outcome {
            Outcome::Accepted => rejected,
            Outcome::Rejected(reason) => !rejected || u64::from(reason) != sequence % 200,
            _ => false,
        };
        if wrong && !liar_may_have_said_it {
            self.accuse(now, node, Rule::Outcome, || {
                format!("command {sequence} is said to be {outcome:?}, which no program decided")
            });
        }
        if let Some(own) = self.lives[usize::from(node)].last_mut() {
            let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
            if own.resolved.len() <= word {
                own.resolved.resize(word + 1, 0);
            }
            let again = own.resolved[word] & bit != 0;
            own.resolved[word] |= bit;
            own.resolved_count += 1;
            if again {
                self.accuse(now, node, Rule::Outcome, || {
                    format!("a second outcome of command {sequence}: {outcome:?}")
                });
            }
        }
        let taken = |receiver: usize| {
            let ear = &self.ears[receiver * self.nodes + usize::from(node)][usize::from(topic)];
            ear.open && ear.life == life && ear.has_seen(sequence)
        };
        // A reader that was killed since cannot be asked any more, so only its absence clears it.
        let all_up_since_start = (0..self.nodes).all(|other| self.lives[other].len() == 1);
        let said_so = matches!(outcome, Outcome::Accepted | Outcome::Rejected(_));
        if said_so && self.liar.is_none() && all_up_since_start && !(0..self.nodes).any(taken) {
            self.accuse(now, node, Rule::Outcome, || {
                format!("command {sequence} is said to be {outcome:?}, and nobody got it")
            });
        }
    }

    /// Every command of the last lives has an outcome.
    pub(super) fn resolved(&mut self, now: Nanos, node: u16) {
        for (topic, plan) in TOPICS.iter().enumerate() {
            if plan.kind != Kind::Command || !self.up[usize::from(node)] {
                continue;
            }
            let Some(life) = self.lives[usize::from(node)].last() else { continue };
            let (published, resolved) = (life.published[topic].len() as u64, life.resolved_count);
            if resolved < published {
                self.accuse(now, node, Rule::Outcome, || {
                    format!("{published} commands, and {resolved} outcomes at the end")
                });
            }
        }
    }

    pub(super) fn complete(&mut self, now: Nanos, node: u16, sender: u16, topic: u8) {
        let life = self.lives[usize::from(sender)].len() as u32 - 1;
        let published = self.count_of(sender, life, topic);
        let ear = self.ear(node, sender, topic);
        let done = if ear.open && ear.life == life { ear.expected.saturating_sub(1) } else { 0 };
        if done < published {
            let name = TOPICS[usize::from(topic)].name;
            self.accuse(now, node, Rule::SilentLoss, || {
                format!("{name} of n{sender}, life {life}: {published} published, {done} accounted for at the end")
            });
        }
    }
}
