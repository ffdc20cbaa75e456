//! What a fault does when it begins, when it ends, and when everything heals.

use sinew_rt::clock::Nanos;

use super::{Event, TICK, World};
use crate::clock::{DRIFT_PPM_MAX, MachineClock};
use crate::fault::{Fault, FaultKind};
use crate::host::{Host, STRANGERS};
use crate::liar::{flood_frame, stranger_frame};

/// With more peers a slow node has no time for all that they may send.
const SLOW_PEERS_MAX: usize = 5;
/// Between two frames of somebody who lies, floods, or is a stranger.
const LIE_PERIOD: Nanos = Nanos::from_millis(15);
const FLOOD_PERIOD: Nanos = Nanos::from_millis(1);
/// Frames of one turn of a flood: together ten times what a peer may send.
const FLOOD_FRAMES: usize = 8;

impl<H: Host> World<'_, H> {
    pub(super) fn set_weather(&mut self) {
        let healed = self.now >= self.plan.healed;
        let faults = self.active.iter().map(|fault| &self.plan.faults[usize::from(*fault)]);
        self.network.set_weather(healed, faults);
    }

    pub(super) fn begin(&mut self, place: u16) {
        let fault = self.plan.faults[usize::from(place)];
        if !self.plan.is_present(fault.node)
            || fault.other.is_some_and(|n| !self.plan.is_present(n))
        {
            return;
        }
        self.active.push(place);
        let mut effective = true;
        match fault.kind {
            kind if kind.is_of_link() => self.set_weather(),
            FaultKind::Crash => effective = self.kill_until(&fault, 0),
            FaultKind::Torn => {
                effective = self.kill_until(&fault, 1 + (fault.strength / 400_000) as u8);
                let this = self.node(fault.node);
                this.disk.crash(&mut this.random);
            }
            // A second old disk would give one epoch to two lives, which receivers cannot tell apart.
            FaultKind::Rollback if self.node(fault.node).rolled_back => effective = false,
            FaultKind::Rollback => {
                effective = self.kill(fault.node);
                let this = self.node(fault.node);
                // To an epoch that is lower than one that was: the same epoch again, in two lives, is what
                // receivers cannot tell apart.
                let back = 1 + u64::from(fault.strength % 2_000 / 1_000);
                this.disk.replace(this.epoch_max.saturating_sub(back).max(1));
                this.rolled_back = true;
                self.queue.push(self.now + TICK, Event::Start { node: fault.node, killed: 0 });
            }
            FaultKind::Reboot => self.reboot(&fault),
            FaultKind::Stall => self.node(fault.node).stalls += 1,
            FaultKind::Clock => self.turn_clock(fault.node),
            FaultKind::SlowReader => {
                self.node(fault.node).slow += 1;
                self.checker.reads(fault.node, false);
            }
            FaultKind::Lie | FaultKind::Flood | FaultKind::Stranger => {
                if let Some(victim) = self.victim(&fault).filter(|n| self.can_be_slow(*n)) {
                    self.node(victim).floods += 1;
                }
                self.queue.push(self.now, Event::Lie { fault: place });
            }
            _ => {}
        }
        self.faults[fault.kind as usize] += u64::from(effective);
    }

    pub(super) fn end(&mut self, place: u16) {
        let Some(active) = self.active.iter().position(|fault| *fault == place) else { return };
        self.active.swap_remove(active);
        let fault = self.plan.faults[usize::from(place)];
        match fault.kind {
            kind if kind.is_of_link() => self.set_weather(),
            FaultKind::Stall => {
                self.node(fault.node).stalls -= 1;
                self.checker.rested(self.now, fault.node);
                self.serve(fault.node, false);
            }
            FaultKind::Rollback => {
                self.kill(fault.node);
                let this = self.node(fault.node);
                this.disk.replace(this.epoch_max + 1);
                this.rolled_back = false;
                self.start(fault.node, 0);
            }
            FaultKind::Flood => {
                if let Some(victim) = self.victim(&fault).filter(|n| self.can_be_slow(*n)) {
                    self.node(victim).floods -= 1;
                    self.serve(victim, false);
                }
            }
            FaultKind::Clock => self.turn_clock(fault.node),
            FaultKind::SlowReader => {
                let this = self.node(fault.node);
                this.slow -= 1;
                let reads = this.slow == 0;
                self.serve(fault.node, false);
                self.checker.reads(fault.node, reads);
            }
            _ => {}
        }
    }

    fn kill_until(&mut self, fault: &Fault, killed: u8) -> bool {
        let effective = self.kill(fault.node);
        self.queue.push(fault.until, Event::Start { node: fault.node, killed });
        effective
    }

    fn reboot(&mut self, fault: &Fault) {
        let machine = self.node(fault.node).machine;
        for node in 0..self.plan.nodes as u16 {
            if self.node(node).machine == machine && self.plan.is_present(node) {
                self.kill_until(&Fault { node, ..*fault }, 0);
                let this = self.node(node);
                this.disk.crash(&mut this.random);
            }
        }
        let machine = &mut self.machines[machine];
        machine.boot = self.random.bits();
        machine.clock = MachineClock::draw(&mut self.random, self.now);
    }

    fn turn_clock(&mut self, node: u16) {
        let machine = self.node(node).machine;
        let drift = self.random.within(-DRIFT_PPM_MAX, DRIFT_PPM_MAX);
        let step = Nanos::from_millis(self.random.within(-3_600_000, 3_600_000));
        self.machines[machine].clock.turn(self.now, drift);
        for node in 0..self.plan.nodes as u16 {
            if self.node(node).machine == machine {
                if let Some(host) = &mut self.node(node).host {
                    host.step_wall_clock(step);
                }
                // What it asked for was reckoned by the old rate.
                self.serve(node, false);
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.set_weather();
        for node in 0..self.plan.nodes as u16 {
            if self.plan.is_present(node) {
                self.start(node, 0);
            }
        }
    }

    pub(super) fn lie(&mut self, place: u16) {
        if !self.active.contains(&place) {
            return;
        }
        let fault = self.plan.faults[usize::from(place)];
        let period = if fault.kind == FaultKind::Flood { FLOOD_PERIOD } else { LIE_PERIOD };
        let again = self.now + Nanos::new(self.random.within(1, period.as_nanos() * 2));
        self.queue.push(again, Event::Lie { fault: place });
        let node = fault.node;
        if fault.kind == FaultKind::Stranger {
            let from = STRANGERS + fault.number;
            let bytes = stranger_frame(&mut self.liar, &self.recordings);
            return self.inject(from, from, node, &bytes);
        }
        let peers: Vec<u16> = self.plan.peers(node).filter(|n| self.plan.is_present(*n)).collect();
        let (false, Some(host)) = (peers.is_empty(), &self.nodes[usize::from(node)].host) else {
            return;
        };
        let local = self.local(node);
        if fault.kind == FaultKind::Flood {
            let Some(to) = self.victim(&fault) else { return };
            let flood: Vec<_> = (0..FLOOD_FRAMES)
                .filter_map(|_| flood_frame(&mut self.liar, host, node, local))
                .collect();
            return flood.iter().for_each(|bytes| self.inject(node, node, to, bytes));
        }
        let to = peers[self.random.index(peers.len())];
        let highest = self.nodes[usize::from(node)].epoch_max;
        let lies = self.liar.lie(host, &self.recordings, self.plan, (node, to), highest, local);
        lies.iter().for_each(|lie| self.inject(lie.from, node, lie.to, &lie.bytes));
    }

    fn can_be_slow(&self, node: u16) -> bool {
        self.plan.peers(node).count() <= SLOW_PEERS_MAX
    }

    /// At whom a flood is directed.
    fn victim(&self, fault: &Fault) -> Option<u16> {
        let peers: Vec<u16> =
            self.plan.peers(fault.node).filter(|n| self.plan.is_present(*n)).collect();
        let place = usize::from(fault.number).checked_rem(peers.len())?;
        peers.get(place).copied().filter(|_| fault.kind == FaultKind::Flood)
    }
}
