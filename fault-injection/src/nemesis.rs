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
    /// The nodes of the coordination service.
    fn coordination(&self) -> Vec<NodeName>;
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
    /// Forgets crashes and restarts that are still to come.
    fn disarm(&self);
    /// Stops a node's processor.
    fn pause(&self, node: &str);
    /// Lets it run on.
    fn resume(&self, node: &str);
    /// Sets whether a Data Node is to be emptied.
    fn drain(&self, node: &str, is_wanted: bool);
    /// Ends a node's session with the coordination service.
    fn expire_session(&self, node: &str);
    /// Takes a node down for good: only [`revive`](Self::revive) brings it up again.
    fn die(&self, node: &str, disk: DiskCrash);
    /// Brings a node that has died up again, with an empty disk if that is asked for and nothing is lost by it.
    fn revive(&self, node: &str, is_replaced: bool);
    /// Closes the connection of a node's session with the coordination service, and keeps it from coming back (or lets it).
    fn disconnect(&self, node: &str, is_kept_away: bool);
    /// Sets by how much a node's server of the coordination service is behind the others, and whether reads there wait until
    /// it has caught up or show the past.
    fn lag(&self, node: &str, lag: Duration, is_stale: bool);
    /// Sets how many deliveries between two nodes get lost at first: one in so many; 0: none.
    fn lossy_link(&self, one: &str, other: &str, one_in: u32);
    /// Resets up to so many connections of a node.
    fn reset_connections(&self, node: &str, connections: u32);
    /// Restarts servers one after the other, each when the one before is back.
    fn rolling_restart(&self, nodes: &[NodeName], is_graceful: bool, down: Duration);
    /// Takes a machine down, flips a bit of its log where that can be survived, and brings it up again later.
    fn rot(&self, node: &str, down: Duration);
    /// Takes a machine down, and brings it up again later with an empty disk.
    fn replace_disk(&self, node: &str, down: Duration);
    /// Writes down what was done.
    fn note(&self, what: &str);
}

