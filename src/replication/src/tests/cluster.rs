//! A model of everything around the state machines: disks, clocks, network, coordination service, Controller, clients.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use neorunbase_world::MonotonicTime;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::*;

/// A record is just its number; the state of a shard all records applied, in order.
type Record = u32;

impl crate::Record for Record {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

pub const TIMING: Timing = Timing {
    lease: Duration::from_millis(150),
    silence: Duration::from_millis(120),
    drift_percent: 10,
};

/// A promise that the driver breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    AnswersBeforeDurable,
    AcknowledgesAlone,
    PromotesAnybody,
    ForgetsBegunTerms,
    ShrinksUnasked,
    ClocksDriftTooFar,
    CopyMissesTail,
    HandsOverWhileReading,
}

#[derive(Clone, Default)]
struct State {
    position: LogPosition,
    records: Vec<Record>,
}

#[derive(Default)]
struct Disk {
    /// Entries as they were written; one may stand for another that was overwritten.
    written: Vec<Entry<Record>>,
    synced: usize,
    begun: u64,
    checkpoint: State,
}

enum Role {
    Follower(Follower<Record>),
    Primary(Primary<Record>),
}

impl Role {
    fn log(&self) -> &ShardLog<Record> {
        match self {
            Self::Follower(follower) => follower.log(),
            Self::Primary(primary) => primary.log(),
        }
    }

    fn log_mut(&mut self) -> &mut ShardLog<Record> {
        match self {
            Self::Follower(follower) => follower.log_mut(),
            Self::Primary(primary) => primary.log_mut(),
        }
    }
}

struct Node {
    name: String,
    offset_nanos: u64,
    /// Its clock's rate.
    percent: u64,
    disk: Disk,
    /// None: it is down.
    role: Option<Role>,
    applied: State,
    /// Answers that wait for what was written to be durable: to whom, for what, up to where.
    answers: Vec<(usize, Asked, u64)>,
    /// Records taken from clients in the present term and not yet acknowledged.
    pending: BTreeMap<u64, Record>,
}

impl Node {
    fn now(&self, nanos: u64) -> MonotonicTime {
        MonotonicTime(self.offset_nanos + nanos / 100 * self.percent)
    }
}

enum Message {
    Append(Asked, Append<Record>),
    Copy(Asked, State),
    Reply(Asked, Reply),
    /// A copy was taken over up to there.
    Copied(Asked, LogPosition),
    /// To the coordination service: a write on top of the epoch before.
    Write(Configuration),
}

struct Envelope {
    from: usize,
    to: usize,
    message: Message,
    /// Others overtake it for long.
    is_slow: bool,
}

pub struct Cluster {
    random: SmallRng,
    flaw: Option<Flaw>,
    nanos: u64,
    nodes: Vec<Node>,
    /// All configurations there were, the last one in force.
    configurations: Vec<Configuration>,
    network: Vec<Envelope>,
    /// Links that are cut.
    cut: BTreeSet<(usize, usize)>,
    /// Nodes that do not hear of configurations.
    deaf: BTreeSet<usize>,
    next_record: Record,
    /// The term in which each record was taken.
    taken: BTreeMap<Record, u64>,
    acknowledged: BTreeSet<Record>,
    /// A reader of a later term was shown that they are not there.
    lost: BTreeSet<Record>,
    /// Position of each entry that some node holds for committed.
    committed: BTreeMap<u64, LogPosition>,
    reads: u32,
}

