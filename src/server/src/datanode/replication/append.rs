//! A primary's records: into the node's log, and from there into the logs of their shards.

use std::sync::Arc;

use neorunbase_protocol::message::ShardId;
use neorunbase_replication::LogPosition;
use neorunbase_storage::wal::{self, WalError, WalRecord};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::super::DataNode;
use super::super::durable_step::DurableStep;
use super::super::failure::Failure;
use super::replica::{Ending, Payload, PendingFrame, Waiting};
use super::step::LoggedStep;

/// What to do when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datanode) enum Room {
    /// Give up: `53100`.
    OrRefuse,
    /// Wait, because what is logged cannot be given up any more.
    OrWait,
}

/// One record on its way.
struct Appended {
    shard: ShardId,
    term: u64,
    payload: Payload,
}

impl DataNode {
    /// Writes one log frame and returns when it is committed and `step` has run. Happens even if the caller goes away.
    ///
    /// # Errors
    /// [`Failure::OutcomeUnknown`] if another primary will decide about some of it. After every other error but that of a
    /// failed node nothing is in the log.
    pub(in crate::datanode) async fn log(
        &self,
        records: Vec<WalRecord>,
        step: Box<dyn LoggedStep>,
        room: Room,
    ) -> Result<(), Failure> {
        self.check_healthy()?;
        let node = self.shared()?;
        let appended: Vec<_> = records
            .iter()
            .map(|record| Appended {
                shard: record.shard,
                term: record.term,
                payload: Payload(record.payload.clone()),
            })
            .collect();
        let (done, ending) = oneshot::channel();
        // Taken by the log's callback or, if nothing comes into the log, afterwards.
        let step = Arc::new(Mutex::new(Some(step)));
        let apply: wal::Apply = {
            let (node, step) = (node.clone(), step.clone());
            Box::new(move |logged| {
                if let Some(step) = step.lock().take() {
                    node.frame_is_durable(logged, appended, step, done);
                }
            })
        };
        let task = async move {
            let result = match room {
                Room::OrRefuse => node.wal.append(records, apply).await,
                Room::OrWait => {
                    let clock = node.world.clock.clone();
                    node.wal.append_when_room(&*clock, records, apply).await
                }
            };
            let failure = match result {
                Ok(_) => return Ok(()),
                Err(WalError::DiskFull { path, reason }) => node.disk_full(&path, &reason),
                Err(WalError::TermOver { shard, .. }) => Failure::StaleEpoch { shard, serving: None },
                Err(error) => {
                    node.log_failed(&error);
                    return Ok(());
                }
            };
            let step = step.lock().take();
            if let Some(step) = step {
                let _replicas = node.replicas.lock();
                step.refused(&node);
            }
            Err(failure)
        };
        DurableStep::new(self.world.spawner.clone(), task).await?;
        self.check_healthy()?;
        match self.or_failed(ending).await? {
            Ok(Ending::Committed) => Ok(()),
            Ok(Ending::Voided) | Err(_) => {
                self.check_healthy()?;
                Err(Failure::OutcomeUnknown)
            }
        }
    }

    /// In the log's callback.
    fn frame_is_durable(
        &self,
        logged: &wal::Logged,
        records: Vec<Appended>,
        step: Box<dyn LoggedStep>,
        done: oneshot::Sender<Ending>,
    ) {
        let mut replicas = self.replicas.lock();
        let mut frame = PendingFrame {
            positions: Vec::with_capacity(records.len()),
            missing: 0,
            is_voided: false,
            step,
            done,
        };
        let lsn = logged.lsn;
        for (record, sequence) in records.into_iter().zip(&logged.sequences) {
            let position = LogPosition {
                term: record.term,
                sequence: *sequence,
            };
            let replica = replicas.shards.get_mut(&record.shard);
            let Some(replica) = replica.filter(|replica| replica.is_primary_of(record.term)) else {
                frame.is_voided = true;
                frame.step.voided(self, record.shard);
                continue;
            };
            let Some(primary) = replica.primary_of(record.term) else {
                continue;
            };
            assert_eq!(
                primary.append(record.payload),
                position,
                "the node's log counts the records of shard {:#x} as the shard's log does",
                record.shard
            );
            primary.written(position);
            let followers: Vec<_> = primary.followers().map(str::to_owned).collect();
            replica.lsns.insert(position.sequence, lsn);
            let sequence = position.sequence;
            replica.waiting.push_back(Waiting { sequence, lsn });
            frame.positions.push((record.shard, position));
            frame.missing += 1;
            for follower in followers {
                replicas.send_later(&follower, [record.shard]);
            }
        }
        if frame.positions.is_empty() {
            // Whoever asked may have gone away.
            let _ = frame.done.send(Ending::Voided);
            return;
        }
        let shards: Vec<_> = frame.positions.iter().map(|(shard, _)| *shard).collect();
        replicas.frames.insert(lsn, frame);
        self.advance(&mut replicas, shards);
        if !replicas.unsent.is_empty() {
            self.unsent.notify_waiters();
        }
    }
}
