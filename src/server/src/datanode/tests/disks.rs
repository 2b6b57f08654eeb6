//! Disks that are replaced, or hang.

use neorunbase_coordination::{ClientOptions, EmbeddedClient, EmbeddedService};
use neorunbase_world::coordination::ensure_path;
use neorunbase_world::{Disk, DiskFile};

use super::*;
use crate::cluster::paths;
use crate::cluster::shard_map::read_shard_map;
use crate::datanode::StartError;

const NAME: &str = "one";

/// The coordination service, and who holds the shards.
struct Held {
    clock: Arc<TestClock>,
    service: EmbeddedService,
    coordination: Arc<EmbeddedClient>,
}

impl Held {
    async fn by(configurations: &[(ShardId, Configuration)]) -> Self {
        let clock = Arc::new(TestClock(tokio::time::Instant::now()));
        let (entropy, spawner) = (Arc::new(SeededEntropy::new(1)), Arc::new(TestSpawner::default()));
        let service = EmbeddedService::start(clock.clone(), entropy, spawner, None)
            .await
            .unwrap();
        let coordination = Arc::new(Self::session(&service, &clock));
        for path in [paths::SHARDS, paths::DISKS] {
            ensure_path(&*coordination, path).await.unwrap();
        }
        for (shard, configuration) in configurations {
            let data = Bytes::from(serde_json::to_vec(configuration).unwrap());
            let path = paths::shard_path(*shard);
            let created = coordination.create(&path, data, CreateMode::Persistent);
            created.await.unwrap();
        }
        Self {
            clock,
            service,
            coordination,
        }
    }

    fn session(service: &EmbeddedService, clock: &Arc<TestClock>) -> EmbeddedClient {
        let options = ClientOptions::with_session_timeout(Duration::from_secs(10));
        EmbeddedClient::embedded(service, clock.clone(), &TestSpawner::default(), options)
    }

    /// The node starts on `disk`.
    async fn start(&self, disk: Arc<dyn Disk>, seed: u64) -> Arc<DataNode> {
        let world = World {
            clock: self.clock.clone(),
            entropy: Arc::new(SeededEntropy::new(seed)),
            spawner: Arc::new(TestSpawner::default()),
            network: Arc::new(Nowhere),
            disk,
            engines: Arc::new(MemoryEngineFactory::new()),
            coordination: Arc::new(Self::session(&self.service, &self.clock)),
        };
        let key = MasterKey::from_text("0123456789abcdef0123456789abcdef").unwrap();
        let config = DataNodeConfig {
            disk_patience: Duration::from_millis(200),
            ..config(NAME.to_owned())
        };
        let cluster = Cluster::default();
        DataNode::open(world, config, &key, cluster.oracle, cluster.peers)
            .await
            .unwrap()
    }

    async fn map(&self) -> BTreeMap<ShardId, Configuration> {
        read_shard_map(&*self.coordination).await.unwrap()
    }
}

fn held_by(primary: &str, in_sync: &[&str]) -> Configuration {
    Configuration {
        epoch: 5,
        term: 4,
        in_sync: in_sync.iter().map(|node| (*node).to_owned()).collect(),
        ..Configuration::new(vec![primary.to_owned(), NAME.to_owned(), "two".to_owned()])
    }
}

