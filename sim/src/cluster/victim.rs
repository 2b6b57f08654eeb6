//! How the machines can be broken.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use madsim::runtime::Handle;
use neorunbase_coordination::{Lag, SessionId};
use neorunbase_fault_injection::{CutSilence, DiskCrash, Victim};
use neorunbase_replication::Configuration;
use neorunbase_storage::memory_engine::EnginesElsewhere;
use neorunbase_world::fault;
use tokio::sync::oneshot;

use super::{Cluster, Death, SHORTEST_DOWN_TIME};
use crate::configuration::COORDINATION;
use crate::trace::trace;
use crate::world::disk::OtherDisk;
use crate::world::now_nanos;

/// A process that was asked to shut down is killed if it has not within this.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// A rolling restart goes on with the next node if one is not back within this.
const START_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Where Data Nodes keep their logs.
const LOG_DIRECTORY: &str = "wal";

impl Cluster {
    /// The session of a node's present process, if there is one.
    fn session_of(&self, node: &str) -> Option<SessionId> {
        let session = self.machines.get(node)?.session.lock();
        session.as_ref()?.session_id()
    }

    /// One node of a rolling restart.
    async fn restart_in_turn(&self, node: &str, is_graceful: bool, down: Duration) {
        let Some(machine) = self.machines.get(node) else {
            return;
        };
        let stopper = machine.stopper.lock().take().filter(|_| is_graceful);
        if let Some(stopper) = stopper {
            let (told, stopped) = oneshot::channel();
            // It may have died just now.
            if stopper.send(told).is_ok() {
                let _ = madsim::time::timeout(SHUTDOWN_LIMIT, stopped).await;
            }
        }
        self.kill(node, DiskCrash::Kept, false);
        madsim::time::sleep(down.max(SHORTEST_DOWN_TIME)).await;
        self.restart(node);
        let back = async {
            while machine.stopper.lock().is_none() {
                madsim::time::sleep(POLL_INTERVAL).await;
            }
        };
        let _ = madsim::time::timeout(START_LIMIT, back).await;
    }

    /// Whether every shard that has a copy on `node` has another one in sync.
    async fn is_dispensable(&self, node: &str) -> bool {
        let Some(map) = self.shard_map().await else {
            return false;
        };
        map.values().all(|configuration| {
            let others = configuration.in_sync.iter().any(|member| member != node);
            others || !configuration.replicas.iter().any(|replica| replica == node)
        })
    }

    /// Whether nobody counts on what `node` held when it died, nor will by what it has sent before.
    async fn is_given_up(&self, node: &str) -> bool {
        let (dead_for, session) = match self.dead.lock().get(node) {
            Some(death) => (now_nanos() - death.at_nanos, death.session),
            None => return false,
        };
        // By then nothing that it has sent is on its way any more.
        let long = Duration::from_millis(self.configuration.topology().given_up_after_ms);
        let service = self.service.lock().clone();
        let Some(service) = service.filter(|_| Duration::from_nanos(dead_for) >= long) else {
            return false;
        };
        if let Some(session) = session {
            service.expire_session(session);
            service.sessions().await;
        }
        let map = self.shard_map().await;
        map.is_some_and(|map| {
            let counts = |configuration: &Configuration| {
                configuration.primary == node || configuration.is_in_sync(node)
            };
            !map.values().any(counts)
        })
    }

    async fn revive_later(&self, node: &str, is_replaced: bool) {
        let Some(machine) = self.machines.get(node) else {
            return;
        };
        if is_replaced && self.is_given_up(node).await {
            trace!(self.trace, "node {node} gets an empty disk");
            machine.disk.wipe();
            machine.engines.wipe();
        }
        self.dead.lock().remove(node);
        self.restart(node);
    }

    async fn replace_disk_while_down(&self, node: &str, down: Duration) {
        let Some(machine) = self.machines.get(node) else {
            return;
        };
        self.kill(node, DiskCrash::Kept, true);
        let incarnation = machine.disk.incarnation();
        madsim::time::sleep(down.max(SHORTEST_DOWN_TIME)).await;
        if !*machine.up.lock() && machine.disk.incarnation() == incarnation {
            trace!(self.trace, "node {node} gets an empty disk");
            let disk = machine.disk.put_in(OtherDisk::empty());
            let engines = machine.engines.put_in(EnginesElsewhere::default());
            *machine.disk_before.lock() = Some((disk, engines));
        }
        self.restart(node);
    }

