//! Carries a plan out, and heals everything at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::plan::{CutSilence, DiskCrash, Fault, FaultPlan, NodeName, ScheduledFault};

/// Whatever has nodes, links and disks to break. Calls return at once.
#[async_trait]
pub trait Victim: Send + Sync {
    /// Lets simulated time pass.
    async fn sleep(&self, duration: Duration);
    /// Nodes that a whole power loss takes down.
    fn servers(&self) -> Vec<NodeName>;
    /// All nodes.
    fn nodes(&self) -> Vec<NodeName>;
    /// Takes a node down; nothing happens if it is down.
    fn kill(&self, node: &str, disk: DiskCrash, silent: bool);
    /// Brings a node up again; nothing happens if it is up.
    fn restart(&self, node: &str);
    /// Cuts one direction of a link.
    fn cut(&self, from: &str, to: &str, silence: CutSilence);
    /// Heals one direction of a link.
    fn heal(&self, from: &str, to: &str);
    /// Sets what deliveries between two nodes take longer, in either direction.
    fn slow_link(&self, one: &str, other: &str, delay: Duration);
    /// Sets what syncs of a disk take longer.
    fn slow_disk(&self, node: &str, delay: Duration);
    /// Sets whether files of a disk can grow.
    fn fill_disk(&self, node: &str, is_full: bool);
    /// Makes the next sync of a disk fail.
    fn fail_next_sync(&self, node: &str);
    /// Crashes a machine in the middle of the sync that follows `after_syncs` more, and brings it up again later.
    fn crash_in_sync(&self, node: &str, after_syncs: u32, down: Duration, disk: DiskCrash);
    /// Forgets crashes that are still to come.
    fn disarm(&self);
    /// Stops a node's processor.
    fn pause(&self, node: &str);
    /// Lets it run on.
    fn resume(&self, node: &str);
    /// Sets whether a Data Node is to be emptied.
    fn drain(&self, node: &str, is_wanted: bool);
    /// Ends a node's session with the coordination service.
    fn expire_session(&self, node: &str);
    /// Writes down what was done.
    fn note(&self, what: &str);
}

/// What ends a fault.
#[derive(Debug)]
enum Relief {
    Restart(Vec<NodeName>),
    Heal(Vec<(NodeName, NodeName)>),
    FastLink(NodeName, NodeName),
    FastDisk(NodeName),
    RoomOnDisk(NodeName),
    Resume(NodeName),
    Undrain(NodeName),
}

/// Breaks things by a plan.
pub struct Nemesis<'a> {
    victim: &'a dyn Victim,
    /// By time and order of scheduling.
    reliefs: BTreeMap<(u64, u64), Relief>,
    next_relief: u64,
    carried_out: BTreeMap<&'static str, u32>,
}

impl<'a> Nemesis<'a> {
    /// A nemesis of `victim`.
    pub fn new(victim: &'a dyn Victim) -> Self {
        Self {
            victim,
            reliefs: BTreeMap::new(),
            next_relief: 0,
            carried_out: BTreeMap::new(),
        }
    }

