//! The catalog, replicated: the leader's changes are durable on every Coordinator in sync before anybody sees them.
//!
//! Each version of the catalog is sent whole. A change is *accepted* (durably) by all in the in-sync set, or the set
//! shrinks first; then it is *published*. Only a member of the set may lead next, and it begins by having its own last
//! accepted version accepted by the others, so that no acknowledged definition is lost and none that was seen
//! disappears (docs/decisions/catalog-replication.md).
//!
//! Sessions see the catalog only while it is certain to be the latest: the leader while its oracle has a lease, a
//! follower while it has one of the leader's, which is waited for before a change is acknowledged without it.

mod configuration;
mod follow;
mod store;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use neorunbase_catalog::CatalogSnapshot;
use neorunbase_protocol::coordinate::{AcceptCatalog, CatalogReply, JoinCatalog, PublishCatalog};
use neorunbase_protocol::message::{RequestBody, ResponseBody};
use neorunbase_types::{Result, SqlError, SqlState};
use neorunbase_world::World;
use neorunbase_world::clock::timeout;
use neorunbase_world::coordination::{CoordinationError, Version};
use neorunbase_world::fault::{buggify, dawdle, planted};
use neorunbase_world::shard_engine::{EngineError, EngineKey};
use parking_lot::RwLock;
use tokio::sync::{Mutex, oneshot, watch};

use super::oracle::{self, Oracle};
use crate::cluster::{CoordinatorDirectory, paths};
use configuration::CatalogConfiguration;
use store::{AcceptedCatalog, CatalogStore, encode};

/// A follower that does not answer for so long leaves the in-sync set.
const FOLLOWER_LIMIT: Duration = Duration::from_millis(1_000);
/// The leader tries for so long to change the in-sync set.
const CONFIGURATION_LIMIT: Duration = Duration::from_secs(10);
/// How long a follower may take its catalog for the latest after it asked the leader.
const CATALOG_LEASE: Duration = Duration::from_millis(1_500);
/// A statement waits so long for a catalog that is certain to be the latest.
const CURRENT_LIMIT: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Why a Coordinator does not lead the catalog.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// It lacks acknowledged changes: another one has to lead.
    #[error("this coordinator is not in the catalog's in-sync set")]
    NotInSync,
    /// Another one has taken over.
    #[error("another coordinator leads the catalog")]
    Deposed,
    /// The coordination service.
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    /// Its own disk.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The process.
    #[error("this coordinator is being ended")]
    Ending,
}

/// The leader's office.
struct Office {
    /// Who led before, in case that this leader has not begun yet.
    predecessor: Option<String>,
    configuration: CatalogConfiguration,
    version: Version,
}

/// The catalog of one Coordinator.
pub struct MetadataStore {
    world: World,
    name: String,
    peers: Arc<CoordinatorDirectory>,
    store: CatalogStore,
    /// What sessions see.
    current: RwLock<Arc<CatalogSnapshot>>,
    /// Whether sessions may see it: it was published to this process.
    is_published: watch::Sender<bool>,
    /// One change at a time; here, if this Coordinator leads.
    office: Arc<Mutex<Option<Office>>>,
    /// The term in which this Coordinator leads; 0: it does not.
    leading: watch::Sender<u64>,
    /// Versions of older terms are not accepted.
    least_term: AtomicU64,
    /// While this Coordinator follows: until when (monotonic nanoseconds) its catalog is certain to be the latest.
    current_until: AtomicU64,
    /// While it leads: the oracle's lease tells.
    oracle: Arc<Oracle>,
    shared: Weak<MetadataStore>,
}

impl MetadataStore {
    /// Opens (or creates) the store in `directory`. Nothing of it may be seen before this Coordinator leads or follows.
    ///
    /// # Errors
    /// [`EngineError`], such as a wrong key.
    pub async fn open(
        world: &World,
        name: &str,
        peers: Arc<CoordinatorDirectory>,
        oracle: Arc<Oracle>,
        directory: &str,
        key: &EngineKey,
    ) -> Result<Arc<Self>, EngineError> {
        let store = CatalogStore::open(world, directory, key).await?;
        let accepted = store.accepted();
        Ok(Arc::new_cyclic(|shared| Self {
            world: world.clone(),
            name: name.to_owned(),
            peers,
            store,
            current: RwLock::new(Arc::new(CatalogSnapshot::new())),
            is_published: watch::Sender::new(false),
            office: Arc::default(),
            leading: watch::Sender::new(0),
            least_term: AtomicU64::new(accepted.term),
            current_until: AtomicU64::new(0),
            oracle,
            shared: shared.clone(),
        }))
    }

