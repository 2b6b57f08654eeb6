//! A small world in memory: real time, a network that can be cut, a disk that can lose power.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use neorunbase_coordination::{
    ClientOptions, EmbeddedService, JournalLocation, JournalSealer, RemoteServer, SessionClient,
};
use neorunbase_world::{
    Clock, Disk, DiskFile, Entropy, Listener, MonotonicTime, Network, NodeAddress, Spawner, Stream,
    TaskHandle,
};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

pub struct RealClock(Instant);

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

pub struct TokioSpawner;

impl Spawner for TokioSpawner {
    fn spawn(&self, _name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        let handle = tokio::spawn(task).abort_handle();
        TaskHandle::new(move || handle.abort())
    }
}

/// Distinct, not random.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, destination: &mut [u8]) {
        let number = self
            .0
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for (byte, value) in destination
            .iter_mut()
            .zip(number.to_le_bytes().into_iter().cycle())
        {
            *byte = value;
        }
    }
}

#[derive(Default)]
struct MemoryFile {
    content: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Default)]
pub struct MemoryDisk {
    files: Mutex<BTreeMap<String, Arc<Mutex<MemoryFile>>>>,
    pub syncs_fail: Arc<AtomicBool>,
}

struct OpenFile(Arc<Mutex<MemoryFile>>, Arc<AtomicBool>);

#[async_trait]
impl DiskFile for OpenFile {
    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let mut file = self.0.lock();
        let end = offset as usize + data.len();
        if file.content.len() < end {
            file.content.resize(end, 0);
        }
        file.content[offset as usize..end].copy_from_slice(&data);
        Ok(())
    }
    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let file = self.0.lock();
        let end = file.content.len().min(offset as usize + length);
        Ok(Bytes::copy_from_slice(&file.content[offset as usize..end]))
    }
    async fn sync(&self) -> io::Result<()> {
        if self.1.load(Ordering::Relaxed) {
            return Err(io::Error::other("simulated fsync failure"));
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
        let mut file = self.0.lock();
        file.durable = file.content.clone();
        Ok(())
    }
    async fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.lock().content.resize(length as usize, 0);
        Ok(())
    }
    async fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().content.len() as u64)
    }
}

#[async_trait]
impl Disk for MemoryDisk {
    async fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = Arc::new(Mutex::new(MemoryFile::default()));
        self.files.lock().insert(path.to_owned(), file.clone());
        Ok(Box::new(OpenFile(file, self.syncs_fail.clone())))
    }
    async fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.files.lock().get(path).cloned();
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(OpenFile(file, self.syncs_fail.clone())))
    }
    async fn list(&self, _directory: &str) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }
    async fn create_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }
    async fn remove(&self, path: &str) -> io::Result<()> {
        self.files
            .lock()
            .remove(path)
            .map(|_| ())
            .ok_or(io::ErrorKind::NotFound.into())
    }
    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }
    async fn sync_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }
}

impl MemoryDisk {
    /// What was not synced is gone.
    pub fn lose_power(&self) {
        for file in self.files.lock().values() {
            let mut file = file.lock();
            file.content = file.durable.clone();
        }
    }

    pub fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.files.lock()[path].clone();
        let mut file = file.lock();
        change(&mut file.content);
        file.durable = file.content.clone();
    }

    pub fn content(&self, path: &str) -> Vec<u8> {
        self.files.lock()[path].lock().content.clone()
    }
}

/// Enough to see that nothing is written in the clear, and that frames cannot be swapped.
pub struct Sealer(pub u8);

impl JournalSealer for Sealer {
    fn seal(&self, sequence: u64, plaintext: &[u8]) -> Vec<u8> {
        let mut sealed = vec![self.0, sequence as u8];
        sealed.extend(plaintext.iter().map(|byte| byte ^ 0xa5));
        sealed
    }
    fn open(&self, sequence: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        let body = sealed.strip_prefix(&[self.0, sequence as u8])?;
        Some(body.iter().map(|byte| byte ^ 0xa5).collect())
    }
}

