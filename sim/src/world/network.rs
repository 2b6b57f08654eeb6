//! Byte streams between simulated machines, with links that slow down, hang, reset or vanish.
//!
//! Each connection is two pipes of chunks that arrive at a known time. A cut link holds back what had not
//! arrived yet (or resets connections, as the fault says); a machine that dies silently leaves its peers
//! hanging until it is up again, which is when they are told.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures::future::poll_fn;
use neorunbase_fault_injection::CutSilence;
use neorunbase_world::{Listener, Network, NodeAddress, Stream};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::now_nanos;
use crate::trace::{Trace, trace};

const MILLISECOND: u64 = 1_000_000;
/// Like a socket's buffers: a writer waits when so much is on its way.
const WINDOW_BYTES: usize = 1 << 20;
/// How late a delivery is that was lost at first. What was sent after it waits for it.
const RETRANSMISSION_MICROS: std::ops::RangeInclusive<u64> = 200_000..=3_000_000;
const CONNECT_RETRY: Duration = Duration::from_millis(200);
const CONNECT_LIMIT_NANOS: u64 = 60_000 * MILLISECOND;

/// How fast links are when nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub struct LinkSpeed {
    /// The shortest delivery, in microseconds.
    pub min_micros: u64,
    /// The longest ordinary one, in microseconds.
    pub max_micros: u64,
    /// One delivery in so many takes up to a hundred times as long.
    pub one_slow_in: u32,
    /// One delivery in so many is lost at first; 0: none.
    pub one_lost_in: u32,
}

#[derive(Clone, Copy, Default)]
struct Link {
    cut: Option<(u64, CutSilence)>,
    extra_nanos: u64,
    /// One delivery in so many is lost at first; 0: as everywhere.
    one_lost_in: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    Up,
    /// The process is gone; its machine refuses connections.
    Refusing,
    /// The machine is gone: nobody answers.
    Silent,
}

struct Node {
    name: String,
    power: Power,
    /// Counts deaths: streams and listeners from before one are dead.
    incarnation: u64,
}

struct ListenerState {
    id: u64,
    node: usize,
    waiting: VecDeque<(SimStream, String)>,
    waker: Option<Waker>,
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    chunks: VecDeque<(u64, Bytes)>,
    bytes: usize,
    last_arrival: u64,
    /// When the end arrives, after all chunks.
    end_arrives: Option<u64>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Connection {
    nodes: [usize; 2],
    /// Pipe `i` carries what end `i` writes.
    pipes: [Pipe; 2],
    open: [bool; 2],
    /// When each end learns that the connection was reset.
    reset_at: [Option<u64>; 2],
    /// An end whose machine vanished: what happens there is not heard of.
    vanished: [bool; 2],
}

impl Connection {
    fn wake(&mut self) {
        for pipe in &mut self.pipes {
            for waker in [pipe.reader.take(), pipe.writer.take()].into_iter().flatten() {
                waker.wake();
            }
        }
    }

    fn reset(&mut self, end: usize, at: u64) {
        let earliest = self.reset_at[end].map_or(at, |before| before.min(at));
        self.reset_at[end] = Some(earliest);
        self.wake();
    }
}

struct State {
    random: SmallRng,
    speed: LinkSpeed,
    nodes: Vec<Node>,
    /// By sender and receiver.
    links: BTreeMap<(usize, usize), Link>,
    listeners: BTreeMap<String, ListenerState>,
    connections: BTreeMap<u64, Connection>,
    next_id: u64,
    messages: u64,
    bytes: u64,
}

impl State {
    fn node(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    fn link(&self, from: usize, to: usize) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or_default()
    }