    async fn rot_while_down(&self, node: &str, down: Duration) {
        let Some(machine) = self.machines.get(node) else {
            return;
        };
        let session = self.session_of(node);
        self.kill(node, DiskCrash::Kept, true);
        let incarnation = machine.disk.incarnation();
        madsim::time::sleep(down.max(SHORTEST_DOWN_TIME)).await;
        // Nothing that it has sent may still make it the only one in sync.
        let service = self.service.lock().clone();
        if let (Some(session), Some(service)) = (session, service) {
            service.expire_session(session);
            service.sessions().await;
            let is_dispensable = self.is_dispensable(node).await;
            let is_down = !*machine.up.lock() && machine.disk.incarnation() == incarnation;
            if is_dispensable && is_down {
                machine.disk.rot(LOG_DIRECTORY);
            }
        }
        self.restart(node);
    }
}

#[async_trait]
impl Victim for Cluster {
    async fn sleep(&self, duration: Duration) {
        madsim::time::sleep(duration).await;
    }

    fn servers(&self) -> Vec<String> {
        self.machines.keys().cloned().collect()
    }

    fn coordination(&self) -> Vec<String> {
        vec![COORDINATION.to_owned()]
    }

    fn nodes(&self) -> Vec<String> {
        let mut nodes = self.servers();
        nodes.extend(self.configuration.client_names());
        nodes
    }

    fn kill(&self, node: &str, disk: DiskCrash, silent: bool) {
        let Some(machine) = self.machines.get(node) else {
            return;
        };
        if !std::mem::take(&mut *machine.up.lock()) {
            return;
        }
        trace!(
            self.trace,
            "node {node} goes down, disk {disk:?}, silent {silent}"
        );
        *machine.session.lock() = None;
        *machine.stopper.lock() = None;
        if node == COORDINATION {
            *self.service.lock() = None;
        }
        self.fabric.node_down(node, silent);
        machine.disk.crash(disk);
        // An engine has no log: what it had not flushed lived in the process.
        machine.engines.crash_all();
        // The tasks of a paused node would be dropped right here, as if they were this task's.
        Handle::current().resume(machine.id);
        Handle::current().kill(machine.id);
    }

    fn die(&self, node: &str, disk: DiskCrash) {
        let death = Death {
            at_nanos: now_nanos(),
            session: self.session_of(node),
        };
        self.dead.lock().insert(node.to_owned(), death);
        self.kill(node, disk, true);
    }

    fn revive(&self, node: &str, is_replaced: bool) {
        let Some(cluster) = self.own.upgrade() else { return };
        let node = node.to_owned();
        madsim::task::spawn(async move { cluster.revive_later(&node, is_replaced).await });
    }

    fn restart(&self, node: &str) {
        let Some(machine) = self.machines.get(node) else {
            return;
        };
        if self.dead.lock().contains_key(node) {
            return;
        }
        let mut up = machine.up.lock();
        if *up {
            return;
        }
        *up = true;
        self.fabric.node_up(node);
        Handle::current().restart(machine.id);
    }

    fn cut(&self, from: &str, to: &str, silence: CutSilence) {
        self.fabric.cut(from, to, silence);
    }

    fn heal(&self, from: &str, to: &str) {
        self.fabric.heal(from, to);
    }

    fn slow_link(&self, one: &str, other: &str, delay: Duration) {
        self.fabric.slow_link(one, other, delay);
    }

    fn slow_disk(&self, node: &str, delay: Duration) {
        if let Some(machine) = self.machines.get(node) {
            machine.disk.set_extra_sync_delay(delay);
        }
    }

    fn fill_disk(&self, node: &str, is_full: bool) {
        if let Some(machine) = self.machines.get(node) {
            machine.disk.set_full(is_full);
        }
    }

    fn fail_next_sync(&self, node: &str) {
        if let Some(machine) = self.machines.get(node)
            && *machine.up.lock()
        {
            machine.disk.fail_next_sync();
        }
    }