impl Cluster {
    pub fn new(seed: u64, nodes: usize, flaw: Option<Flaw>) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let names: Vec<String> = (0..nodes).map(|number| format!("node-{number}")).collect();
        let configuration = Configuration::new(names.clone());
        let too_far = flaw == Some(Flaw::ClocksDriftTooFar);
        let nodes = names
            .into_iter()
            .map(|name| Node {
                offset_nanos: random.random_range(0..1_000_000_000_000),
                percent: if too_far {
                    [20, 100, 400][random.random_range(0..3)]
                } else {
                    random.random_range(96..=105)
                },
                disk: Disk::default(),
                role: Some(Role::Follower(Follower::new(
                    &name,
                    TIMING,
                    ShardLog::starting_at(LogPosition::default()),
                    0,
                ))),
                name,
                applied: State::default(),
                answers: Vec::new(),
                pending: BTreeMap::new(),
            })
            .collect();
        Self {
            random,
            flaw,
            nanos: 1_000_000_000,
            nodes,
            configurations: vec![configuration],
            network: Vec::new(),
            cut: BTreeSet::new(),
            deaf: BTreeSet::new(),
            next_record: 1,
            taken: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            lost: BTreeSet::new(),
            committed: BTreeMap::new(),
            reads: 0,
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn in_force(&self) -> &Configuration {
        &self.configurations[self.configurations.len() - 1]
    }

    fn number(&self, name: &str) -> usize {
        self.nodes
            .iter()
            .position(|node| node.name == name)
            .expect("a node of the cluster")
    }

    fn any_node(&mut self) -> usize {
        self.random.random_range(0..self.nodes.len())
    }

    /// Something happens somewhere.
    pub fn step(&mut self) -> Result<(), String> {
        self.nanos += self.random.random_range(0..2_000_000);
        let node = self.any_node();
        match self.random.random_range(0..1000) {
            0..350 => self.deliver(),
            350..500 => self.sync(node),
            500..650 => self.send(node),
            650..720 => self.propose(node),
            720..770 if !self.deaf.contains(&node) => self.read_configuration(node, true),
            720..770 => {}
            770..870 => {
                for _ in 0..self.random.random_range(1..4) {
                    self.client_writes(node);
                }
            }
            870..970 => self.client_reads(node)?,
            970..974 => {
                self.crash(node);
                if self.random.random_bool(0.5) {
                    self.restart(node);
                }
            }
            974..978 => self.restart(node),
            978..981 => self.promote(),
            981..982 => self.hand_over(node),
            982..985 => {
                self.deaf.insert(node);
            }
            985..988 => {
                self.deaf.pop_first();
            }
            988..991 => {
                let other = self.any_node();
                self.cut.insert((node, other));
            }
            991..996 => {
                self.cut.pop_first();
            }
            _ => self.checkpoint(node),
        }
        self.check()
    }

    fn post(&mut self, from: usize, to: usize, message: Message) {
        let is_slow = self.random.random_bool(0.05);
        self.network.push(Envelope {
            from,
            to,
            message,
            is_slow,
        });
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.network.len());
        if self.network[index].is_slow && self.random.random_bool(0.99) {
            return;
        }
        let Envelope {
            from, to, message, ..
        } = self.network.swap_remove(index);
        if self.cut.contains(&(from, to)) || self.random.random_bool(0.05) {
            return; // lost
        }
        match message {
            Message::Write(configuration) => {
                let in_force = self.in_force();
                if configuration.epoch == in_force.epoch + 1 {
                    self.configurations.push(configuration);
                }
            }
            Message::Append(asked, append) => self.receive(from, to, asked, append),
            Message::Copy(asked, state) => self.install(from, to, asked, state),
            Message::Reply(asked, reply) => self.replied(from, to, asked, reply),
            Message::Copied(asked, position) => {
                let name = self.nodes[from].name.clone();
                if let Some(Role::Primary(primary)) = &mut self.nodes[to].role
                    && primary.term() == asked.term
                {
                    primary.copied(&name, position);
                }
            }
        }
    }

    fn receive(&mut self, from: usize, to: usize, asked: Asked, append: Append<Record>) {
        let nanos = self.nanos;
        let early = self.has(Flaw::AnswersBeforeDurable);
        let node = &mut self.nodes[to];
        let now = node.now(nanos);
        // A primary that hears of a later one steps down when it has read the configuration; until then it refuses.
        let Some(Role::Follower(follower)) = &mut node.role else {
            return;
        };
        match follower.receive(append, now) {
            Received::Taken { write, up_to } => {
                node.disk.written.extend(write);
                node.answers.push((from, asked, up_to));
                if early {
                    for (from, asked, up_to) in std::mem::take(&mut node.answers) {
                        self.post(to, from, Message::Reply(asked, Reply::Matched { up_to }));
                    }
                }
            }
            Received::Refused(reply) => self.post(to, from, Message::Reply(asked, reply)),
            Received::Diverged(position) => panic!("{} diverged at {position:?}", node.name),
        }
    }

