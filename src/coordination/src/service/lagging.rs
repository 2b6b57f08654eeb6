//! A server of the service that lags, as a follower of ZooKeeper does behind its leader.
//!
//! It carries out the leader's transactions in their order, but late. What its session reads and watches comes from what
//! it has carried out. A write goes to the leader at once, and is answered when it comes by here: a session sees its own
//! writes, learns of a change by a watch before it can read it, and never goes back. A read waits in the same way, since
//! clients ask for a `sync` before it; but the leader that answers that may have been deposed without knowing it, and
//! then reads show the past. Calls of a session are carried out one after the other.

use std::collections::VecDeque;
use std::time::Duration;

use neorunbase_world::MonotonicTime;

use super::Core;
use crate::message::{Answer, Refusal, Request, ServerMessage, SessionId};
use crate::state::{Effects, State};

/// What the leader has done.
#[derive(Clone, Debug)]
pub(super) enum Transaction {
    Opened {
        session: SessionId,
        timeout: Duration,
    },
    Applied {
        session: SessionId,
        request: Request,
    },
    Ended(SessionId),
    /// A write that was refused, or a `sync`.
    Nothing,
}

type Outcome = Result<Answer, Refusal>;

/// How a server lags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// By how much.
    pub by: Duration,
    /// Whether reads do not wait: they show the past.
    pub is_stale: bool,
}

/// A call on the connection that it came by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub connection: u64,
    pub call: u64,
}

/// What the session is to be told when a transaction has come by.
pub(super) enum Due {
    Nothing,
    Answer(Caller, Outcome),
    Read(Caller, Request),
}

struct Coming {
    due: MonotonicTime,
    transaction: Transaction,
    answer: Due,
}

/// The server of one session.
pub(super) struct LaggingServer {
    state: State,
    lag: Lag,
    /// In the leader's order.
    coming: VecDeque<Coming>,
    /// Calls behind one of the session that has not come by.
    waiting: VecDeque<(Caller, Request)>,
    is_busy: bool,
}

impl LaggingServer {
    fn add(&mut self, transaction: Transaction, answer: Due, now: MonotonicTime) {
        let due = now.after(self.lag.by);
        let due = self.coming.back().map_or(due, |last| last.due.max(due));
        self.coming.push_back(Coming {
            due,
            transaction,
            answer,
        });
    }

    fn carry_out(&mut self, transaction: Transaction, now: MonotonicTime) -> Effects {
        let mut effects = Effects::default();
        match transaction {
            Transaction::Opened { session, timeout } => self.state.open_session(session, timeout, now),
            Transaction::Ended(session) => self.state.end_session(session, &mut effects),
            Transaction::Nothing => {}
            Transaction::Applied { session, request } => {
                let repeated = self.state.apply(session, request, &mut effects);
                debug_assert!(
                    repeated.is_ok(),
                    "servers agree on every transaction: {repeated:?}"
                );
            }
        }
        effects
    }
}

impl Core {
    /// Lets the server of `session` lag from now on, or catch up.
    pub(super) fn set_lag(&mut self, session: SessionId, lag: Option<Lag>, now: MonotonicTime) {
        match lag {
            Some(_) if !self.state.has_session(session) => {}
            Some(lag) => {
                let state = &mut self.state;
                let server = self.lagging.entry(session).or_insert_with(|| {
                    let copy = state.clone();
                    state.forget_watches(session);
                    LaggingServer {
                        state: copy,
                        lag,
                        coming: VecDeque::new(),
                        waiting: VecDeque::new(),
                        is_busy: false,
                    }
                });
                server.lag = lag;
            }
            None => {
                while self.bring_by(session, MonotonicTime(u64::MAX), now) {}
                if let Some(mut server) = self.lagging.remove(&session) {
                    self.state
                        .adopt_watches(session, server.state.take_watches(session));
                }
            }
        }
    }

