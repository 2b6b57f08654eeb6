//! Leader election over any coordination service.
//!
//! Candidates are ephemeral sequential nodes; the first in line increments a persistent epoch before it leads.
//! A session is only a hint: two processes may believe at the same time that they lead, but never in the same
//! epoch, and every resource refuses an older epoch than it has seen. That, not [`Leadership::lost`], is what
//! keeps a deposed leader from doing harm.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use neorunbase_world::clock::timeout;
use neorunbase_world::coordination::{CoordinationError, CreateMode, SessionState, ensure_path};
use neorunbase_world::{Clock, Coordination, Entropy, MonotonicTime};
use tokio::sync::watch;

const RETRY_PAUSE: Duration = Duration::from_millis(100);
const EPOCH_NODE: &str = "epoch";

/// A candidate for one office.
pub struct Election {
    coordination: Arc<dyn Coordination>,
    clock: Arc<dyn Clock>,
    path: String,
    candidate_name: String,
    candidate_data: Bytes,
    /// Tells this candidate's nodes from those of an earlier process of the same name, so that a node whose
    /// creation was not answered is found again.
    nonce: String,
    disconnected_grace: Duration,
}

/// The office, held in one epoch.
pub struct Leadership {
    /// Larger than that of every earlier leader.
    pub epoch: u64,
    coordination: Arc<dyn Coordination>,
    clock: Arc<dyn Clock>,
    candidate_path: String,
    session: watch::Receiver<SessionState>,
    disconnected_grace: Duration,
}

impl std::fmt::Debug for Leadership {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Leadership {{ epoch: {}, candidate: {} }}",
            self.epoch, self.candidate_path
        )
    }
}

struct Candidate<'a> {
    name: &'a str,
    nonce: &'a str,
    sequence: u64,
}

/// A candidate's node is named `<candidate name>-<16 hex digits of nonce>-<10 or more digits of sequence>`.
fn parse(node: &str) -> Option<Candidate<'_>> {
    let (rest, sequence) = node.rsplit_once('-')?;
    let (name, nonce) = rest.rsplit_once('-')?;
    Some(Candidate {
        name,
        nonce,
        sequence: sequence.parse().ok()?,
    })
}

fn in_line(nodes: &[String]) -> Vec<(u64, &str)> {
    let mut line: Vec<_> = nodes
        .iter()
        .filter_map(|node| Some((parse(node)?.sequence, node.as_str())))
        .collect();
    line.sort_unstable();
    line
}

fn parse_epoch(path: &str, data: &[u8]) -> Result<u64, CoordinationError> {
    let text = std::str::from_utf8(data).ok();
    let epoch = text.and_then(|text| text.split(' ').next()?.parse().ok());
    epoch.ok_or_else(|| CoordinationError::Other(format!("{path} does not hold an epoch")))
}

fn may_pass(error: &CoordinationError) -> bool {
    matches!(
        error,
        CoordinationError::ConnectionLost
            | CoordinationError::SessionExpired
            | CoordinationError::NoNode(_)
            | CoordinationError::BadVersion(_)
    )
}

impl Election {
    /// A candidate for the office at `path`. `candidate_name` must not contain `/`. `session_timeout` is that
    /// of `coordination`.
    pub fn new(
        coordination: Arc<dyn Coordination>,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
        session_timeout: Duration,
        path: &str,
        candidate_name: &str,
    ) -> Self {
        Self {
            coordination,
            clock,
            path: path.to_owned(),
            candidate_name: candidate_name.to_owned(),
            candidate_data: Bytes::new(),
            nonce: format!("{:016x}", entropy.next_u64()),
            // Clients notice a dead connection after half of the timeout at most; this adds a fifth, and the
            // rest is for clocks that run at different rates.
            disconnected_grace: session_timeout / 5,
        }
    }

    /// What [`current_leader`] tells others about this candidate, such as its address.
    #[must_use]
    pub fn with_data(mut self, data: Bytes) -> Self {
        self.candidate_data = data;
        self
    }