    fn latency(&mut self, from: usize, to: usize) -> u64 {
        let speed = self.speed;
        let mut micros = self.random.random_range(speed.min_micros..=speed.max_micros);
        if from != to && self.random.random_range(0..speed.one_slow_in) == 0 {
            micros *= self.random.random_range(2..100);
        }
        let link = self.link(from, to);
        let one_lost_in = if link.one_lost_in > 0 {
            link.one_lost_in
        } else {
            speed.one_lost_in
        };
        if from != to && one_lost_in > 0 && self.random.random_range(0..one_lost_in) == 0 {
            micros += self.random.random_range(RETRANSMISSION_MICROS);
        }
        micros * 1000 + link.extra_nanos
    }
}

/// All machines and the links between them. Clones share it.
#[derive(Clone)]
pub struct Fabric {
    state: Arc<Mutex<State>>,
    trace: Trace,
}

impl Fabric {
    /// A network of the machines `nodes`.
    pub fn new(nodes: &[String], seed: u64, speed: LinkSpeed, trace: Trace) -> Self {
        let nodes = nodes
            .iter()
            .map(|name| Node {
                name: name.clone(),
                power: Power::Up,
                incarnation: 0,
            })
            .collect();
        Self {
            trace,
            state: Arc::new(Mutex::new(State {
                random: SmallRng::seed_from_u64(seed),
                speed,
                nodes,
                links: BTreeMap::new(),
                listeners: BTreeMap::new(),
                connections: BTreeMap::new(),
                next_id: 1,
                messages: 0,
                bytes: 0,
            })),
        }
    }

    /// The network as the present process of `node` sees it.
    pub fn network_of(&self, node: &str) -> SimNetwork {
        let state = self.state.lock();
        let index = state.node(node).expect("the cluster made all of its nodes");
        SimNetwork {
            fabric: self.clone(),
            node: index,
            incarnation: state.nodes[index].incarnation,
        }
    }

    /// Chunks and bytes sent so far.
    pub fn traffic(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.messages, state.bytes)
    }

    /// The process or the machine (`silent`) of `node` dies.
    pub fn node_down(&self, node: &str, silent: bool) {
        let now = now_nanos();
        let mut state = self.state.lock();
        let Some(index) = state.node(node) else { return };
        state.nodes[index].power = if silent { Power::Silent } else { Power::Refusing };
        state.nodes[index].incarnation += 1;
        let (gone, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut state.listeners)
            .into_iter()
            .partition(|(_, listener)| listener.node == index);
        state.listeners = rest;
        let ids: Vec<u64> = state
            .connections
            .iter()
            .filter(|(_, connection)| connection.nodes.contains(&index))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let Some(connection) = state.connections.get(&id) else {
                continue;
            };
            let nodes = connection.nodes;
            for end in 0..2 {
                if nodes[end] != index {
                    continue;
                }
                let peer = 1 - end;
                let arrival = now + state.latency(nodes[end], nodes[peer]);
                let cut = state.link(nodes[end], nodes[peer]).cut.is_some();
                if let Some(connection) = state.connections.get_mut(&id) {
                    // Its own end is dead at once; should a task of the old process still run, it is told.
                    connection.reset(end, now);
                    connection.vanished[end] = true;
                    if !silent && !cut {
                        connection.reset(peer, arrival);
                    }
                }
            }
        }
        drop(state);
        // Connections that nobody accepted end without the lock held.
        drop(gone);
    }

    /// `node` is up again; peers of connections to its former life learn that these are gone.
    pub fn node_up(&self, node: &str) {
        let now = now_nanos();
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(index) = state.node(node) else { return };
        state.nodes[index].power = Power::Up;
        for connection in state.connections.values_mut() {
            for end in 0..2 {
                if connection.nodes[end] == index && connection.vanished[end] {
                    let retry = state.random.random_range(1..1000) * MILLISECOND;
                    connection.reset(1 - end, now + retry);
                }
            }
        }
    }

    /// Nothing passes from `from` to `to` any more.
    pub fn cut(&self, from: &str, to: &str, silence: CutSilence) {
        let now = now_nanos();
        let mut state = self.state.lock();
        let (Some(from), Some(to)) = (state.node(from), state.node(to)) else {
            return;
        };
        let link = state.links.entry((from, to)).or_default();
        if link.cut.is_none() {
            link.cut = Some((now, silence));
        }
        if silence == CutSilence::Resets {
            for connection in state.connections.values_mut() {
                if connection.nodes == [from, to] || connection.nodes == [to, from] {
                    connection.reset(0, now);
                    connection.reset(1, now);
                }
            }
        }
    }

    /// The link works again; what was held back is sent anew.
    pub fn heal(&self, from: &str, to: &str) {
        let now = now_nanos();
        let mut state = self.state.lock();
        let state = &mut *state;
        let (Some(from), Some(to)) = (state.node(from), state.node(to)) else {
            return;
        };
        let Some(link) = state.links.get_mut(&(from, to)) else {
            return;
        };
        let Some((since, _)) = link.cut.take() else { return };
        for connection in state.connections.values_mut() {
            for end in 0..2 {
                if connection.nodes[end] != from || connection.nodes[1 - end] != to {
                    continue;
                }
                let again = now + state.random.random_range(1..200) * MILLISECOND;
                let pipe = &mut connection.pipes[end];
                for (arrival, _) in &mut pipe.chunks {
                    if *arrival > since {
                        *arrival = (*arrival).max(again);
                        pipe.last_arrival = pipe.last_arrival.max(*arrival);
                    }
                }
                if let Some(arrival) = &mut pipe.end_arrives
                    && *arrival > since
                {
                    *arrival = (*arrival).max(pipe.last_arrival).max(again);
                }
            }
            connection.wake();
        }
    }

    /// What deliveries between two machines take longer, in both directions.
    pub fn slow_link(&self, one: &str, other: &str, delay: Duration) {
        let mut state = self.state.lock();
        let (Some(one), Some(other)) = (state.node(one), state.node(other)) else {
            return;
        };
        let extra_nanos = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        for pair in [(one, other), (other, one)] {
            state.links.entry(pair).or_default().extra_nanos = extra_nanos;
        }
    }
}