    /// Carries out `plan`, heals everything at `length_ms`, and returns how many faults of each kind there were.
    pub async fn run(mut self, plan: &FaultPlan, length_ms: u64) -> BTreeMap<&'static str, u32> {
        let mut now_ms = 0;
        let mut faults = plan.faults.iter().peekable();
        loop {
            let next_fault = faults.peek().map(|fault| fault.at_ms);
            let next_relief = self.reliefs.keys().next().map(|(at_ms, _)| *at_ms);
            let next = next_fault.into_iter().chain(next_relief).min();
            let Some(at_ms) = next.filter(|at_ms| *at_ms < length_ms) else {
                break;
            };
            self.wait_until(&mut now_ms, at_ms).await;
            if next_relief == Some(at_ms) {
                if let Some((_, relief)) = self.reliefs.pop_first() {
                    self.relieve(relief);
                }
            } else if let Some(fault) = faults.next() {
                self.strike(fault);
            }
        }
        self.wait_until(&mut now_ms, length_ms).await;
        self.heal_everything();
        self.carried_out
    }

    async fn wait_until(&self, now_ms: &mut u64, at_ms: u64) {
        if at_ms > *now_ms {
            self.victim.sleep(Duration::from_millis(at_ms - *now_ms)).await;
            *now_ms = at_ms;
        }
    }

    fn relieve_at(&mut self, at_ms: u64, relief: Relief) {
        self.reliefs.insert((at_ms, self.next_relief), relief);
        self.next_relief += 1;
    }

    fn strike(&mut self, scheduled: &ScheduledFault) {
        let fault = &scheduled.fault;
        let victim = self.victim;
        victim.note(&format!("{fault:?}"));
        *self.carried_out.entry(fault.kind()).or_default() += 1;
        // A kill and a restart at the same instant meet tasks that are not gone yet.
        let until_ms = scheduled.at_ms + fault.lasts_ms().max(2);
        match fault {
            Fault::Kill {
                node, disk, silent, ..
            } => {
                victim.kill(node, *disk, *silent);
                self.relieve_at(until_ms, Relief::Restart(vec![node.clone()]));
            }
            Fault::PowerLoss { disk, .. } => {
                let servers = victim.servers();
                for node in &servers {
                    victim.kill(node, *disk, true);
                }
                self.relieve_at(until_ms, Relief::Restart(servers));
            }
            Fault::Cut {
                from,
                to,
                both_ways,
                silence,
                ..
            } => {
                let mut links = vec![(from.clone(), to.clone())];
                if *both_ways {
                    links.push((to.clone(), from.clone()));
                }
                self.cut(links, *silence, until_ms);
            }
            Fault::Isolate { node, silence, .. } => {
                let links = links_between(std::slice::from_ref(node), &victim.nodes(), &[]);
                self.cut(links, *silence, until_ms);
            }
            Fault::Split {
                side,
                spared,
                silence,
                ..
            } => {
                let links = links_between(side, &victim.nodes(), spared);
                self.cut(links, *silence, until_ms);
            }
            Fault::SlowLink {
                one, other, delay_ms, ..
            } => {
                victim.slow_link(one, other, Duration::from_millis(*delay_ms));
                self.relieve_at(until_ms, Relief::FastLink(one.clone(), other.clone()));
            }
            Fault::SlowDisk { node, delay_ms, .. } => {
                victim.slow_disk(node, Duration::from_millis(*delay_ms));
                self.relieve_at(until_ms, Relief::FastDisk(node.clone()));
            }
            Fault::FullDisk { node, .. } => {
                victim.fill_disk(node, true);
                self.relieve_at(until_ms, Relief::RoomOnDisk(node.clone()));
            }
            Fault::SyncError { node } => victim.fail_next_sync(node),
            Fault::CrashInSync {
                node,
                after_syncs,
                down_ms,
                disk,
            } => victim.crash_in_sync(node, *after_syncs, Duration::from_millis(*down_ms), *disk),
            Fault::Pause { node, .. } => {
                victim.pause(node);
                self.relieve_at(until_ms, Relief::Resume(node.clone()));
            }
            Fault::Drain { node, .. } => {
                victim.drain(node, true);
                self.relieve_at(until_ms, Relief::Undrain(node.clone()));
            }
            Fault::ExpireSession { node } => victim.expire_session(node),
        }
    }

    fn cut(&mut self, links: Vec<(NodeName, NodeName)>, silence: CutSilence, until_ms: u64) {
        for (from, to) in &links {
            self.victim.cut(from, to, silence);
        }
        self.relieve_at(until_ms, Relief::Heal(links));
    }

    fn relieve(&self, relief: Relief) {
        let victim = self.victim;
        match relief {
            Relief::Restart(nodes) => nodes.iter().for_each(|node| victim.restart(node)),
            Relief::Heal(links) => links.iter().for_each(|(from, to)| victim.heal(from, to)),
            Relief::FastLink(one, other) => victim.slow_link(&one, &other, Duration::ZERO),
            Relief::RoomOnDisk(node) => victim.fill_disk(&node, false),
            Relief::FastDisk(node) => victim.slow_disk(&node, Duration::ZERO),
            Relief::Resume(node) => victim.resume(&node),
            Relief::Undrain(node) => victim.drain(&node, false),
        }
    }

    fn heal_everything(&mut self) {
        self.victim.note("everything heals");
        self.victim.disarm();
        for relief in std::mem::take(&mut self.reliefs).into_values() {
            self.relieve(relief);
        }
    }
}
/// Both directions between `side` and the other nodes, but for the links that are `spared`.
fn links_between(
    side: &[NodeName],
    nodes: &[NodeName],
    spared: &[(NodeName, NodeName)],
) -> Vec<(NodeName, NodeName)> {
    let mut links = Vec::new();
    for one in side {
        for other in nodes.iter().filter(|node| !side.contains(node)) {
            if !spared.contains(&(one.clone(), other.clone())) {
                links.push((one.clone(), other.clone()));
                links.push((other.clone(), one.clone()));
            }
        }
    }
    links
}