    /// When the next transaction comes by a server that lags.
    pub(super) fn next_due(&self) -> Option<MonotonicTime> {
        let next = |server: &LaggingServer| server.coming.front().map(|coming| coming.due);
        self.lagging.values().filter_map(next).min()
    }

    /// Tells all servers that lag of what the leader has done. `answer`: for whom it was done, and the outcome.
    pub(super) fn tell_lagging(
        &mut self,
        transaction: &Transaction,
        answer: Option<(SessionId, Caller, Outcome)>,
        now: MonotonicTime,
    ) {
        for (session, server) in &mut self.lagging {
            let own = answer.as_ref().filter(|(caller, ..)| caller == session);
            let answer = own.map_or(Due::Nothing, |(_, caller, outcome)| {
                Due::Answer(*caller, outcome.clone())
            });
            server.add(transaction.clone(), answer, now);
        }
    }

    /// A call of a session whose server lags.
    pub(super) fn call_lagging(
        &mut self,
        session: SessionId,
        caller: Caller,
        request: Request,
        now: MonotonicTime,
    ) {
        if let Some(server) = self.lagging.get_mut(&session) {
            server.waiting.push_back((caller, request));
        }
        self.serve_waiting(session, now);
    }

    fn serve_waiting(&mut self, session: SessionId, now: MonotonicTime) {
        while let Some(server) = self.lagging.get_mut(&session)
            && !server.is_busy
            && let Some((caller, request)) = server.waiting.pop_front()
        {
            if request.is_read() && server.lag.is_stale {
                let result = server.state.apply(session, request, &mut Effects::default());
                self.answer(caller, result);
                continue;
            }
            server.is_busy = true;
            if request.is_read() {
                server.add(Transaction::Nothing, Due::Read(caller, request), now);
            } else {
                self.write(session, caller, request, now);
            }
        }
    }

    /// Carries out at servers that lag what is due there.
    pub(super) fn catch_up(&mut self, now: MonotonicTime) {
        let sessions: Vec<SessionId> = self.lagging.keys().copied().collect();
        for session in sessions {
            while self.bring_by(session, now, now) {}
        }
    }

    /// Carries out the next transaction at the server of `session` if it is due by `limit`; `false`: there is none.
    fn bring_by(&mut self, session: SessionId, limit: MonotonicTime, now: MonotonicTime) -> bool {
        let Some(server) = self.lagging.get_mut(&session) else {
            return false;
        };
        let Some(coming) = server.coming.pop_front_if(|coming| coming.due <= limit) else {
            return false;
        };
        let effects = server.carry_out(coming.transaction, now);
        let answer = match coming.answer {
            Due::Nothing => None,
            Due::Answer(caller, outcome) => Some((caller, outcome)),
            Due::Read(caller, request) => {
                let outcome = server.state.apply(session, request, &mut Effects::default());
                Some((caller, outcome))
            }
        };
        server.is_busy &= answer.is_none();
        let attached = self.attached.get(&session).copied();
        // Of the others' watches others know. Watches come before the answer.
        let own = effects
            .notices
            .into_iter()
            .filter(|notice| notice.session == session);
        for notice in own {
            if let Some(connection) = attached {
                let message = ServerMessage::Watch {
                    path: notice.path,
                    kind: notice.kind,
                };
                self.send(connection, message);
            }
        }
        if let Some((caller, outcome)) = answer {
            self.answer(caller, outcome);
            self.serve_waiting(session, now);
        }
        true
    }

    /// The session's connection is gone, and with it what was asked over it.
    pub(super) fn forget_lagging_calls(&mut self, session: SessionId) {
        if let Some(server) = self.lagging.get_mut(&session) {
            server.waiting.clear();
            // A read that is under way must leave no watch either.
            for coming in &mut server.coming {
                if let Due::Read(caller, _) = coming.answer {
                    coming.answer = Due::Answer(caller, Ok(Answer::Data(None)));
                }
            }
            server.state.forget_watches(session);
        }
    }
}