impl Fabric {
    /// How many deliveries between two machines get lost at first, in both directions: one in so many; 0: as everywhere.
    pub fn lossy_link(&self, one: &str, other: &str, one_in: u32) {
        let mut state = self.state.lock();
        let (Some(one), Some(other)) = (state.node(one), state.node(other)) else {
            return;
        };
        for pair in [(one, other), (other, one)] {
            state.links.entry(pair).or_default().one_lost_in = one_in;
        }
    }

    /// Resets up to `most` connections of `node`, whatever it may be that they carry.
    pub fn reset_connections(&self, node: &str, most: usize) {
        let now = now_nanos();
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(index) = state.node(node) else { return };
        let is_whole = |connection: &Connection| connection.reset_at == [None, None];
        let mut ids: Vec<u64> = state
            .connections
            .iter()
            .filter(|(_, connection)| connection.nodes.contains(&index) && is_whole(connection))
            .map(|(id, _)| *id)
            .collect();
        ids.shuffle(&mut state.random);
        for id in ids.into_iter().take(most) {
            let Some(connection) = state.connections.get(&id) else {
                continue;
            };
            let [one, other] = connection.nodes;
            let arrival = now + state.latency(one, other);
            trace!(self.trace, "net connection {id} is reset");
            if let Some(connection) = state.connections.get_mut(&id) {
                connection.reset(0, now);
                connection.reset(1, arrival);
            }
        }
    }
}

/// The network of one process.
#[derive(Clone)]
pub struct SimNetwork {
    fabric: Fabric,
    node: usize,
    incarnation: u64,
}

fn port_of(address: &str) -> io::Result<(&str, &str)> {
    address
        .rsplit_once(':')
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is not host:port")))
}

/// What a connection attempt met.
enum Attempt {
    Connected(SimStream),
    Refused,
    NoAnswer,
}

impl SimNetwork {
    fn alive(&self, state: &State) -> io::Result<()> {
        if state.nodes[self.node].incarnation == self.incarnation {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::NetworkDown, "the node is down"))
        }
    }

    fn attempt(&self, address: &str) -> io::Result<Attempt> {
        let (host, _) = port_of(address)?;
        let mut state = self.fabric.state.lock();
        let state = &mut *state;
        self.alive(state)?;
        let Some(target) = state.node(host) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no host {host}")));
        };
        let cuts = [
            state.link(self.node, target).cut,
            state.link(target, self.node).cut,
        ];
        if cuts
            .iter()
            .flatten()
            .any(|(_, silence)| *silence == CutSilence::Resets)
        {
            return Ok(Attempt::Refused);
        }
        if cuts.iter().any(Option::is_some) {
            return Ok(Attempt::NoAnswer);
        }
        match state.nodes[target].power {
            Power::Silent => return Ok(Attempt::NoAnswer),
            Power::Refusing => return Ok(Attempt::Refused),
            Power::Up => {}
        }
        let id = state.next_id;
        let Some(listener) = state.listeners.get_mut(address) else {
            return Ok(Attempt::Refused);
        };
        state.next_id += 1;
        let stream = |end| SimStream {
            fabric: self.fabric.clone(),
            connection: id,
            end,
            sleep: None,
        };
        let peer = format!("{}:{}", state.nodes[self.node].name, 30_000 + id);
        listener.waiting.push_back((stream(1), peer));
        if let Some(waker) = listener.waker.take() {
            waker.wake();
        }
        state.connections.insert(
            id,
            Connection {
                nodes: [self.node, target],
                pipes: [Pipe::default(), Pipe::default()],
                open: [true, true],
                reset_at: [None, None],
                vanished: [false, false],
            },
        );
        trace!(
            self.fabric.trace,
            "net {} connects to {address} as {id}", state.nodes[self.node].name
        );
        Ok(Attempt::Connected(stream(0)))
    }
}