    fn crash_in_sync(&self, node: &str, after_syncs: u32, down: Duration, disk: DiskCrash) {
        let (Some(machine), Some(cluster)) = (self.machines.get(node), self.own.upgrade()) else {
            return;
        };
        let tripped = machine.disk.arm_tripwire(after_syncs);
        let node = node.to_owned();
        madsim::task::spawn(async move {
            // An error: the crash was called off.
            if tripped.await.is_ok() {
                cluster.kill(&node, disk, true);
                madsim::time::sleep(down.max(SHORTEST_DOWN_TIME)).await;
                cluster.restart(&node);
            }
        });
    }

    fn disarm(&self) {
        self.is_called_off.store(true, Ordering::Relaxed);
        fault::turn_off_buggify();
        for machine in self.machines.values() {
            machine.disk.disarm_tripwire();
        }
    }

    fn pause(&self, node: &str) {
        if let Some(machine) = self.machines.get(node) {
            Handle::current().pause(machine.id);
        }
    }

    fn resume(&self, node: &str) {
        if let Some(machine) = self.machines.get(node) {
            Handle::current().resume(machine.id);
        }
    }

    fn drain(&self, node: &str, is_wanted: bool) {
        let Some(cluster) = self.own.upgrade() else { return };
        {
            let mut draining = self.draining.lock();
            if is_wanted {
                draining.insert(node.to_owned());
            } else {
                draining.remove(node);
            }
        }
        let node = node.to_owned();
        madsim::task::spawn(async move { cluster.command_drain(&node).await });
    }

    fn expire_session(&self, node: &str) {
        if let (Some(session), Some(service)) = (self.session_of(node), &*self.service.lock()) {
            service.expire_session(session);
        }
    }

    fn disconnect(&self, node: &str, is_kept_away: bool) {
        let session = if is_kept_away {
            self.session_of(node)
        } else {
            self.kept_away.lock().remove(node)
        };
        if let (Some(session), Some(service)) = (session, &*self.service.lock()) {
            service.set_disconnected(session, is_kept_away);
            if is_kept_away {
                self.kept_away.lock().insert(node.to_owned(), session);
            }
        }
    }

    fn lag(&self, node: &str, lag: Duration, is_stale: bool) {
        // A session that was opened since has another server.
        let before = self.lagging.lock().remove(node);
        if let (Some(session), Some(service)) = (before, &*self.service.lock()) {
            service.set_lag(session, None);
        }
        if let (Some(session), Some(service)) = (self.session_of(node), &*self.service.lock())
            && !lag.is_zero()
        {
            service.set_lag(session, Some(Lag { by: lag, is_stale }));
            self.lagging.lock().insert(node.to_owned(), session);
        }
    }

    fn lossy_link(&self, one: &str, other: &str, one_in: u32) {
        self.fabric.lossy_link(one, other, one_in);
    }

    fn reset_connections(&self, node: &str, connections: u32) {
        self.fabric.reset_connections(node, connections as usize);
    }

    fn rolling_restart(&self, nodes: &[String], is_graceful: bool, down: Duration) {
        let Some(cluster) = self.own.upgrade() else { return };
        // One after the other: not two of them at the same time either.
        if self.is_rolling.swap(true, Ordering::Relaxed) {
            return;
        }
        let nodes = nodes.to_vec();
        madsim::task::spawn(async move {
            for node in &nodes {
                if cluster.is_called_off.load(Ordering::Relaxed) {
                    break;
                }
                cluster.restart_in_turn(node, is_graceful, down).await;
            }
            cluster.is_rolling.store(false, Ordering::Relaxed);
        });
    }

    fn rot(&self, node: &str, down: Duration) {
        let Some(cluster) = self.own.upgrade() else { return };
        let node = node.to_owned();
        madsim::task::spawn(async move { cluster.rot_while_down(&node, down).await });
    }

    fn replace_disk(&self, node: &str, down: Duration) {
        let Some(cluster) = self.own.upgrade() else { return };
        let node = node.to_owned();
        madsim::task::spawn(async move { cluster.replace_disk_while_down(&node, down).await });
    }

    fn note(&self, what: &str) {
        trace!(self.trace, "fault {what}");
    }
}
