//! What every coordination service must do, checked. One suite for the embedded service and for ZooKeeper, so
//! that roles tested on the one can rely on the other. Panics at the first difference.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use neorunbase_world::clock::timeout;
use neorunbase_world::coordination::{
    CoordinationError, CreateMode, SessionState, Version, Watch, ensure_path,
};
use neorunbase_world::{Clock, Coordination};

/// Far longer than anything here takes on a healthy service.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a watch that must not fire is listened to.
const SILENCE: Duration = Duration::from_millis(100);
const CONCURRENT_SETS: u64 = 100;

/// One independent session.
pub struct ConformanceSession {
    /// The session's client.
    pub coordination: Arc<dyn Coordination>,
    /// Ends the session for good; returns once the service has removed its ephemerals.
    pub end: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
}

struct Suite<'a, F> {
    open: F,
    clock: &'a dyn Clock,
    root: String,
}

/// Runs the suite below `root`, which must not exist yet. `open` opens a new session each time.
pub async fn run<F, Opening>(open: F, clock: &dyn Clock, root: &str)
where
    F: Fn() -> Opening,
    Opening: Future<Output = ConformanceSession>,
{
    let suite = Suite {
        open,
        clock,
        root: root.to_owned(),
    };
    let session = suite.session().await;
    ensure_path(&*session.coordination, root)
        .await
        .expect("the root can be created");
    ensure_path(&*session.coordination, root)
        .await
        .expect("and again");
    suite.create_and_read().await;
    suite.versions().await;
    suite.deletion().await;
    suite.children().await;
    suite.ephemerals().await;
    suite.sequence().await;
    suite.data_watches().await;
    suite.child_watches().await;
    suite.watches_at_the_end_of_a_session().await;
    suite.no_change_is_missed().await;
    suite.one_of_many_sets_wins().await;
    (session.end)().await;
}

fn data(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn found(data: &str, version: Version) -> Result<Option<(Bytes, Version)>, CoordinationError> {
    Ok(Some((self::data(data), version)))
}

fn refused<T: std::fmt::Debug>(
    result: Result<T, CoordinationError>,
    fits: impl Fn(&CoordinationError) -> bool,
    expected: &str,
) {
    assert!(
        result.as_ref().is_err_and(fits),
        "expected {expected}, got {result:?}"
    );
}

fn must<T>(result: Result<T, CoordinationError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("unexpected error: {error}"),
    }
}