#[async_trait]
impl Network for SimNetwork {
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let (_, port) = port_of(address)?;
        let mut state = self.fabric.state.lock();
        self.alive(&state)?;
        let id = state.next_id;
        state.next_id += 1;
        let port = if port == "0" {
            (40_000 + id).to_string()
        } else {
            port.to_owned()
        };
        let address = format!("{}:{port}", state.nodes[self.node].name);
        if state.listeners.contains_key(&address) {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("{address} is in use"),
            ));
        }
        state.listeners.insert(
            address.clone(),
            ListenerState {
                id,
                node: self.node,
                waiting: VecDeque::new(),
                waker: None,
            },
        );
        Ok(Box::new(SimListener {
            fabric: self.fabric.clone(),
            id,
            address,
        }))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let round_trip = {
            let mut state = self.fabric.state.lock();
            state.latency(self.node, self.node) * 2
        };
        madsim::time::sleep(Duration::from_nanos(round_trip)).await;
        let give_up = now_nanos() + CONNECT_LIMIT_NANOS;
        loop {
            match self.attempt(address)? {
                Attempt::Connected(stream) => return Ok(Box::new(stream)),
                Attempt::Refused => {
                    let refused = format!("{address} refused the connection");
                    return Err(io::Error::new(io::ErrorKind::ConnectionRefused, refused));
                }
                Attempt::NoAnswer if now_nanos() >= give_up => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("{address} does not answer"),
                    ));
                }
                Attempt::NoAnswer => madsim::time::sleep(CONNECT_RETRY).await,
            }
        }
    }
}

struct SimListener {
    fabric: Fabric,
    id: u64,
    address: String,
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut state = self.fabric.state.lock();
        let mine = state
            .listeners
            .get(&self.address)
            .is_some_and(|listener| listener.id == self.id);
        let gone = if mine {
            state.listeners.remove(&self.address)
        } else {
            None
        };
        drop(state);
        // Connections that nobody accepted end without the lock held.
        drop(gone);
    }
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, NodeAddress)> {
        let (stream, peer) = poll_fn(|context| {
            let mut state = self.fabric.state.lock();
            match state.listeners.get_mut(&self.address) {
                Some(listener) if listener.id == self.id => match listener.waiting.pop_front() {
                    Some(connection) => Poll::Ready(Ok(connection)),
                    None => {
                        listener.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                },
                // The machine is dead and its tasks are about to be.
                _ => Poll::Pending,
            }
        })
        .await
        .map_err(|error: io::Error| error)?;
        Ok((Box::new(stream), peer))
    }

    fn local_address(&self) -> NodeAddress {
        self.address.clone()
    }
}

struct SimStream {
    fabric: Fabric,
    connection: u64,
    end: usize,
    sleep: Option<(u64, Pin<Box<madsim::time::Sleep>>)>,
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer")
}

/// What a reader finds.
enum Arrived {
    Data,
    End,
    Reset,
    /// Nothing before this time, or until woken.
    Nothing(Option<u64>),
}