    fn install(&mut self, from: usize, to: usize, asked: Asked, state: State) {
        let node = &mut self.nodes[to];
        let Some(Role::Follower(follower)) = &mut node.role else {
            return;
        };
        let position = state.position;
        let Ok(is_useful) = follower.offered(asked.term, position) else {
            return;
        };
        if is_useful {
            follower.installed(position);
            node.disk.written.clear();
            node.disk.synced = 0;
            node.disk.checkpoint = state.clone();
            node.answers.clear();
            node.applied = state;
        }
        self.post(to, from, Message::Copied(asked, position));
    }

    fn replied(&mut self, from: usize, to: usize, asked: Asked, reply: Reply) {
        let name = self.nodes[from].name.clone();
        let node = &mut self.nodes[to];
        let Some(Role::Primary(primary)) = &mut node.role else {
            return;
        };
        if primary.replied(&name, asked, reply).is_err() && !self.deaf.contains(&to) {
            self.read_configuration(to, false);
        }
        self.apply(to);
    }

    fn sync(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let Some(role) = &mut node.role else { return };
        node.disk.synced = node.disk.written.len();
        if let Some(last) = node.disk.written.last() {
            match role {
                Role::Follower(follower) => follower.written(last.position),
                Role::Primary(primary) => {
                    primary.written(last.position);
                }
            }
        }
        let mut replies = Vec::new();
        if let Role::Follower(follower) = role {
            for (to, asked, up_to) in std::mem::take(&mut node.answers) {
                replies.push((to, asked, follower.matched(up_to)));
            }
        }
        for (to, asked, reply) in replies {
            self.post(number, to, Message::Reply(asked, reply));
        }
        self.apply(number);
    }

    /// Applies what is committed, and acknowledges it to clients.
    fn apply(&mut self, number: usize) {
        let alone = self.has(Flaw::AcknowledgesAlone);
        let node = &mut self.nodes[number];
        let Some(role) = &node.role else { return };
        let log = role.log();
        let up_to = match role {
            Role::Follower(follower) => follower.applicable(),
            Role::Primary(_) if alone => log.durable(),
            Role::Primary(primary) => primary.committed(),
        };
        while node.applied.position.sequence < up_to {
            let entry = log
                .get(node.applied.position.sequence + 1)
                .expect("kept until applied");
            node.applied.position = entry.position;
            node.applied.records.extend(entry.record);
            if let Some(record) = node.pending.remove(&entry.position.sequence) {
                assert_eq!(entry.record, Some(record), "the log of a primary does not change");
                self.acknowledged.insert(record);
            }
        }
    }

    fn send(&mut self, number: usize) {
        let most = self.random.random_range(0..5);
        let misses_tail = self.has(Flaw::CopyMissesTail);
        let nanos = self.nanos;
        let node = &mut self.nodes[number];
        let now = node.now(nanos);
        let Some(Role::Primary(primary)) = &mut node.role else {
            return;
        };
        let asked = Asked {
            term: primary.term(),
            at: now,
        };
        let followers: Vec<String> = primary.followers().map(str::to_owned).collect();
        let messages: Vec<_> = followers
            .into_iter()
            .filter_map(|follower| Some((primary.next(&follower, most, usize::MAX)?, follower)))
            .collect();
        let mut copy = node.applied.clone();
        if misses_tail {
            copy.records.pop();
        }
        for (next, follower) in messages {
            let to = self.number(&follower);
            let message = match next {
                Next::Append(append) => Message::Append(asked, append),
                Next::Copy => Message::Copy(asked, copy.clone()),
            };
            self.post(number, to, message);
        }
    }

    fn propose(&mut self, number: usize) {
        let unasked = self.has(Flaw::ShrinksUnasked);
        let nanos = self.nanos;
        let node = &mut self.nodes[number];
        let now = node.now(nanos);
        let Some(Role::Primary(primary)) = &mut node.role else {
            return;
        };
        if let Some(proposed) = primary.propose(now, true) {
            if unasked {
                let _ = primary.configured(proposed.clone(), now);
            }
            self.post(number, number, Message::Write(proposed));
        }
        self.apply(number);
    }