type Incoming = mpsc::UnboundedSender<Box<dyn Stream>>;

/// One listener; `cut` freezes every stream and refuses new ones.
#[derive(Default)]
pub struct MemoryNetwork {
    listener: Arc<Mutex<Option<Incoming>>>,
    pub cut: Arc<AtomicBool>,
}

struct Cuttable(DuplexStream, Arc<AtomicBool>);

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.1.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.1.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_write(context, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

struct MemoryListener(tokio::sync::Mutex<mpsc::UnboundedReceiver<Box<dyn Stream>>>);

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, NodeAddress)> {
        let stream = self.0.lock().await.recv().await;
        Ok((stream.ok_or(io::ErrorKind::BrokenPipe)?, "client:1".to_owned()))
    }
    fn local_address(&self) -> NodeAddress {
        "server:1".to_owned()
    }
}

#[async_trait]
impl Network for MemoryNetwork {
    async fn listen(&self, _address: &str) -> io::Result<Box<dyn Listener>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.listener.lock() = Some(sender);
        Ok(Box::new(MemoryListener(tokio::sync::Mutex::new(receiver))))
    }
    async fn connect(&self, _address: &str) -> io::Result<Box<dyn Stream>> {
        if self.cut.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (client, server) = tokio::io::duplex(1024);
        let listener = self
            .listener
            .lock()
            .clone()
            .ok_or(io::ErrorKind::ConnectionRefused)?;
        listener
            .send(Box::new(Cuttable(server, self.cut.clone())))
            .map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(Cuttable(client, self.cut.clone())))
    }
}

/// The parts of a world that these tests need.
pub struct TestWorld {
    pub clock: Arc<RealClock>,
    pub entropy: Arc<Counter>,
    pub spawner: Arc<TokioSpawner>,
    pub disk: Arc<MemoryDisk>,
    pub network: Arc<MemoryNetwork>,
}

pub const JOURNAL: &str = "coordination/journal";

impl TestWorld {
    pub fn new() -> Self {
        Self {
            clock: Arc::new(RealClock(Instant::now())),
            entropy: Arc::default(),
            spawner: Arc::new(TokioSpawner),
            disk: Arc::default(),
            network: Arc::default(),
        }
    }

    pub fn clock_now(&self) -> MonotonicTime {
        self.clock.monotonic()
    }

    pub fn journal(&self, key: u8) -> JournalLocation {
        JournalLocation {
            disk: self.disk.clone(),
            path: JOURNAL.to_owned(),
            sealer: Arc::new(Sealer(key)),
        }
    }

    pub async fn service(&self) -> EmbeddedService {
        self.start(None).await.unwrap()
    }

    pub async fn start(
        &self,
        journal: Option<JournalLocation>,
    ) -> Result<EmbeddedService, neorunbase_coordination::JournalError> {
        EmbeddedService::start(
            self.clock.clone(),
            self.entropy.clone(),
            self.spawner.clone(),
            journal,
        )
        .await
    }

    pub async fn client(&self, service: &EmbeddedService, options: ClientOptions) -> Arc<SessionClient> {
        let client = SessionClient::embedded(service, self.clock.clone(), &*self.spawner, options);
        client.connected().await.unwrap();
        Arc::new(client)
    }

    pub async fn server(&self, service: &EmbeddedService) -> RemoteServer {
        RemoteServer::start(
            service,
            &*self.network,
            self.clock.clone(),
            self.spawner.clone(),
            "server:1",
        )
        .await
        .unwrap()
    }

    pub fn remote(&self, network: Arc<dyn Network>, options: ClientOptions) -> Arc<SessionClient> {
        let (clock, spawner) = (self.clock.clone(), self.spawner.clone());
        Arc::new(SessionClient::remote(
            "server:1", network, clock, spawner, options,
        ))
    }
}

pub fn patient() -> ClientOptions {
    ClientOptions::with_session_timeout(Duration::from_secs(20))
}

pub async fn within<F: Future>(seconds: u64, what: &str, future: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(seconds), future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {seconds} s: {what}"),
    }
}
