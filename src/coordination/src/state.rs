//! The tree of znodes with its sessions and watches, as a plain state machine: a request in, an answer and
//! effects out. It awaits nothing, reads no clock and draws no random number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use neorunbase_world::MonotonicTime;
use neorunbase_world::coordination::Version;
use serde::{Deserialize, Serialize};

use crate::message::{Answer, MAX_DATA_BYTES, NodeKind, Refusal, Request, SessionId, WatchKind};

/// How many sequence numbers a journal record reserves at once: ephemerals themselves are not journaled, and
/// a number must not be given out again after a restart.
const SEQUENCE_BLOCK: u64 = 64;

/// A change that must survive a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The persistent node at `path` was created or set.
    Put {
        /// Where.
        path: String,
        /// Its data now.
        data: Vec<u8>,
        /// Its version now.
        version: Version,
    },
    /// The persistent node at `path` was deleted.
    Removed {
        /// Where.
        path: String,
    },
    /// No sequence number below `next` may be given out under `path` after a restart.
    SequenceReserved {
        /// The parent.
        path: String,
        /// The first number not reserved.
        next: u64,
    },
}

/// A watch that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whom to tell.
    pub session: SessionId,
    /// About which node.
    pub path: String,
    /// Which of its watches.
    pub kind: WatchKind,
}

/// What a step did besides answering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// To be durable before anybody hears of the step.
    pub changes: Vec<Change>,
    /// To be delivered.
    pub notices: Vec<Notice>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    data: Vec<u8>,
    version: Version,
    ephemeral_owner: Option<SessionId>,
    next_sequence: u64,
    reserved_sequence: u64,
    children: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Session {
    timeout: Duration,
    /// `None` while the session is held open by an in-process connection.
    deadline: Option<MonotonicTime>,
    ephemerals: BTreeSet<String>,
    watches: BTreeSet<(String, WatchKind)>,
}

/// The whole service in memory.
#[derive(Clone, Debug)]
pub struct State {
    nodes: BTreeMap<String, Node>,
    sessions: BTreeMap<SessionId, Session>,
    watches: BTreeMap<(String, WatchKind), BTreeSet<SessionId>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::from([("/".to_owned(), Node::default())]),
            sessions: BTreeMap::new(),
            watches: BTreeMap::new(),
        }
    }
}

/// The parent of an absolute path other than `/`, and the last name.
fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => ("/", path),
    }
}

fn check_path(path: &str) -> Result<(), Refusal> {
    let well_formed = path == "/"
        || path.strip_prefix('/').is_some_and(|rest| {
            rest.split('/')
                .all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'))
        });
    if well_formed {
        Ok(())
    } else {
        Err(Refusal::Other(format!("malformed path {path:?}")))
    }
}

fn check_data(data: &[u8]) -> Result<(), Refusal> {
    if data.len() <= MAX_DATA_BYTES {
        Ok(())
    } else {
        Err(Refusal::Other(format!(
            "{} bytes are too many for one node (limit {MAX_DATA_BYTES})",
            data.len()
        )))
    }
}

impl State {
    /// The state that a journal's changes lead to.
    ///
    /// # Errors
    /// Words for a change that does not fit its predecessors: the journal is not one of ours.
    pub fn replay(changes: impl IntoIterator<Item = Change>) -> Result<Self, String> {
        let mut state = Self::default();
        for change in changes {
            state.replay_one(change)?;
        }
        for node in state.nodes.values_mut() {
            node.next_sequence = node.reserved_sequence;
        }
        Ok(state)
    }

    fn replay_one(&mut self, change: Change) -> Result<(), String> {
        match change {
            Change::Put { path, data, version } => {
                if !self.nodes.contains_key(&path) {
                    check_path(&path).map_err(|_| format!("malformed path {path:?}"))?;
                    let (parent, name) = split(&path);
                    let parent = self
                        .nodes
                        .get_mut(parent)
                        .ok_or_else(|| format!("{path} without its parent"))?;
                    parent.children.insert(name.to_owned());
                }
                let node = self.nodes.entry(path).or_default();
                node.data = data;
                node.version = version;
            }
            Change::Removed { path } => {
                if path == "/" || self.nodes.get(&path).is_none_or(|node| !node.children.is_empty()) {
                    return Err(format!("removal of {path}, which is missing or has children"));
                }
                self.unlink(&path);
            }
            Change::SequenceReserved { path, next } => {
                let node = self
                    .nodes
                    .get_mut(&path)
                    .ok_or_else(|| format!("sequence under missing {path}"))?;
                node.reserved_sequence = node.reserved_sequence.max(next);
            }
        }
        Ok(())
    }