    /// A primary asks for another one, after it has stopped to be one.
    fn hand_over(&mut self, number: usize) {
        let goes_on = self.has(Flaw::HandsOverWhileReading);
        let node = &mut self.nodes[number];
        let Some(Role::Primary(primary)) = &node.role else {
            return;
        };
        let configuration = primary.configuration().clone();
        let Some(next) = configuration
            .in_sync
            .iter()
            .find(|member| **member != configuration.primary)
        else {
            return;
        };
        let proposed = configuration.handed_over(next).expect("it is in sync");
        if !goes_on && let Some(Role::Primary(primary)) = node.role.take() {
            node.pending.clear();
            node.role = Some(Role::Follower(primary.depose()));
        }
        self.post(number, number, Message::Write(proposed));
    }

    /// The node looks at the configuration. What it sees may be old.
    fn read_configuration(&mut self, number: usize, may_be_old: bool) {
        let newest = self.configurations.len() - 1;
        let mut index = newest;
        if may_be_old && self.random.random_bool(0.3) {
            index = newest.saturating_sub(self.random.random_range(0..4));
        }
        let seen = self.configurations[index].clone();
        let nanos = self.nanos;
        let node = &mut self.nodes[number];
        let now = node.now(nanos);
        let Some(role) = node.role.take() else { return };
        let mut write = None;
        node.role = Some(match role {
            Role::Primary(mut primary) => match primary.configured(seen, now) {
                Ok(_) => Role::Primary(primary),
                Err(_) => {
                    node.pending.clear();
                    Role::Follower(primary.depose())
                }
            },
            Role::Follower(mut follower) => {
                // What was read may be older than what a restart has forgotten.
                match follower.may_begin(&seen, now) {
                    Ok(()) => {
                        node.disk.begun = seen.term;
                        node.pending.clear();
                        node.answers.clear();
                        match follower.begin_term(seen, now) {
                            Ok(primary) => {
                                node.disk
                                    .written
                                    .extend(primary.log().get(primary.log().end().sequence).cloned());
                                Role::Primary(primary)
                            }
                            Err(refused) => Role::Follower(refused.0),
                        }
                    }
                    Err(NotYet::BegunBefore) => {
                        write = seen.promoted(&node.name);
                        Role::Follower(follower)
                    }
                    Err(_) => Role::Follower(follower),
                }
            }
        });
        if let Some(again) = write {
            self.post(number, number, Message::Write(again));
        }
        self.apply(number);
    }

    fn client_writes(&mut self, number: usize) {
        let record = self.next_record;
        let node = &mut self.nodes[number];
        let Some(Role::Primary(primary)) = &mut node.role else {
            return;
        };
        self.next_record += 1;
        let position = primary.append(record);
        self.taken.insert(record, position.term);
        node.disk
            .written
            .extend(primary.log().get(position.sequence).cloned());
        node.pending.insert(position.sequence, record);
    }

    fn client_reads(&mut self, number: usize) -> Result<(), String> {
        let node = &self.nodes[number];
        let Some(Role::Primary(primary)) = &node.role else {
            return Ok(());
        };
        let until = primary.readable_until();
        let now = node.now(self.nanos);
        assert_eq!(
            primary.may_read(now),
            until.is_some_and(|until| now < until),
            "two ways to say it"
        );
        if !primary.may_read(now) {
            return Ok(());
        }
        self.reads += 1;
        let seen: BTreeSet<Record> = node.applied.records.iter().copied().collect();
        let reader = format!("{} in term {}", node.name, primary.term());
        if let Some(missed) = self.acknowledged.difference(&seen).next() {
            return Err(format!(
                "{reader} read without record {missed}, which was acknowledged"
            ));
        }
        if let Some(risen) = self.lost.intersection(&seen).next() {
            return Err(format!(
                "{reader} read record {risen}, which was not there before"
            ));
        }
        let earlier = self.taken.iter().filter(|(_, term)| **term < primary.term());
        self.lost.extend(
            earlier
                .map(|(record, _)| *record)
                .filter(|record| !seen.contains(record)),
        );
        Ok(())
    }

