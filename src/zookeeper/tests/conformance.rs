//! Runs the conformance suite, and what happens around an expiry, against a real ZooKeeper server.
#![allow(clippy::unwrap_used)]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use neorunbase_coordination::conformance::{self, ConformanceSession};
use neorunbase_coordination::{Election, current_epoch, current_leader};
use neorunbase_world::coordination::{CoordinationError, CreateMode, SessionState};
use neorunbase_world::{Clock, Coordination, Entropy, MonotonicTime};
use neorunbase_zookeeper::ZooKeeperCoordination;

const JAR: &str = "/usr/share/java/zookeeper.jar";

struct Server {
    process: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        assert!(
            Path::new(JAR).exists(),
            "{JAR} is missing: this test needs Debian's package `zookeeper` (apt-get install zookeeper)"
        );
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let configuration = format!(
            "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\nminSessionTimeout=1000\nmaxClientCnxns=0\n",
            directory.path().join("data").display()
        );
        std::fs::write(directory.path().join("zoo.cfg"), configuration).unwrap();
        std::fs::write(
            directory.path().join("log4j.properties"),
            "log4j.rootLogger=OFF\n",
        )
        .unwrap();
        let process = Command::new("java")
            .arg("-Xmx96m")
            .arg("-cp")
            .arg(format!("{}:{JAR}", directory.path().display()))
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(directory.path().join("zoo.cfg"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("java is needed to run ZooKeeper (apt-get install default-jre-headless)");
        let address = format!("127.0.0.1:{port}");
        let mut server = Self {
            process,
            address,
            _directory: directory,
        };
        let started = Instant::now();
        while TcpStream::connect(&server.address).is_err() {
            assert!(
                server.process.try_wait().unwrap().is_none(),
                "ZooKeeper ended at once"
            );
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "ZooKeeper did not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct RealClock(Instant);

#[async_trait]
impl Clock for RealClock {
    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(0).after(self.0.elapsed())
    }
    fn wall_clock_unix_micros(&self) -> i64 {
        0
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&self, destination: &mut [u8]) {
        destination.fill(self.0);
    }
}

async fn connect(server: &Server, timeout: Duration) -> ZooKeeperCoordination {
    ZooKeeperCoordination::connect(&server.address, "/some/chroot", timeout)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zookeeper_conforms() {
    let server = Server::start();
    let open = || async {
        let session = Arc::new(connect(&server, Duration::from_secs(6)).await);
        let coordination: Arc<dyn Coordination> = session.clone();
        let observer = connect(&server, Duration::from_secs(6)).await;
        ConformanceSession {
            coordination,
            end: Box::new(move || {
                Box::pin(async move {
                    // Closing is asynchronous: a marker of this session tells when it is done.
                    let marker = format!("/marker-{:p}", Arc::as_ptr(&session));
                    session
                        .create(&marker, Bytes::new(), CreateMode::Ephemeral)
                        .await
                        .unwrap();
                    session.close();
                    while observer.get(&marker).await.unwrap().is_some() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                })
            }),
        }
    };
    conformance::run(open, &RealClock(Instant::now()), "/conformance").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_session_is_replaced_and_its_leader_deposed() {
    let server = Server::start();
    let timeout = Duration::from_secs(2);
    let clock = Arc::new(RealClock(Instant::now()));
    let frozen = Arc::new(connect(&server, timeout).await);
    let election = |name: &str, seed: u8, coordination: Arc<ZooKeeperCoordination>| {
        Election::new(
            coordination,
            clock.clone(),
            &Fixed(seed),
            timeout,
            "/elections/office",
            name,
        )
    };
    let first = election("first", 1, frozen.clone());
    let leadership = first.campaign().await.unwrap();
    assert_eq!(leadership.epoch, 1);
    let mut state = frozen.session();
    assert_eq!(*state.borrow_and_update(), SessionState::Connected);
    let (_, watch) = frozen.get_and_watch("/elections").await.unwrap();

    server.signal("-STOP");
    let began = Instant::now();
    leadership.lost().await;
    assert!(
        began.elapsed() < timeout,
        "stepped down after {:?}, too late",
        began.elapsed()
    );
    let lost_call = frozen.set("/elections/office/epoch", Bytes::new(), 0).await;
    assert!(
        matches!(
            lost_call,
            Err(CoordinationError::ConnectionLost | CoordinationError::SessionExpired)
        ),
        "{lost_call:?}"
    );
    state
        .wait_for(|state| *state == SessionState::Expired)
        .await
        .unwrap();
    watch.await.unwrap();
    server.signal("-CONT");
    tokio::time::timeout(
        Duration::from_secs(20),
        state.wait_for(|state| *state == SessionState::Connected),
    )
    .await
    .expect("a new session")
    .unwrap();
    assert_eq!(current_epoch(&*frozen, "/elections/office").await, Ok(1));

    let second = election("second", 2, Arc::new(connect(&server, timeout).await)).with_data(Bytes::from("b"));
    let leadership = second.campaign().await.unwrap();
    assert_eq!(leadership.epoch, 2);
    let leader = current_leader(&*frozen, "/elections/office").await;
    assert_eq!(leader, Ok(Some(("second".to_owned(), Bytes::from("b")))));
    leadership.resign().await.unwrap();
    assert_eq!(current_leader(&*frozen, "/elections/office").await, Ok(None));
}

#[tokio::test]
async fn bad_chroot_and_dead_server_are_refused() {
    let connecting = ZooKeeperCoordination::connect("127.0.0.1:1", "relative", Duration::from_secs(1));
    assert!(connecting.await.is_err());
    let connecting = ZooKeeperCoordination::connect("127.0.0.1:1", "/ok", Duration::from_secs(1));
    assert!(connecting.await.is_err());
}