impl<F, Opening> Suite<'_, F>
where
    F: Fn() -> Opening,
    Opening: Future<Output = ConformanceSession>,
{
    async fn session(&self) -> ConformanceSession {
        let session = (self.open)().await;
        let mut state = session.coordination.session();
        let connected = state.wait_for(|state| *state == SessionState::Connected);
        let connected = timeout(self.clock, PATIENCE, connected).await;
        assert!(
            matches!(connected, Ok(Ok(_))),
            "the session was not opened in time"
        );
        session
    }

    async fn fires(&self, watch: Watch, what: &str) {
        // An error is as good: the promise is that nobody waits forever.
        assert!(
            timeout(self.clock, PATIENCE, watch).await.is_ok(),
            "watch did not fire: {what}"
        );
    }

    async fn stays_silent(&self, watch: &mut Watch, what: &str) {
        assert!(
            timeout(self.clock, SILENCE, watch).await.is_err(),
            "watch fired: {what}"
        );
    }

    /// A persistent node of its own for each check.
    async fn ground(&self, coordination: &dyn Coordination, name: &str) -> String {
        let path = format!("{}/{name}", self.root);
        let created = must(
            coordination
                .create(&path, Bytes::new(), CreateMode::Persistent)
                .await,
        );
        assert_eq!(created, name, "create returns the name, not the path");
        path
    }

    async fn create_and_read(&self) {
        let session = self.session().await;
        let client = &*session.coordination;
        let ground = self.ground(client, "create").await;
        let path = format!("{ground}/node");
        assert_eq!(client.get(&path).await, Ok(None));
        must(client.create(&path, data("one"), CreateMode::Persistent).await);
        assert_eq!(client.get(&path).await, found("one", 0));
        for mode in [CreateMode::Persistent, CreateMode::Ephemeral] {
            let again = client.create(&path, data("two"), mode).await;
            refused(
                again,
                |error| *error == CoordinationError::NodeExists(path.clone()),
                "NodeExists",
            );
            let orphan = client
                .create(&format!("{ground}/missing/node"), Bytes::new(), mode)
                .await;
            refused(
                orphan,
                |error| matches!(error, CoordinationError::NoNode(_)),
                "NoNode",
            );
        }
        assert_eq!(client.get(&path).await, found("one", 0));
        let empty = format!("{ground}/empty");
        must(client.create(&empty, Bytes::new(), CreateMode::Persistent).await);
        assert_eq!(client.get(&empty).await, found("", 0));
        let all_bytes = Bytes::from((0..=255).collect::<Vec<u8>>());
        must(client.set(&empty, all_bytes.clone(), 0).await);
        assert_eq!(client.get(&empty).await, Ok(Some((all_bytes, 1))));
        let other = self.session().await;
        assert_eq!(other.coordination.get(&path).await, found("one", 0));
        (other.end)().await;
        (session.end)().await;
    }

    async fn versions(&self) {
        let session = self.session().await;
        let client = &*session.coordination;
        let path = self.ground(client, "versions").await;
        assert_eq!(client.set(&path, data("one"), 0).await, Ok(1));
        assert_eq!(client.set(&path, data("two"), 1).await, Ok(2));
        for stale in [0, 1, 3] {
            let result = client.set(&path, data("stale"), stale).await;
            refused(
                result,
                |error| *error == CoordinationError::BadVersion(path.clone()),
                "BadVersion",
            );
        }
        assert_eq!(client.get(&path).await, found("two", 2));
        let missing = client.set(&format!("{path}/missing"), Bytes::new(), 0).await;
        refused(
            missing,
            |error| matches!(error, CoordinationError::NoNode(_)),
            "NoNode",
        );
        // Negative versions are no wildcard.
        let any = client.set(&path, data("any"), -1).await;
        refused(
            any,
            |error| matches!(error, CoordinationError::BadVersion(_)),
            "BadVersion",
        );
        must(client.delete(&path, Some(2)).await);
        must(client.create(&path, data("anew"), CreateMode::Persistent).await);
        assert_eq!(client.get(&path).await, found("anew", 0), "versions start again");
        (session.end)().await;
    }

    async fn deletion(&self) {
        let session = self.session().await;
        let client = &*session.coordination;
        let ground = self.ground(client, "deletion").await;
        let path = format!("{ground}/node");
        let missing = client.delete(&path, None).await;
        refused(
            missing,
            |error| *error == CoordinationError::NoNode(path.clone()),
            "NoNode",
        );
        must(client.create(&path, Bytes::new(), CreateMode::Persistent).await);
        must(client.set(&path, data("one"), 0).await);
        for stale in [0, 2, -1] {
            let result = client.delete(&path, Some(stale)).await;
            refused(
                result,
                |error| *error == CoordinationError::BadVersion(path.clone()),
                "BadVersion",
            );
        }
        for expected in [None, Some(0)] {
            let full = client.delete(&ground, expected).await;
            refused(
                full,
                |error| *error == CoordinationError::NotEmpty(ground.clone()),
                "NotEmpty",
            );
        }
        must(client.delete(&path, Some(1)).await);
        assert_eq!(client.get(&path).await, Ok(None));
        must(client.delete(&ground, None).await);
        (session.end)().await;
    }

    async fn children(&self) {
        let session = self.session().await;
        let client = &*session.coordination;
        let ground = self.ground(client, "children").await;
        assert_eq!(client.children(&ground).await, Ok(Vec::new()));
        for name in ["b", "a", "c", "10", "9"] {
            must(
                client
                    .create(&format!("{ground}/{name}"), Bytes::new(), CreateMode::Persistent)
                    .await,
            );
        }
        must(
            client
                .create(
                    &format!("{ground}/a/grandchild"),
                    Bytes::new(),
                    CreateMode::Persistent,
                )
                .await,
        );
        let expected = ["10", "9", "a", "b", "c"].map(str::to_owned);
        assert_eq!(client.children(&ground).await, Ok(expected.to_vec()));
        assert_eq!(must(client.children_and_watch(&ground).await).0, expected);
        must(client.delete(&format!("{ground}/b"), None).await);
        assert_eq!(must(client.children(&ground).await), ["10", "9", "a", "c"]);
        let missing = format!("{ground}/missing");
        refused(
            client.children(&missing).await,
            |error| matches!(error, CoordinationError::NoNode(_)),
            "NoNode",
        );
        let missing = client.children_and_watch(&missing).await;
        refused(
            missing,
            |error| matches!(error, CoordinationError::NoNode(_)),
            "NoNode",
        );
        (session.end)().await;
    }

    async fn ephemerals(&self) {
        let (owner, observer) = (self.session().await, self.session().await);
        let client = &*owner.coordination;
        let ground = self.ground(client, "ephemerals").await;
        let path = format!("{ground}/node");
        assert_eq!(
            client.create(&path, data("mine"), CreateMode::Ephemeral).await,
            Ok("node".to_owned())
        );
        assert_eq!(observer.coordination.get(&path).await, found("mine", 0));
        assert_eq!(observer.coordination.set(&path, data("changed"), 0).await, Ok(1));
        let child = client
            .create(&format!("{path}/child"), Bytes::new(), CreateMode::Persistent)
            .await;
        refused(
            child,
            |error| matches!(error, CoordinationError::Other(_)),
            "a refusal",
        );
        must(
            observer
                .coordination
                .create(&format!("{ground}/stays"), Bytes::new(), CreateMode::Ephemeral)
                .await,
        );
        let (_, gone) = must(observer.coordination.get_and_watch(&path).await);
        let (_, fewer) = must(observer.coordination.children_and_watch(&ground).await);
        (owner.end)().await;
        self.fires(gone, "an ephemeral vanished").await;
        self.fires(fewer, "an ephemeral child vanished").await;
        assert_eq!(observer.coordination.get(&path).await, Ok(None));
        assert_eq!(must(observer.coordination.children(&ground).await), ["stays"]);
        must(
            observer
                .coordination
                .create(&path, Bytes::new(), CreateMode::Ephemeral)
                .await,
        );
        (observer.end)().await;
        let last = self.session().await;
        assert_eq!(
            must(last.coordination.children(&ground).await),
            Vec::<String>::new()
        );
        (last.end)().await;
    }

    async fn sequence(&self) {
        let (first, second) = (self.session().await, self.session().await);
        let ground = self.ground(&*first.coordination, "sequence").await;
        let mut names = Vec::new();
        for turn in 0..6 {
            let session = if turn % 2 == 0 { &first } else { &second };
            let prefix = format!("{ground}/{}-", if turn % 2 == 0 { "zed" } else { "abe" });
            let mode = CreateMode::EphemeralSequential;
            names.push(must(
                session.coordination.create(&prefix, Bytes::new(), mode).await,
            ));
            if turn == 3 {
                must(
                    first
                        .coordination
                        .delete(&format!("{ground}/{}", names[3]), None)
                        .await,
                );
            }
        }
        let numbers: Vec<u64> = names
            .iter()
            .map(|name| {
                let digits = name
                    .strip_prefix("zed-")
                    .or_else(|| name.strip_prefix("abe-"))
                    .unwrap_or("");
                assert_eq!(digits.len(), 10, "ten digits in {name}");
                digits.parse().expect("digits")
            })
            .collect();
        assert!(
            numbers.is_sorted_by(|earlier, later| earlier < later),
            "numbers grow: {numbers:?}"
        );
        assert_eq!(must(first.coordination.children(&ground).await).len(), 5);
        (second.end)().await;
        let left: BTreeSet<String> = must(first.coordination.children(&ground).await)
            .into_iter()
            .collect();
        assert_eq!(left, [0, 2, 4].map(|turn: usize| names[turn].clone()).into());
        (first.end)().await;
    }

    async fn data_watches(&self) {
        let (watcher, writer) = (self.session().await, self.session().await);
        let ground = self.ground(&*writer.coordination, "data-watches").await;
        let path = format!("{ground}/node");
        let (absent, created) = must(watcher.coordination.get_and_watch(&path).await);
        assert_eq!(absent, None);
        must(
            writer
                .coordination
                .create(&path, data("one"), CreateMode::Persistent)
                .await,
        );
        self.fires(created, "creation").await;
        let (_, first) = must(watcher.coordination.get_and_watch(&path).await);
        let (present, second) = must(watcher.coordination.get_and_watch(&path).await);
        assert_eq!(present, Some((data("one"), 0)));
        must(writer.coordination.set(&path, data("two"), 0).await);
        self.fires(first, "change").await;
        self.fires(second, "change, with two watchers").await;
        let (present, mut deleted) = must(watcher.coordination.get_and_watch(&path).await);
        assert_eq!(present, Some((data("two"), 1)));
        must(
            writer
                .coordination
                .create(&format!("{path}/child"), Bytes::new(), CreateMode::Persistent)
                .await,
        );
        self.stays_silent(&mut deleted, "a child is no change of the node")
            .await;
        must(writer.coordination.delete(&format!("{path}/child"), None).await);
        must(writer.coordination.delete(&path, None).await);
        self.fires(deleted, "deletion").await;
        // Own changes count as well.
        let (_, own) = must(writer.coordination.get_and_watch(&path).await);
        must(
            writer
                .coordination
                .create(&path, Bytes::new(), CreateMode::Persistent)
                .await,
        );
        self.fires(own, "own creation").await;
        (watcher.end)().await;
        (writer.end)().await;
    }

    async fn child_watches(&self) {
        let (watcher, writer) = (self.session().await, self.session().await);
        let ground = self.ground(&*writer.coordination, "child-watches").await;
        let child = format!("{ground}/child");
        let (_, created) = must(watcher.coordination.children_and_watch(&ground).await);
        must(
            writer
                .coordination
                .create(&child, Bytes::new(), CreateMode::Persistent)
                .await,
        );
        self.fires(created, "a child came").await;
        let (names, mut deleted) = must(watcher.coordination.children_and_watch(&ground).await);
        assert_eq!(names, ["child"]);
        must(writer.coordination.set(&child, data("changed"), 0).await);
        must(writer.coordination.set(&ground, data("changed"), 0).await);
        self.stays_silent(&mut deleted, "data is no matter of children")
            .await;
        must(writer.coordination.delete(&child, None).await);
        self.fires(deleted, "a child went").await;
        let (_, gone) = must(watcher.coordination.children_and_watch(&ground).await);
        must(writer.coordination.delete(&ground, None).await);
        self.fires(gone, "the parent went").await;
        (watcher.end)().await;
        (writer.end)().await;
    }

    async fn watches_at_the_end_of_a_session(&self) {
        let session = self.session().await;
        let ground = self.ground(&*session.coordination, "last-watches").await;
        let (_, on_data) = must(session.coordination.get_and_watch(&ground).await);
        let (_, on_absent) = must(
            session
                .coordination
                .get_and_watch(&format!("{ground}/absent"))
                .await,
        );
        let (_, on_children) = must(session.coordination.children_and_watch(&ground).await);
        (session.end)().await;
        self.fires(on_data, "end of session, data").await;
        self.fires(on_absent, "end of session, absent node").await;
        self.fires(on_children, "end of session, children").await;
    }

    /// A reader that waits for a watch whenever it has not seen the last value must reach it.
    async fn no_change_is_missed(&self) {
        let (reader, writer) = (self.session().await, self.session().await);
        let path = self.ground(&*writer.coordination, "atomic-watch").await;
        let writing = async {
            for turn in 1..=CONCURRENT_SETS {
                let expected = Version::try_from(turn - 1).expect("few turns");
                must(
                    writer
                        .coordination
                        .set(&path, data(&turn.to_string()), expected)
                        .await,
                );
            }
        };
        let reading = async {
            let mut seen = -1;
            loop {
                let (found, changed) = must(reader.coordination.get_and_watch(&path).await);
                let (value, version) = found.expect("the node is never deleted");
                assert!(version >= seen, "version {version} read after {seen}");
                seen = version;
                let expected = if version == 0 {
                    String::new()
                } else {
                    version.to_string()
                };
                assert_eq!(value, data(&expected), "data and version belong together");
                if value == data(&CONCURRENT_SETS.to_string()) {
                    return;
                }
                self.fires(changed, "a set between the reading and the watch")
                    .await;
            }
        };
        futures::join!(writing, reading);
        (reader.end)().await;
        (writer.end)().await;
    }

    async fn one_of_many_sets_wins(&self) {
        let (first, second) = (self.session().await, self.session().await);
        let path = self.ground(&*first.coordination, "contended").await;
        let increment = |session: Arc<dyn Coordination>| {
            let path = path.clone();
            async move {
                let mut won = 0_u64;
                while won < CONCURRENT_SETS / 2 {
                    let (_, version) = must(session.get(&path).await).expect("the node exists");
                    match session.set(&path, Bytes::new(), version).await {
                        Ok(new) => {
                            assert_eq!(new, version + 1);
                            won += 1;
                        }
                        Err(CoordinationError::BadVersion(_)) => {}
                        Err(error) => panic!("unexpected error: {error}"),
                    }
                }
                won
            }
        };
        let won = futures::join!(
            increment(first.coordination.clone()),
            increment(second.coordination.clone())
        );
        let (_, version) = must(first.coordination.get(&path).await).expect("the node exists");
        assert_eq!(
            u64::try_from(version),
            Ok(won.0 + won.1),
            "each set that was reported counts once"
        );
        (first.end)().await;
        (second.end)().await;
    }
}