    /// The catalog as it is now.
    pub fn snapshot(&self) -> Arc<CatalogSnapshot> {
        self.current.read().clone()
    }

    /// Whether no definition can have been acknowledged that is not in [`snapshot`](Self::snapshot).
    pub fn is_current(&self) -> bool {
        if planted("catalog-outlives-lease") {
            return true;
        }
        if self.leading().is_some() {
            return self.oracle.has_lease();
        }
        self.world.clock.monotonic().0 < self.current_until.load(Ordering::SeqCst)
    }

    /// Returns once the catalog is certain to be the latest.
    ///
    /// # Errors
    /// `57P03` if that takes too long.
    pub async fn current(&self) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        neorunbase_world::sometimes!("statement-waits-for-the-latest-catalog");
        let joined = timeout(&*self.world.clock, CURRENT_LIMIT, self.joined()).await;
        joined.map_err(|_elapsed| {
            SqlError::new(
                SqlState::CANNOT_CONNECT_NOW,
                "this coordinator is out of touch with the leader of the coordinators",
            )
            .with_hint("try again, or connect to another coordinator")
        })
    }

    /// Returns once there is a catalog to see.
    pub async fn published(&self) {
        let mut published = self.is_published.subscribe();
        // The sender lives as long as `self`.
        let _ = published.wait_for(|published| *published).await;
    }

    /// Returns once this Coordinator leads, or is in sync with the one that does.
    pub async fn joined(&self) {
        while !self.is_current() {
            self.world.clock.sleep(RETRY_PAUSE).await;
        }
    }

    /// The term in which this Coordinator leads; `None`: another one does.
    pub fn leading(&self) -> Option<u64> {
        let term = *self.leading.borrow();
        (term != 0).then_some(term)
    }

    /// The term in which this Coordinator leads.
    ///
    /// # Errors
    /// `57P03` if it does not.
    pub fn check_leading(&self) -> Result<u64> {
        self.leading().ok_or_else(not_leader)
    }

    /// Returns once sessions see `version` or a later one.
    pub async fn seen(&self, version: u64) {
        let mut published = self.is_published.subscribe();
        while self.snapshot().version < version {
            // The sender lives as long as `self`.
            if published.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns when this Coordinator does not lead (any more).
    pub async fn not_leading(&self) {
        let mut leading = self.leading.subscribe();
        // The sender lives as long as `self`.
        let _ = leading.wait_for(|term| *term == 0).await;
    }

    fn step_down(&self, office: &mut Option<Office>) {
        *office = None;
        self.leading.send_replace(0);
    }

    fn publish(&self, snapshot: Arc<CatalogSnapshot>) {
        let mut current = self.current.write();
        // A reader that was told of a version must never see an older one again.
        if snapshot.version >= current.version {
            *current = snapshot;
        }
        drop(current);
        self.is_published.send_replace(true);
    }

    /// Takes the office over, if this Coordinator has every acknowledged change: nobody who led before can acknowledge
    /// another one. [`begin`](Self::begin) has to follow.
    ///
    /// # Errors
    /// [`LeadError`].
    pub async fn take_office(&self) -> Result<(), LeadError> {
        let mut office = self.office.lock().await;
        self.step_down(&mut office);
        let coordination = &*self.world.coordination;
        let found = CatalogConfiguration::read(coordination).await?;
        // Whatever it is said to have: a new disk has nothing of it.
        if self.store.is_new() && !coordination.children(paths::GROUPS).await?.is_empty() {
            tracing::warn!(
                coordinator = self.name,
                "this coordinator has no catalog, and the cluster has tables: another coordinator has to lead"
            );
            return Err(LeadError::NotInSync);
        }
        let (last_term, mut in_sync, predecessor, expected) = match found {
            // A cluster without this znode is new, or its only Coordinator ran before there was one.
            None => (self.store.accepted().term, BTreeSet::new(), None, None),
            Some((found, version)) => {
                if !found.in_sync.contains(&self.name) && !planted("catalog-led-from-outside") {
                    neorunbase_world::sometimes!("catalog-refused-to-an-outsider");
                    return Err(LeadError::NotInSync);
                }
                (found.term, found.in_sync, Some(found.leader), Some(version))
            }
        };
        in_sync.insert(self.name.clone());
        let configuration = CatalogConfiguration {
            term: last_term + 1,
            leader: self.name.clone(),
            in_sync,
        };
        // The leader before must find nobody here who still accepts its changes.
        let least_term = self.least_term.fetch_max(configuration.term, Ordering::SeqCst);
        match configuration.write(coordination, expected).await {
            Ok(version) => {
                tracing::info!(term = configuration.term, "leads the catalog");
                if predecessor.as_ref().is_some_and(|before| *before != self.name) {
                    neorunbase_world::sometimes!("catalog-taken-over");
                }
                // What it was granted as a follower does not count any more.
                self.current_until.store(0, Ordering::SeqCst);
                *office = Some(Office {
                    predecessor,
                    configuration,
                    version,
                });
                Ok(())
            }
            Err(CoordinationError::BadVersion(_)) => {
                self.least_term.store(least_term, Ordering::SeqCst);
                Err(LeadError::Deposed)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Begins to lead: what this Coordinator has accepted last, made complete by `complete`, becomes what all in sync have.
    ///
    /// # Errors
    /// [`LeadError`]; the office is lost then.
    pub async fn begin(&self, complete: impl FnOnce(&mut CatalogSnapshot)) -> Result<(), LeadError> {
        let mut office = self.office.lock().await;
        let Some(term) = office.as_ref().map(|office| office.configuration.term) else {
            return Err(LeadError::Deposed);
        };
        let mut next = (*self.store.accepted().snapshot).clone();
        complete(&mut next);
        next.version = next.version.max(self.snapshot().version) + 1;
        self.replicate(&mut office, next).await?;
        if let Some(office) = office.as_mut() {
            office.predecessor = None;
        }
        self.leading.send_replace(term);
        Ok(())
    }

    /// Gives the office up in this process. Another Coordinator may take it over at any time anyway.
    pub fn stop_leading(&self) {
        self.leading.send_replace(0);
    }

    /// Applies `change` to a copy of the catalog and replicates it; only then others see it. Whoever asks for it may go away
    /// at any time: what has begun is carried out, or else another change would become the same version.
    ///
    /// # Errors
    /// `change`'s own; `57P03` if this Coordinator does not lead; `58030` if its store failed; `08007` if another one has
    /// taken over meanwhile, and the change may or may not be part of what it took over.
    pub async fn change<T>(&self, change: impl FnOnce(&mut CatalogSnapshot) -> Result<T>) -> Result<T> {
        let mut office = self.office.clone().lock_owned().await;
        if self.leading().is_none() || office.is_none() {
            return Err(not_leader());
        }
        let mut next = (*self.snapshot()).clone();
        let outcome = change(&mut next)?;
        next.version += 1;
        let replicated = if planted("change-broken-off") {
            self.replicate(&mut office, next).await
        } else {
            let metadata = self.shared.upgrade().ok_or_else(not_leader)?;
            let (sender, receiver) = oneshot::channel();
            let replication = async move {
                // Nobody may be listening any more.
                let _ = sender.send(metadata.replicate(&mut office, next).await);
            };
            self.world
                .spawner
                .spawn("change of the catalog", Box::pin(replication));
            receiver.await.unwrap_or(Err(LeadError::Ending))
        };
        match replicated {
            Ok(()) => Ok(outcome),
            Err(LeadError::Engine(error)) => Err(store_failed(error)),
            Err(error) => Err(SqlError::new(
                SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                "the outcome of the definition cannot be learned: it may or may not have taken effect",
            )
            .with_detail(error.to_string())),
        }
    }

    /// Has `next` accepted by everybody in sync, then published. After an error this Coordinator does not lead.
    async fn replicate(&self, office: &mut Option<Office>, next: CatalogSnapshot) -> Result<(), LeadError> {
        let replicated = self.try_replicate(office, next).await;
        if replicated.is_err() {
            self.step_down(office);
        }
        replicated
    }

    async fn try_replicate(
        &self,
        office: &mut Option<Office>,
        next: CatalogSnapshot,
    ) -> Result<(), LeadError> {
        let Some(office) = office else {
            return Err(LeadError::Deposed);
        };
        let term = office.configuration.term;
        let snapshot = Arc::new(next);
        let encoded = self
            .store
            .accept(AcceptedCatalog {
                term,
                snapshot: snapshot.clone(),
            })
            .await?;
        let accept = RequestBody::AcceptCatalog(AcceptCatalog {
            term,
            snapshot: encoded,
        });
        if planted("catalog-acknowledged-alone") {
            self.publish(snapshot);
            return Ok(());
        }
        self.tell_followers(office, &accept).await?;
        dawdle(
            &*self.world.clock,
            "catalog published late",
            Duration::from_millis(800),
        )
        .await;
        self.publish(snapshot.clone());
        let publish = RequestBody::PublishCatalog(PublishCatalog {
            term,
            version: snapshot.version,
        });
        self.tell_followers(office, &publish).await
    }

    /// Sends `request` to every follower in sync. Those that do not confirm it leave the set before this returns.
    async fn tell_followers(&self, office: &mut Office, request: &RequestBody) -> Result<(), LeadError> {
        let followers = office.configuration.in_sync.iter();
        let followers = followers.filter(|name| **name != self.name);
        let calls = followers.map(|name| async move {
            let told = timeout(&*self.world.clock, FOLLOWER_LIMIT, self.tell(name, request)).await;
            (!matches!(told, Ok(true))).then(|| name.clone())
        });
        let silent: Vec<String> = join_all(calls).await.into_iter().flatten().collect();
        if silent.is_empty() {
            return Ok(());
        }
        neorunbase_world::sometimes!("coordinator-leaves-the-catalogs-set");
        tracing::warn!(?silent, "coordinators leave the catalog's in-sync set");
        let mut next = office.configuration.clone();
        next.in_sync.retain(|name| !silent.contains(name));
        self.configure(office, next).await?;
        // They may show their sessions an older catalog for as long as they have a lease. What the leader before granted
        // ends later; its own lease was the oracle's, and is waited for there.
        let is_beginning = office.predecessor.is_some();
        let had_leases = silent
            .iter()
            .any(|name| Some(name) != office.predecessor.as_ref());
        if had_leases && !planted("catalog-lease-not-awaited") {
            let granted_before = if is_beginning {
                oracle::LEASE
            } else {
                Duration::ZERO
            };
            let longest = (CATALOG_LEASE + granted_before) * (100 + oracle::DRIFT_PERCENT) / 100;
            neorunbase_world::sometimes!("definition-waits-for-a-catalog-lease");
            self.world.clock.sleep(longest).await;
        }
        Ok(())
    }

    async fn tell(&self, name: &str, request: &RequestBody) -> bool {
        let Some(channel) = self.peers.channel(name) else {
            return false;
        };
        match channel.call(request.clone().into()).await {
            Ok(response) => matches!(response.body, Some(ResponseBody::Done(_))),
            Err(_) => false,
        }
    }

    /// Replaces the znode while nobody else has.
    async fn configure(&self, office: &mut Office, next: CatalogConfiguration) -> Result<(), LeadError> {
        let deadline = self.world.clock.monotonic().after(CONFIGURATION_LIMIT);
        loop {
            match next.write(&*self.world.coordination, Some(office.version)).await {
                Ok(version) => {
                    office.version = version;
                    office.configuration = next;
                    return Ok(());
                }
                Err(CoordinationError::BadVersion(_)) => return Err(LeadError::Deposed),
                Err(CoordinationError::ConnectionLost | CoordinationError::SessionExpired)
                    if self.world.clock.monotonic() < deadline =>
                {
                    self.world.clock.sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The leader's answer to a Coordinator that wants to follow.
    ///
    /// # Errors
    /// `57P03` if this one does not lead.
    pub async fn join(&self, request: &JoinCatalog) -> Result<CatalogReply> {
        let mut office = self.office.lock().await;
        let (Some(current), Some(term)) = (office.as_mut(), self.leading()) else {
            return Err(not_leader());
        };
        // What is granted here must end before a successor acknowledges anything.
        if !self.oracle.has_lease() || buggify("follower of the catalog refused") {
            return Err(not_leader());
        }
        let accepted = self.store.accepted();
        if (request.term, request.version) != accepted.position() {
            return Ok(CatalogReply {
                term,
                snapshot: encode(&accepted.snapshot).map_err(SqlError::internal)?,
                in_sync: false,
                live: None,
            });
        }
        if !current.configuration.in_sync.contains(&request.name) {
            let mut next = current.configuration.clone();
            next.in_sync.insert(request.name.clone());
            if let Err(error) = self.configure(current, next).await {
                self.step_down(&mut office);
                tracing::info!(%error, "cannot take a coordinator into the catalog's in-sync set");
                return Err(not_leader());
            }
            neorunbase_world::sometimes!("coordinator-joins-the-catalogs-set");
            tracing::info!(name = request.name, "joined the catalog's in-sync set");
        }
        Ok(CatalogReply {
            term,
            snapshot: Bytes::new(),
            in_sync: true,
            live: None,
        })
    }

    /// Flushes and closes the store.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn close(&self) -> Result<(), EngineError> {
        self.store.close().await
    }
}

fn store_failed(error: EngineError) -> Box<SqlError> {
    SqlError::new(SqlState::IO_ERROR, format!("metadata store: {error}"))
}

fn not_leader() -> Box<SqlError> {
    SqlError::new(
        SqlState::CANNOT_CONNECT_NOW,
        "this coordinator does not lead the catalog",
    )
    .with_hint("another coordinator leads, or is about to: try again")
}