/// What ends a fault, or is a later part of one.
#[derive(Debug)]
enum Relief {
    Restart(Vec<NodeName>),
    Revive(NodeName, bool),
    Heal(Vec<(NodeName, NodeName)>),
    FastLink(NodeName, NodeName),
    FastDisk(NodeName),
    RoomOnDisk(NodeName),
    Resume(NodeName),
    /// Not a relief: does not happen any more when everything heals.
    Cut(Vec<(NodeName, NodeName)>, CutSilence),
    /// Not a relief either.
    Disconnect(NodeName),
    Reconnect(NodeName),
    UpToDate(Vec<NodeName>),
    SoundLink(NodeName, NodeName),
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
        let at_ms = scheduled.at_ms;
        victim.note(&format!("{fault:?}"));
        *self.carried_out.entry(fault.kind()).or_default() += 1;
        // A kill and a restart at the same instant meet tasks that are not gone yet.
        let until_ms = at_ms + fault.lasts_ms().max(2);
        match fault {
            Fault::Kill {
                node, disk, silent, ..
            } => {
                victim.kill(node, *disk, *silent);
                self.relieve_at(until_ms, Relief::Restart(vec![node.clone()]));
            }
            Fault::LongDeath {
                node,
                disk,
                is_replaced,
                ..
            } => {
                victim.die(node, *disk);
                self.relieve_at(until_ms, Relief::Revive(node.clone(), *is_replaced));
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
            Fault::HungDisk { node, hangs_ms, .. } => {
                victim.slow_disk(node, Duration::from_millis(*hangs_ms));
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
            Fault::Disconnect {
                node,
                times,
                apart_ms,
                for_ms,
            } => {
                for time in 0..u64::from(*times) {
                    let begins_ms = at_ms + time * apart_ms;
                    self.relieve_at(begins_ms, Relief::Disconnect(node.clone()));
                    self.relieve_at(begins_ms + for_ms, Relief::Reconnect(node.clone()));
                }
            }
            Fault::Lag {
                node,
                lag_ms,
                is_stale,
                ..
            } => {
                victim.lag(node, Duration::from_millis(*lag_ms), *is_stale);
                self.relieve_at(until_ms, Relief::UpToDate(vec![node.clone()]));
            }
            Fault::Lonely {
                node,
                peers,
                blind,
                for_ms,
                silence,
            } => {
                self.blind(blind, *for_ms, until_ms);
                let others = peers.iter().cloned().chain(victim.coordination());
                let links = others.flat_map(|other| [(node.clone(), other.clone()), (other, node.clone())]);
                self.cut(links.collect(), *silence, until_ms);
            }
            Fault::Zombie { node, blind, for_ms } => {
                // What they know stays old for a little longer than the zombie sleeps.
                self.blind(blind, for_ms + 500, until_ms + 500);
                victim.pause(node);
                self.relieve_at(until_ms, Relief::Resume(node.clone()));
            }
            Fault::Swizzle { nodes, silence } => {
                for swizzled in nodes {
                    let links = links_between(std::slice::from_ref(&swizzled.node), &victim.nodes(), &[]);
                    self.relieve_at(at_ms + swizzled.from_ms, Relief::Cut(links.clone(), *silence));
                    self.relieve_at(at_ms + swizzled.until_ms, Relief::Heal(links));
                }
            }
            Fault::RollingRestart {
                nodes,
                is_graceful,
                down_ms,
            } => victim.rolling_restart(nodes, *is_graceful, Duration::from_millis(*down_ms)),
            Fault::BitRot { node, down_ms } => victim.rot(node, Duration::from_millis(*down_ms)),
            Fault::ReplacedDisk { node, down_ms } => {
                victim.replace_disk(node, Duration::from_millis(*down_ms));
            }
            Fault::LossyLink {
                one, other, one_in, ..
            } => {
                victim.lossy_link(one, other, *one_in);
                self.relieve_at(until_ms, Relief::SoundLink(one.clone(), other.clone()));
            }
            Fault::Reset { node, connections } => victim.reset_connections(node, *connections),
        }
    }

    /// What nodes know of the cluster stands still.
    fn blind(&mut self, nodes: &[NodeName], for_ms: u64, until_ms: u64) {
        for node in nodes {
            self.victim.lag(node, Duration::from_millis(for_ms), false);
        }
        if !nodes.is_empty() {
            self.relieve_at(until_ms, Relief::UpToDate(nodes.to_vec()));
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
            Relief::Revive(node, is_replaced) => victim.revive(&node, is_replaced),
            Relief::Heal(links) => links.iter().for_each(|(from, to)| victim.heal(from, to)),
            Relief::FastLink(one, other) => victim.slow_link(&one, &other, Duration::ZERO),
            Relief::RoomOnDisk(node) => victim.fill_disk(&node, false),
            Relief::FastDisk(node) => victim.slow_disk(&node, Duration::ZERO),
            Relief::Resume(node) => victim.resume(&node),
            Relief::Cut(links, silence) => {
                links.iter().for_each(|(from, to)| victim.cut(from, to, silence));
            }
            Relief::Disconnect(node) => victim.disconnect(&node, true),
            Relief::Reconnect(node) => victim.disconnect(&node, false),
            Relief::UpToDate(nodes) => nodes
                .iter()
                .for_each(|node| victim.lag(node, Duration::ZERO, false)),
            Relief::SoundLink(one, other) => victim.lossy_link(&one, &other, 0),
            Relief::Undrain(node) => victim.drain(&node, false),
        }
    }

    fn heal_everything(&mut self) {
        self.victim.note("everything heals");
        self.victim.disarm();
        for relief in std::mem::take(&mut self.reliefs).into_values() {
            if !matches!(relief, Relief::Cut(..) | Relief::Disconnect(_)) {
                self.relieve(relief);
            }
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