    fn crash(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.role = None;
        node.answers.clear();
        node.pending.clear();
        // Of what was not synced, any beginning may be there.
        let kept = self
            .random
            .random_range(node.disk.synced..=node.disk.written.len());
        node.disk.written.truncate(kept);
        node.disk.synced = kept;
    }

    fn restart(&mut self, number: usize) {
        let forgets = self.has(Flaw::ForgetsBegunTerms);
        let nanos = self.nanos;
        let node = &mut self.nodes[number];
        if node.role.is_some() {
            return;
        }
        let now = node.now(nanos);
        let log = ShardLog::recovered(node.disk.checkpoint.position, node.disk.written.iter().cloned())
            .expect("a log without gaps");
        let begun = if forgets { 0 } else { node.disk.begun };
        node.applied = node.disk.checkpoint.clone();
        let follower = Follower::restarted(&node.name, TIMING, log, begun, now);
        node.role = Some(Role::Follower(follower));
    }

    /// The Controller takes the primary for dead, rightly or not.
    fn promote(&mut self) {
        let mut candidate = self.any_node();
        for _ in 0..3 {
            let in_force = self.in_force();
            let name = &self.nodes[candidate].name;
            if in_force.primary != *name && (in_force.is_in_sync(name) || self.has(Flaw::PromotesAnybody)) {
                break;
            }
            candidate = self.any_node();
        }
        let name = self.nodes[candidate].name.clone();
        let in_force = self.in_force();
        let next = if self.has(Flaw::PromotesAnybody) {
            let mut anybody = in_force.clone();
            if !anybody.is_in_sync(&name) {
                anybody.in_sync.push(name.clone());
            }
            anybody.promoted(&name)
        } else {
            in_force.promoted(&name)
        };
        if let Some(next) = next {
            self.post(candidate, candidate, Message::Write(next));
        }
    }

    fn checkpoint(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let Some(role) = &mut node.role else { return };
        node.disk.checkpoint = node.applied.clone();
        let sequence = node.applied.position.sequence;
        role.log_mut().forget_up_to(sequence);
    }

    /// What must hold between any two steps.
    fn check(&mut self) -> Result<(), String> {
        for node in &self.nodes {
            let Some(role) = &node.role else { continue };
            let log = role.log();
            for sequence in log.base().sequence.max(1)..=log.committed() {
                let Some(position) = log.position(sequence) else {
                    continue;
                };
                let known = *self.committed.entry(sequence).or_insert(position);
                if known != position {
                    return Err(format!(
                        "{} has {position:?} as committed, another node {known:?}",
                        node.name
                    ));
                }
            }
        }
        Ok(())
    }

    /// Everything works again, for long enough.
    pub fn heal_and_converge(&mut self) -> Result<(), String> {
        self.cut.clear();
        for round in 0..20_000_u32 {
            self.nanos += 2_000_000;
            let node = (round as usize) % self.nodes.len();
            self.restart(node);
            self.read_configuration(node, false);
            self.sync(node);
            if round % 7 == 0 {
                self.send(node);
                self.propose(node);
            }
            for _ in 0..4 {
                self.deliver();
            }
            self.client_reads(node)?;
            self.check()?;
            if self.is_whole() {
                return Ok(());
            }
        }
        Err(format!(
            "not whole again: {:?}, {} reads",
            self.in_force(),
            self.reads
        ))
    }

    /// Everybody is in sync and holds all that was acknowledged, and the primary can be read.
    fn is_whole(&self) -> bool {
        let all_in_sync = self.in_force().in_sync.len() == self.nodes.len();
        let primary = &self.nodes[self.number(&self.in_force().primary)];
        let serves = match &primary.role {
            Some(Role::Primary(role)) => {
                role.may_read(primary.now(self.nanos)) && role.term() == self.in_force().term
            }
            _ => false,
        };
        let same = self
            .nodes
            .iter()
            .all(|node| node.applied.records == primary.applied.records);
        let has_all = self
            .acknowledged
            .iter()
            .all(|record| primary.applied.records.contains(record));
        all_in_sync && serves && same && has_all
    }
}
