//! How a Coordinator follows the leader's catalog.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use neorunbase_catalog::CatalogSnapshot;
use neorunbase_protocol::coordinate::{AcceptCatalog, CatalogReply, JoinCatalog, PublishCatalog};
use neorunbase_protocol::message::{RequestBody, ResponseBody};
use neorunbase_types::{Result, SqlError, SqlState};
use neorunbase_world::MonotonicTime;
use neorunbase_world::clock::timeout;
use neorunbase_world::fault::planted;

use super::super::oracle::DRIFT_PERCENT;
use super::super::table_holds::TableHolds;
use super::store::AcceptedCatalog;
use super::{CATALOG_LEASE, MetadataStore, not_leader, store_failed};

/// How often a follower shows that it is there.
const JOIN_INTERVAL: Duration = Duration::from_millis(300);
const JOIN_LIMIT: Duration = Duration::from_secs(2);

fn old_term() -> Box<SqlError> {
    SqlError::new(
        SqlState::CANNOT_CONNECT_NOW,
        "a later leader of the catalog is known",
    )
}

fn decode(encoded: &[u8]) -> Result<Arc<CatalogSnapshot>> {
    let snapshot = postcard::from_bytes(encoded)
        .map_err(|error| SqlError::internal(format!("unreadable catalog: {error}")))?;
    Ok(Arc::new(snapshot))
}

impl MetadataStore {
    /// Keeps a version of the leader's, unseen.
    ///
    /// # Errors
    /// `57P03` if the sender is not the latest leader known; `58030` if the store fails.
    pub async fn accept(&self, request: &AcceptCatalog) -> Result<()> {
        let snapshot = decode(&request.snapshot)?;
        let mut office = self.office.lock().await;
        self.check_term(request.term)?;
        if office.is_some() {
            // Somebody else leads a later term.
            self.step_down(&mut office);
        }
        let term = request.term;
        self.keep(AcceptedCatalog { term, snapshot }).await
    }

    fn check_term(&self, term: u64) -> Result<()> {
        let least_term = self.least_term.load(Ordering::SeqCst);
        let is_old = term < least_term || (self.leading() == Some(term));
        if is_old && !planted("old-catalog-accepted") {
            return Err(old_term());
        }
        Ok(())
    }

    /// To be called with the office locked.
    async fn keep(&self, next: AcceptedCatalog) -> Result<()> {
        let known = self.store.accepted().position();
        if next.position() == known {
            return Ok(());
        }
        if next.position() < known {
            return Err(old_term());
        }
        self.least_term.fetch_max(next.term, Ordering::SeqCst);
        self.store.accept(next).await.map(drop).map_err(store_failed)
    }

    /// Shows sessions a version that was accepted.
    ///
    /// # Errors
    /// `57P03` if this Coordinator does not have it.
    pub async fn publish_accepted(&self, request: &PublishCatalog) -> Result<()> {
        let _office = self.office.lock().await;
        let accepted = self.store.accepted();
        if accepted.position() != (request.term, request.version) {
            return Err(old_term());
        }
        self.publish(accepted.snapshot);
        Ok(())
    }

    /// Asks the leader again and again, while this Coordinator does not lead itself, for what it lacks, and to be counted
    /// on. What the leader says of its definitions goes to `holds`.
    pub async fn follow(&self, holds: &TableHolds) {
        loop {
            let mut goes_on = false;
            if self.leading().is_none() {
                match timeout(&*self.world.clock, JOIN_LIMIT, self.ask_to_join(holds)).await {
                    Ok(Ok(progress)) => goes_on = progress,
                    Ok(Err(error)) => tracing::debug!(%error, "cannot follow the leader"),
                    Err(_) => tracing::debug!("the leader does not answer"),
                }
            }
            if !goes_on {
                self.world.clock.sleep(JOIN_INTERVAL).await;
            }
        }
    }

    /// Whether there was something new.
    async fn ask_to_join(&self, holds: &TableHolds) -> Result<bool> {
        let leader = self.peers.leader().ok_or_else(not_leader)?;
        let (term, version) = self.store.accepted().position();
        let asked = self.world.clock.monotonic();
        let request = RequestBody::JoinCatalog(JoinCatalog {
            name: self.name.clone(),
            term,
            version,
        });
        let answer = leader.call(request.into()).await;
        let answer =
            answer.map_err(|error| SqlError::new(SqlState::CONNECTION_FAILURE, error.to_string()))?;
        match answer.body {
            Some(ResponseBody::Catalog(reply)) => {
                if let Some(live) = &reply.live {
                    holds.keep_live(reply.term, &live.definitions, asked);
                }
                self.take_reply(reply, (term, version), asked).await
            }
            Some(ResponseBody::Error(error)) => {
                Err(SqlError::new(SqlState::CANNOT_CONNECT_NOW, error.message))
            }
            _ => Err(not_leader()),
        }
    }

    async fn take_reply(
        &self,
        reply: CatalogReply,
        asked_with: (u64, u64),
        asked: MonotonicTime,
    ) -> Result<bool> {
        let _office = self.office.lock().await;
        if self.leading().is_some() {
            return Ok(false);
        }
        self.check_term(reply.term)?;
        if reply.snapshot.is_empty() {
            // The leader has published just what this one has accepted.
            let accepted = self.store.accepted();
            if accepted.position() == asked_with {
                self.publish(accepted.snapshot);
                // A version that was accepted meanwhile is published before it is acknowledged, so this holds for it, too.
            }
            if reply.in_sync {
                let until = asked.after(CATALOG_LEASE * 100 / (100 + DRIFT_PERCENT));
                self.current_until.fetch_max(until.0, Ordering::SeqCst);
            }
            return Ok(false);
        }
        let snapshot = decode(&reply.snapshot)?;
        let term = reply.term;
        self.keep(AcceptedCatalog {
            term,
            snapshot: snapshot.clone(),
        })
        .await?;
        self.publish(snapshot);
        Ok(true)
    }
}