#[tokio::test]
async fn another_disk_is_counted_on_by_nobody() {
    let led = held_by(NAME, &[NAME, "two"]);
    let followed = held_by("two", &["two", NAME]);
    let lagging = held_by("two", &["two"]);
    let before = BTreeMap::from([(1, led.clone()), (2, followed), (3, lagging)]);
    let held = Held::by(&before.clone().into_iter().collect::<Vec<_>>()).await;
    let disk = Arc::new(CrashDisk::default());
    for seed in [1, 2] {
        held.start(disk.clone(), seed).await.claim_disk().await.unwrap();
        assert_eq!(held.map().await, before, "the disk is known, or nobody knew one");
    }

    let empty = Arc::new(CrashDisk::default());
    let node = held.start(empty.clone(), 3).await;
    node.claim_disk().await.unwrap();
    let after = held.map().await;
    assert_eq!(after[&1], led.promoted("two").unwrap());
    assert_eq!(after[&2], before[&2].without(NAME).unwrap());
    assert_eq!(after[&3], before[&3].renumbered());
    // An old map has it begin no term that was begun on the disk before.
    node.configure(&BTreeMap::from([(1, led)])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(node.served_shards(), []);
    drop(node);
    held.start(empty, 4).await.claim_disk().await.unwrap();
    assert_eq!(held.map().await, after, "this disk is known now");

    // The first one is another disk now.
    held.start(disk, 5).await.claim_disk().await.unwrap();
    assert_eq!(held.map().await[&3].epoch, after[&3].epoch + 1);
}

#[tokio::test]
async fn another_disk_is_refused_where_the_one_before_had_the_only_copy() {
    let led = held_by(NAME, &[NAME, "two"]);
    let alone = held_by(NAME, &[NAME]);
    let held = Held::by(&[(1, led), (2, alone)]).await;
    let disk = Arc::new(CrashDisk::default());
    held.start(disk.clone(), 1).await.claim_disk().await.unwrap();
    let before = held.map().await;
    let refused = held
        .start(Arc::new(CrashDisk::default()), 2)
        .await
        .claim_disk()
        .await;
    let error = refused.unwrap_err();
    assert!(error.to_string().contains("all of shards 0x2:"), "{error}");
    assert!(matches!(error, StartError::OtherDisk { shards, .. } if shards == [2]));
    assert_eq!(held.map().await, before, "it may get its disk back");
    held.start(disk, 3).await.claim_disk().await.unwrap();
    assert_eq!(held.map().await, before);
}

/// A disk that does not answer syncs while it hangs.
#[derive(Clone, Default)]
struct HangingDisk {
    disk: CrashDisk,
    hangs: Arc<watch::Sender<bool>>,
}

struct HangingFile {
    file: Box<dyn DiskFile>,
    hangs: Arc<watch::Sender<bool>>,
}

impl HangingDisk {
    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let hangs = self.hangs.clone();
        Box::new(HangingFile { file, hangs })
    }
}

#[async_trait]
impl DiskFile for HangingFile {
    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.file.write_at(offset, data).await
    }
    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.file.read_at(offset, length).await
    }
    async fn sync(&self) -> io::Result<()> {
        let answers = self.hangs.subscribe().wait_for(|hangs| !hangs).await.is_ok();
        assert!(answers, "the sender is in this file");
        self.file.sync().await
    }
    async fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length).await
    }
    async fn length(&self) -> io::Result<u64> {
        self.file.length().await
    }
}

#[async_trait]
impl Disk for HangingDisk {
    async fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.disk.create(path).await?))
    }
    async fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.disk.open(path).await?))
    }
    async fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.disk.list(directory).await
    }
    async fn create_directory(&self, directory: &str) -> io::Result<()> {
        self.disk.create_directory(directory).await
    }
    async fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path).await
    }
    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to).await
    }
    async fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.disk.sync_directory(directory).await
    }
}

#[tokio::test]
async fn a_disk_that_hangs_fails_its_node() {
    let held = Held::by(&[]).await;
    let disk = HangingDisk::default();
    let node = held.start(Arc::new(disk.clone()), 1).await;
    let alone = Configuration::new(vec![NAME.to_owned()]);
    node.configure(&BTreeMap::from([(SHARD, alone)])).await.unwrap();
    while node.served_shards().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Slow, but it answers, and idle.
    let create = |storage| {
        let change = ChangeStorage {
            shard: ShardRef {
                shard: SHARD,
                epoch: 1,
            },
            create: vec![storage],
            drop: Vec::new(),
        };
        let body = Some(RequestBody::ChangeStorage(change));
        let node = node.clone();
        tokio::spawn(async move { node.handle(Request { body }).await })
    };
    for storage in [TABLE, BY_VALUE, BY_TAG] {
        disk.hangs.send_replace(true);
        let created = create(storage);
        tokio::time::sleep(Duration::from_millis(100)).await;
        disk.hangs.send_replace(false);
        expect_done(created.await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(node.failure(), None);

    disk.hangs.send_replace(true);
    let created = create(TABLE + 10);
    node.failed().await;
    assert!(node.failure().unwrap().contains("the disk hangs"));
    created.abort();
}