    /// The changes that lead from nothing to the persistent part of this state.
    pub fn snapshot(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (path, node) in &self.nodes {
            if node.ephemeral_owner.is_some() {
                continue;
            }
            // The root exists without saying so, unless somebody has set its data.
            if path != "/" || node.version != 0 {
                changes.push(Change::Put {
                    path: path.clone(),
                    data: node.data.clone(),
                    version: node.version,
                });
            }
            if node.reserved_sequence > 0 {
                changes.push(Change::SequenceReserved {
                    path: path.clone(),
                    next: node.reserved_sequence,
                });
            }
        }
        changes
    }

    /// Opens a session that lives until it is silent for `timeout`.
    pub fn open_session(&mut self, session: SessionId, timeout: Duration, now: MonotonicTime) {
        let previous = self.sessions.insert(
            session,
            Session {
                timeout,
                deadline: Some(now.after(timeout)),
                ephemerals: BTreeSet::new(),
                watches: BTreeSet::new(),
            },
        );
        debug_assert!(previous.is_none(), "session ids are never used twice");
    }

    /// Whether `session` lives.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// The living sessions.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    /// `session` was heard of: its timeout starts anew (unless it is held open).
    pub fn touch(&mut self, session: SessionId, now: MonotonicTime) {
        if let Some(session) = self.sessions.get_mut(&session)
            && session.deadline.is_some()
        {
            session.deadline = Some(now.after(session.timeout));
        }
    }