    /// Stands for election and returns once elected, however long that takes; lost connections and expired
    /// sessions are retried. Dropping the future leaves the candidate in line: call
    /// [`withdraw`](Election::withdraw) then, unless another campaign follows.
    ///
    /// # Errors
    /// What trying again would not mend.
    pub async fn campaign(&self) -> Result<Leadership, CoordinationError> {
        loop {
            match self.campaign_once().await {
                Ok(Some(leadership)) => return Ok(leadership),
                Ok(None) => {}
                Err(error) if may_pass(&error) => {
                    tracing::debug!(path = self.path, %error, "campaign starts again");
                }
                Err(error) => return Err(error),
            }
            self.clock.sleep(RETRY_PAUSE).await;
        }
    }

    /// Removes this candidate's nodes.
    ///
    /// # Errors
    /// `ConnectionLost`, `SessionExpired`; calling again is safe.
    pub async fn withdraw(&self) -> Result<(), CoordinationError> {
        let nodes = match self.coordination.children(&self.path).await {
            Err(CoordinationError::NoNode(_)) => return Ok(()),
            nodes => nodes?,
        };
        for node in nodes {
            if parse(&node).is_some_and(|candidate| candidate.nonce == self.nonce) {
                match self
                    .coordination
                    .delete(&format!("{}/{node}", self.path), None)
                    .await
                {
                    Ok(()) | Err(CoordinationError::NoNode(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// `None`: the candidate's node is gone, so it has to stand again.
    async fn campaign_once(&self) -> Result<Option<Leadership>, CoordinationError> {
        let coordination = &*self.coordination;
        // Seen before the candidate exists, so that any change of its session is noticed.
        let mut session = coordination.session();
        session.mark_unchanged();
        ensure_path(coordination, &self.path).await?;
        self.withdraw().await?;
        let prefix = format!("{}/{}-{}-", self.path, self.candidate_name, self.nonce);
        let node = coordination
            .create(
                &prefix,
                self.candidate_data.clone(),
                CreateMode::EphemeralSequential,
            )
            .await?;
        if !self.wait_for_turn(&node, &mut session).await? {
            return Ok(None);
        }
        let Some(epoch) = self.next_epoch(&node).await? else {
            return Ok(None);
        };
        Ok(Some(Leadership {
            epoch,
            coordination: self.coordination.clone(),
            clock: self.clock.clone(),
            candidate_path: format!("{}/{node}", self.path),
            session,
            disconnected_grace: self.disconnected_grace,
        }))
    }

    /// Whether `own` came first; `false` if it is gone.
    async fn wait_for_turn(
        &self,
        own: &str,
        session: &mut watch::Receiver<SessionState>,
    ) -> Result<bool, CoordinationError> {
        loop {
            let nodes = self.coordination.children(&self.path).await?;
            let line = in_line(&nodes);
            let Some(place) = line.iter().position(|(_, node)| *node == own) else {
                return Ok(false);
            };
            let Some((_, predecessor)) = place.checked_sub(1).and_then(|before| line.get(before)) else {
                return Ok(true);
            };
            // A node of its own, whose creation was not answered and which a server that lags did not show when it was to
            // be withdrawn: it would be waited for as long as the session lives.
            let is_own = |node: &str| parse(node).is_some_and(|candidate| candidate.nonce == self.nonce);
            if line[..place].iter().any(|(_, node)| is_own(node)) {
                return Ok(false);
            }
            // Only the one before is watched, so that a leader's death does not wake the whole line.
            let predecessor = format!("{}/{predecessor}", self.path);
            let (found, gone) = self.coordination.get_and_watch(&predecessor).await?;
            if found.is_some() {
                tokio::select! {
                    biased;
                    _ = gone => {}
                    _ = session.changed() => {}
                }
            }
        }
    }

    /// Increments the epoch; `None` if `own` is not first in line any more. The line is read between the epoch
    /// and its compare-and-set: whoever was elected since has moved the epoch, and the set fails.
    async fn next_epoch(&self, own: &str) -> Result<Option<u64>, CoordinationError> {
        let path = format!("{}/{EPOCH_NODE}", self.path);
        let (data, version) = loop {
            if let Some(found) = self.coordination.get(&path).await? {
                break found;
            }
            match self
                .coordination
                .create(&path, Bytes::from_static(b"0"), CreateMode::Persistent)
                .await
            {
                Ok(_) | Err(CoordinationError::NodeExists(_)) => {}
                Err(error) => return Err(error),
            }
        };
        let nodes = self.coordination.children(&self.path).await?;
        if in_line(&nodes).first().is_none_or(|(_, first)| *first != own) {
            return Ok(None);
        }
        let epoch = parse_epoch(&path, &data)? + 1;
        let claim = Bytes::from(format!("{epoch} {}", self.candidate_name));
        self.coordination.set(&path, claim, version).await?;
        Ok(Some(epoch))
    }
}

impl Leadership {
    /// Resolves when this process can no longer show that it leads: its session has expired, its node is
    /// gone, or it was out of touch for longer than its session is sure to last. May come late if this
    /// process is slow; the epoch has to fence what it does until then.
    pub async fn lost(&self) {
        let mut session = self.session.clone();
        let mut in_doubt_since: Option<MonotonicTime> = None;
        loop {
            let state = *session.borrow_and_update();
            if state == SessionState::Expired {
                return;
            }
            let now = self.clock.monotonic();
            if state == SessionState::Disconnected {
                in_doubt_since.get_or_insert(now);
            }
            let patience = in_doubt_since.map_or(self.disconnected_grace, |since| {
                self.disconnected_grace.saturating_sub(now.since(since))
            });
            if patience.is_zero() {
                return;
            }
            let looking = self.coordination.get_and_watch(&self.candidate_path);
            match timeout(&*self.clock, patience, looking).await {
                Ok(Ok((Some(_), changed))) => {
                    in_doubt_since = None;
                    tokio::select! {
                        biased;
                        _ = session.changed() => {}
                        _ = changed => {}
                    }
                }
                // A session of the same client that came after this one does not hold the office.
                Ok(Ok((None, _)) | Err(CoordinationError::SessionExpired)) => return,
                Ok(Err(_)) => {
                    in_doubt_since.get_or_insert(now);
                    tokio::select! {
                        biased;
                        _ = session.changed() => {}
                        () = self.clock.sleep(RETRY_PAUSE.min(patience)) => {}
                    }
                }
                Err(_elapsed) => {
                    in_doubt_since.get_or_insert(now);
                }
            }
        }
    }

    /// Gives the office up.
    ///
    /// # Errors
    /// `ConnectionLost`, `SessionExpired`: the office is free once the session has ended.
    pub async fn resign(self) -> Result<(), CoordinationError> {
        match self.coordination.delete(&self.candidate_path, None).await {
            Ok(()) | Err(CoordinationError::NoNode(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs `work` until it ends or the office is lost, whichever comes first (`None`).
    pub async fn while_held<F: Future>(&self, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.lost() => None,
            output = work => Some(output),
        }
    }
}

/// Name and data of the first candidate in line at `path`. A hint: it may not have taken office yet, or may
/// be dead already.
///
/// # Errors
/// `ConnectionLost`, `SessionExpired`.
pub async fn current_leader(
    coordination: &dyn Coordination,
    path: &str,
) -> Result<Option<(String, Bytes)>, CoordinationError> {
    loop {
        let nodes = match coordination.children(path).await {
            Err(CoordinationError::NoNode(_)) => return Ok(None),
            nodes => nodes?,
        };
        let line = in_line(&nodes);
        let Some((_, node)) = line.first() else {
            return Ok(None);
        };
        // Gone between the two reads: look again at who is first now.
        if let Some((data, _)) = coordination.get(&format!("{path}/{node}")).await? {
            let name = parse(node).map_or(*node, |candidate| candidate.name);
            return Ok(Some((name.to_owned(), data)));
        }
    }
}

/// The epoch of the last leader of the office at `path`; 0 if there was none.
///
/// # Errors
/// `ConnectionLost`, `SessionExpired`.
pub async fn current_epoch(coordination: &dyn Coordination, path: &str) -> Result<u64, CoordinationError> {
    let path = format!("{path}/{EPOCH_NODE}");
    match coordination.get(&path).await? {
        Some((data, _)) => parse_epoch(&path, &data),
        None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_ordered_by_number_not_by_name() {
        let nodes = [
            "zed-00000000000000aa-0000000001",
            "epoch",
            "a-b-00000000000000bb-0000000002",
        ];
        let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        let line: Vec<u64> = in_line(&nodes).iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(line, [1, 2]);
        assert_eq!(
            parse(&nodes[2]).map(|candidate| (candidate.name, candidate.nonce)),
            Some(("a-b", "00000000000000bb"))
        );
    }
}