impl SimStream {
    fn poll_arrived(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Arrived {
        let now = now_nanos();
        let mut state = self.fabric.state.lock();
        let state = &mut *state;
        let Some(connection) = state.connections.get_mut(&self.connection) else {
            return Arrived::Reset;
        };
        let writing = 1 - self.end;
        let reset_at = connection.reset_at[self.end];
        if reset_at.is_some_and(|at| at <= now) {
            return Arrived::Reset;
        }
        let link = (connection.nodes[writing], connection.nodes[self.end]);
        let held_back_after = state
            .links
            .get(&link)
            .and_then(|link| link.cut)
            .map_or(u64::MAX, |(since, _)| since);
        let pipe = &mut connection.pipes[writing];
        let next = match pipe.chunks.front_mut() {
            Some((arrival, chunk)) if *arrival <= now && *arrival <= held_back_after => {
                let mut take = chunk.len().min(buffer.remaining());
                // Streams have no message borders: now and then a read ends anywhere.
                if take > 1 && state.random.random_range(0..64) == 0 {
                    take = state.random.random_range(1..take);
                }
                buffer.put_slice(&chunk[..take]);
                chunk.advance(take);
                pipe.bytes -= take;
                if chunk.is_empty() {
                    pipe.chunks.pop_front();
                }
                if let Some(waker) = pipe.writer.take() {
                    waker.wake();
                }
                return Arrived::Data;
            }
            Some((arrival, _)) => Some(*arrival),
            None => match pipe.end_arrives {
                Some(arrival) if arrival <= now && arrival <= held_back_after => return Arrived::End,
                arrival => arrival,
            },
        };
        pipe.reader = Some(context.waker().clone());
        let next = next.filter(|arrival| *arrival <= held_back_after);
        Arrived::Nothing(next.into_iter().chain(reset_at).min())
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match self.poll_arrived(context, buffer) {
                Arrived::Data | Arrived::End => return Poll::Ready(Ok(())),
                Arrived::Reset => return Poll::Ready(Err(reset())),
                Arrived::Nothing(None) => return Poll::Pending,
                Arrived::Nothing(Some(at)) => {
                    if self.sleep.as_ref().is_none_or(|(until, _)| *until != at) {
                        let wait = Duration::from_nanos(at.saturating_sub(now_nanos()));
                        self.sleep = Some((at, Box::pin(madsim::time::sleep(wait))));
                    }
                    if let Some((_, sleep)) = &mut self.sleep {
                        if sleep.as_mut().poll(context).is_pending() {
                            return Poll::Pending;
                        }
                        self.sleep = None;
                    }
                }
            }
        }
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let now = now_nanos();
        let mut state = self.fabric.state.lock();
        let state = &mut *state;
        let Some(connection) = state.connections.get(&self.connection) else {
            return Poll::Ready(Err(reset()));
        };
        if connection.reset_at[self.end].is_some_and(|at| at <= now) {
            return Poll::Ready(Err(reset()));
        }
        let peer = 1 - self.end;
        let peer_left = connection.pipes[peer].end_arrives.is_some_and(|at| at <= now);
        if peer_left && !connection.open[peer] {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the peer is gone")));
        }
        let (from, to) = (connection.nodes[self.end], connection.nodes[peer]);
        let latency = state.latency(from, to);
        let Some(connection) = state.connections.get_mut(&self.connection) else {
            return Poll::Ready(Err(reset()));
        };
        let pipe = &mut connection.pipes[self.end];
        if pipe.bytes >= WINDOW_BYTES {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let arrival = pipe.last_arrival.max(now + latency);
        pipe.last_arrival = arrival;
        pipe.chunks.push_back((arrival, Bytes::copy_from_slice(data)));
        pipe.bytes += data.len();
        if let Some(waker) = pipe.reader.take() {
            waker.wake();
        }
        state.messages += 1;
        state.bytes += data.len() as u64;
        trace!(
            self.fabric.trace,
            "net {} > {} {} bytes {:08x}",
            state.nodes[from].name,
            state.nodes[to].name,
            data.len(),
            crc32c::crc32c(data)
        );
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.fabric.state.lock();
        end_pipe(&mut state, self.connection, self.end);
        Poll::Ready(Ok(()))
    }
}

/// Lets the reader of what `end` writes find the end of it.
fn end_pipe(state: &mut State, id: u64, end: usize) {
    let Some(connection) = state.connections.get(&id) else {
        return;
    };
    if connection.vanished[end] || connection.pipes[end].end_arrives.is_some() {
        return;
    }
    let (from, to) = (connection.nodes[end], connection.nodes[1 - end]);
    let arrival = now_nanos() + state.latency(from, to);
    if let Some(connection) = state.connections.get_mut(&id) {
        let pipe = &mut connection.pipes[end];
        pipe.end_arrives = Some(arrival.max(pipe.last_arrival));
        connection.wake();
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut state = self.fabric.state.lock();
        let state = &mut *state;
        end_pipe(state, self.connection, self.end);
        if let Some(connection) = state.connections.get_mut(&self.connection) {
            connection.open[self.end] = false;
            connection.wake();
            if !connection.open[0] && !connection.open[1] {
                state.connections.remove(&self.connection);
            }
        }
    }
}

#[cfg(test)]
mod tests;
