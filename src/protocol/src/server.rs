//! Serves calls from other processes of the cluster.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use neorunbase_world::clock::timeout;
use neorunbase_world::{Listener, Stream, World};
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::channel::RequestHandler;
use crate::frame::{FrameKind, FrameOpener, FrameSealer};
use crate::handshake::{self, ClusterSecret};
use crate::message::{Request, Response};

/// A caller has so long to prove that it belongs to the cluster.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// A connection on which nothing (not even a ping) arrives for so long is closed.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);
/// Answers waiting for a slow socket before calls on it stall.
const ANSWER_QUEUE_LENGTH: usize = 1024;

/// Accepts connections until the node dies; one stranger's garbage never disturbs the others.
pub async fn serve(
    world: World,
    listener: Box<dyn Listener>,
    secret: ClusterSecret,
    handler: Arc<dyn RequestHandler>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let connection =
                    serve_connection(world.clone(), stream, peer, secret.clone(), handler.clone());
                world
                    .spawner
                    .spawn("node server connection", Box::pin(connection));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a node connection");
                world.clock.sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(
    world: World,
    mut stream: Box<dyn Stream>,
    peer: String,
    secret: ClusterSecret,
    handler: Arc<dyn RequestHandler>,
) {
    let handshake = handshake::answer(&mut *stream, &secret, &*world.entropy);
    let keys = match timeout(&*world.clock, HANDSHAKE_DEADLINE, handshake).await {
        Ok(Ok(keys)) => keys,
        Ok(Err(error)) => {
            tracing::warn!(%peer, %error, "refused a node connection");
            return;
        }
        Err(_) => return,
    };
    let (reader, writer) = tokio::io::split(stream);
    let (answers, queue) = mpsc::channel(ANSWER_QUEUE_LENGTH);
    tokio::select! {
        biased;
        () = write_answers(writer, FrameSealer::new(&keys.sending), queue) => {}
        () = read_requests(&world, reader, FrameOpener::new(&keys.receiving), &peer, handler, answers) => {}
    }
}

async fn read_requests<R: tokio::io::AsyncRead + Unpin>(
    world: &World,
    mut reader: R,
    mut opener: FrameOpener,
    peer: &str,
    handler: Arc<dyn RequestHandler>,
    answers: mpsc::Sender<(u64, FrameKind, Option<Response>)>,
) {
    loop {
        let frame = match timeout(&*world.clock, SILENCE_LIMIT, opener.next(&mut reader)).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%peer, %error, "dropped a node connection");
                return;
            }
        };
        match frame.kind {
            FrameKind::Ping => {
                if answers.send((0, FrameKind::Pong, None)).await.is_err() {
                    return;
                }
            }
            FrameKind::Request => {
                let request = match Request::decode(frame.body) {
                    Ok(request) => request,
                    Err(error) => {
                        tracing::warn!(%peer, %error, "dropped a node connection");
                        return;
                    }
                };
                let (handler, answers, call) = (handler.clone(), answers.clone(), frame.call);
                // A call may wait for row locks: it must not hold up the calls behind it.
                world.spawner.spawn(
                    "node call",
                    Box::pin(async move {
                        let response = handler.handle(request).await;
                        // The connection may be gone; the caller then treats the outcome as unknown.
                        let _ = answers.send((call, FrameKind::Response, Some(response))).await;
                    }),
                );
            }
            FrameKind::Response | FrameKind::Pong => {}
        }
    }
}

async fn write_answers<W: tokio::io::AsyncWrite + Unpin>(
    mut writer: W,
    mut sealer: FrameSealer,
    mut queue: mpsc::Receiver<(u64, FrameKind, Option<Response>)>,
) {
    let mut buffer = BytesMut::new();
    while let Some(first) = queue.recv().await {
        buffer.clear();
        let mut next = Some(first);
        while let Some((call, kind, response)) = next {
            let body = response
                .map(|response| response.encode_to_vec())
                .unwrap_or_default();
            if sealer.seal(call, kind, &body, &mut buffer).is_err() {
                return;
            }
            next = queue.try_recv().ok();
        }
        if writer.write_all(&buffer).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}