    /// Keeps `session` alive until it is released.
    pub fn hold(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.deadline = None;
        }
    }

    /// The timeout of a held session starts to run.
    pub fn release(&mut self, session: SessionId, now: MonotonicTime) {
        if let Some(session) = self.sessions.get_mut(&session)
            && session.deadline.is_none()
        {
            session.deadline = Some(now.after(session.timeout));
        }
    }

    /// When the next session expires if nothing is heard.
    pub fn next_deadline(&self) -> Option<MonotonicTime> {
        self.sessions
            .values()
            .filter_map(|session| session.deadline)
            .min()
    }

    /// The sessions whose time has passed.
    pub fn overdue(&self, now: MonotonicTime) -> Vec<SessionId> {
        let overdue = |session: &Session| session.deadline.is_some_and(|deadline| deadline <= now);
        self.sessions
            .iter()
            .filter(|(_, session)| overdue(session))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Ends `session`: its ephemeral nodes and watches are gone. Nothing happens if it does not live.
    pub fn end_session(&mut self, session: SessionId, effects: &mut Effects) {
        self.forget_watches(session);
        let Some(ended) = self.sessions.remove(&session) else {
            return;
        };
        for path in ended.ephemerals {
            self.unlink(&path);
            self.notify_removed(&path, effects);
        }
    }

    /// Drops the watches of `session` without firing them: its client has lost the connection and fired them.
    pub fn forget_watches(&mut self, session: SessionId) {
        let Some(owner) = self.sessions.get_mut(&session) else {
            return;
        };
        for key in std::mem::take(&mut owner.watches) {
            if let Some(watchers) = self.watches.get_mut(&key) {
                watchers.remove(&session);
                if watchers.is_empty() {
                    self.watches.remove(&key);
                }
            }
        }
    }

    /// As [`forget_watches`](Self::forget_watches); returns them, for [`adopt_watches`](Self::adopt_watches).
    pub fn take_watches(&mut self, session: SessionId) -> BTreeSet<(String, WatchKind)> {
        let watches = self.sessions.get(&session).map(|owner| owner.watches.clone());
        self.forget_watches(session);
        watches.unwrap_or_default()
    }

    /// Watches for `session` what another server has watched for it. Both must be in the same state.
    pub fn adopt_watches(&mut self, session: SessionId, watches: BTreeSet<(String, WatchKind)>) {
        for (path, kind) in watches {
            self.watch(session, path, kind);
        }
    }

    /// Carries out `request` of a living session.
    ///
    /// # Errors
    /// [`Refusal`]; the tree is unchanged then.
    pub fn apply(
        &mut self,
        session: SessionId,
        request: Request,
        effects: &mut Effects,
    ) -> Result<Answer, Refusal> {
        match request {
            Request::Create { path, data, kind } => self.create(session, path, data, kind, effects),
            Request::Get { path, watch } => {
                check_path(&path)?;
                let found = self
                    .nodes
                    .get(&path)
                    .map(|node| (node.data.clone(), node.version));
                if watch {
                    self.watch(session, path, WatchKind::Data);
                }
                Ok(Answer::Data(found))
            }
            Request::Set { path, data, expected } => self.set(path, data, expected, effects),
            Request::Delete { path, expected } => self.delete(path, expected, effects),
            Request::Children { path, watch } => {
                check_path(&path)?;
                let Some(node) = self.nodes.get(&path) else {
                    return Err(Refusal::NoNode(path));
                };
                let names = node.children.iter().cloned().collect();
                if watch {
                    self.watch(session, path, WatchKind::Children);
                }
                Ok(Answer::Children(names))
            }
        }
    }

    fn create(
        &mut self,
        session: SessionId,
        mut path: String,
        data: Vec<u8>,
        kind: NodeKind,
        effects: &mut Effects,
    ) -> Result<Answer, Refusal> {
        check_path(&path)?;
        check_data(&data)?;
        if path == "/" {
            return Err(Refusal::NodeExists(path));
        }
        if kind != NodeKind::Persistent && !self.sessions.contains_key(&session) {
            return Err(Refusal::Other("the session does not live".to_owned()));
        }
        let parent_path = split(&path).0.to_owned();
        let Some(parent) = self.nodes.get_mut(&parent_path) else {
            return Err(Refusal::NoNode(parent_path));
        };
        if parent.ephemeral_owner.is_some() {
            return Err(Refusal::Other(format!(
                "{parent_path} is ephemeral and cannot have children"
            )));
        }
        if kind == NodeKind::EphemeralSequential {
            let sequence = parent.next_sequence;
            parent.next_sequence += 1;
            if parent.next_sequence > parent.reserved_sequence {
                parent.reserved_sequence = parent.next_sequence + SEQUENCE_BLOCK;
                effects.changes.push(Change::SequenceReserved {
                    path: parent_path.clone(),
                    next: parent.reserved_sequence,
                });
            }
            path = format!("{path}{sequence:010}");
        }
        if self.nodes.contains_key(&path) {
            return Err(Refusal::NodeExists(path));
        }
        let name = split(&path).1.to_owned();
        if let Some(parent) = self.nodes.get_mut(&parent_path) {
            parent.children.insert(name.clone());
        }
        let mut node = Node {
            data,
            ..Node::default()
        };
        if kind == NodeKind::Persistent {
            effects.changes.push(Change::Put {
                path: path.clone(),
                data: node.data.clone(),
                version: 0,
            });
        } else {
            node.ephemeral_owner = Some(session);
            if let Some(owner) = self.sessions.get_mut(&session) {
                owner.ephemerals.insert(path.clone());
            }
        }
        self.nodes.insert(path.clone(), node);
        self.fire(&path, WatchKind::Data, effects);
        self.fire(&parent_path, WatchKind::Children, effects);
        Ok(Answer::Created(name))
    }

    fn set(
        &mut self,
        path: String,
        data: Vec<u8>,
        expected: Version,
        effects: &mut Effects,
    ) -> Result<Answer, Refusal> {
        check_path(&path)?;
        check_data(&data)?;
        let Some(node) = self.nodes.get_mut(&path) else {
            return Err(Refusal::NoNode(path));
        };
        if node.version != expected {
            return Err(Refusal::BadVersion(path));
        }
        node.version = node.version.wrapping_add(1);
        node.data = data;
        let version = node.version;
        if node.ephemeral_owner.is_none() {
            effects.changes.push(Change::Put {
                path: path.clone(),
                data: node.data.clone(),
                version,
            });
        }
        self.fire(&path, WatchKind::Data, effects);
        Ok(Answer::Set(version))
    }

    fn delete(
        &mut self,
        path: String,
        expected: Option<Version>,
        effects: &mut Effects,
    ) -> Result<Answer, Refusal> {
        check_path(&path)?;
        if path == "/" {
            return Err(Refusal::Other("the root cannot be deleted".to_owned()));
        }
        let Some(node) = self.nodes.get(&path) else {
            return Err(Refusal::NoNode(path));
        };
        if expected.is_some_and(|expected| expected != node.version) {
            return Err(Refusal::BadVersion(path));
        }
        if !node.children.is_empty() {
            return Err(Refusal::NotEmpty(path));
        }
        match node.ephemeral_owner {
            None => effects.changes.push(Change::Removed { path: path.clone() }),
            Some(owner) => {
                if let Some(owner) = self.sessions.get_mut(&owner) {
                    owner.ephemerals.remove(&path);
                }
            }
        }
        self.unlink(&path);
        self.notify_removed(&path, effects);
        Ok(Answer::Deleted)
    }

    fn unlink(&mut self, path: &str) {
        self.nodes.remove(path);
        let (parent, name) = split(path);
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.children.remove(name);
        }
    }

    fn notify_removed(&mut self, path: &str, effects: &mut Effects) {
        self.fire(path, WatchKind::Data, effects);
        self.fire(path, WatchKind::Children, effects);
        self.fire(split(path).0, WatchKind::Children, effects);
    }

    fn watch(&mut self, session: SessionId, path: String, kind: WatchKind) {
        let Some(owner) = self.sessions.get_mut(&session) else {
            return;
        };
        owner.watches.insert((path.clone(), kind));
        self.watches.entry((path, kind)).or_default().insert(session);
    }

    fn fire(&mut self, path: &str, kind: WatchKind, effects: &mut Effects) {
        let key = (path.to_owned(), kind);
        for session in self.watches.remove(&key).unwrap_or_default() {
            if let Some(owner) = self.sessions.get_mut(&session) {
                owner.watches.remove(&key);
            }
            effects.notices.push(Notice {
                session,
                path: path.to_owned(),
                kind,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: MonotonicTime = MonotonicTime(0);
    const SECOND: Duration = Duration::from_secs(1);

    fn create(
        state: &mut State,
        session: u64,
        path: &str,
        kind: NodeKind,
    ) -> (Result<Answer, Refusal>, Effects) {
        let mut effects = Effects::default();
        let request = Request::Create {
            path: path.to_owned(),
            data: b"x".to_vec(),
            kind,
        };
        (state.apply(SessionId(session), request, &mut effects), effects)
    }

    fn with_sessions(count: u64) -> State {
        let mut state = State::default();
        for session in 1..=count {
            state.open_session(SessionId(session), SECOND, NOW);
        }
        state
    }

    #[test]
    fn sequence_numbers_are_not_reused_after_a_restart() {
        let mut state = with_sessions(1);
        let mut journal = Vec::new();
        journal.extend(create(&mut state, 1, "/queue", NodeKind::Persistent).1.changes);
        let mut last = String::new();
        for _ in 0..100 {
            let (answer, effects) = create(&mut state, 1, "/queue/n-", NodeKind::EphemeralSequential);
            let Ok(Answer::Created(name)) = answer else {
                panic!("{answer:?}")
            };
            assert!(name > last);
            last = name;
            journal.extend(effects.changes);
        }
        assert!(journal.len() < 10, "{} records for 100 ephemerals", journal.len());
        for changes in [journal, state.snapshot()] {
            let mut reopened = State::replay(changes).unwrap();
            reopened.open_session(SessionId(2), SECOND, NOW);
            let (answer, _) = create(&mut reopened, 2, "/queue/n-", NodeKind::EphemeralSequential);
            let Ok(Answer::Created(name)) = answer else {
                panic!("{answer:?}")
            };
            assert!(name > last);
        }
    }

    #[test]
    fn ended_session_takes_its_ephemerals_and_watches() {
        let mut state = with_sessions(2);
        create(&mut state, 1, "/a", NodeKind::Persistent).0.unwrap();
        create(&mut state, 1, "/a/e", NodeKind::Ephemeral).0.unwrap();
        let (refused, _) = create(&mut state, 2, "/a/e/child", NodeKind::Persistent);
        assert!(matches!(refused, Err(Refusal::Other(_))));
        let mut effects = Effects::default();
        for session in [SessionId(1), SessionId(2)] {
            let watch = Request::Children {
                path: "/a".to_owned(),
                watch: true,
            };
            state.apply(session, watch, &mut effects).unwrap();
        }
        assert_eq!(state.overdue(NOW.after(SECOND)).len(), 2);
        state.hold(SessionId(2));
        assert_eq!(state.overdue(NOW.after(SECOND)), [SessionId(1)]);
        state.end_session(SessionId(1), &mut effects);
        let notice = Notice {
            session: SessionId(2),
            path: "/a".to_owned(),
            kind: WatchKind::Children,
        };
        assert_eq!(
            effects,
            Effects {
                changes: Vec::new(),
                notices: vec![notice]
            }
        );
        assert!(state.watches.is_empty());
        assert_eq!(state.next_deadline(), None);
        state.release(SessionId(2), NOW);
        assert_eq!(state.next_deadline(), Some(NOW.after(SECOND)));
    }

    #[test]
    fn malformed_paths_are_refused() {
        let mut state = with_sessions(1);
        for path in ["", "a", "/a/", "//a", "/a//b", "/..", "/a/.", "/a\0"] {
            assert!(
                matches!(
                    create(&mut state, 1, path, NodeKind::Persistent).0,
                    Err(Refusal::Other(_))
                ),
                "{path}"
            );
        }
    }

    #[test]
    fn journal_of_another_shape_is_refused() {
        let orphan = Change::Put {
            path: "/a/b".to_owned(),
            data: Vec::new(),
            version: 0,
        };
        assert!(State::replay([orphan]).is_err());
        assert!(
            State::replay([Change::Removed {
                path: "/a".to_owned()
            }])
            .is_err()
        );
    }
}
