//! HTTP/1.1 or HTTP/2 on a stream, with the time and the room that a client may take for it.

mod heads;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::config::{ConnectionsConfig, Http2Config};
use crate::drain::Drain;
use crate::reply::{Body, Refusal};

pub use self::heads::{Guarded, Limits, Refused};

/// What a client may send on one stream of HTTP/2 before the gateway has read it.
const STREAM_WINDOW: u32 = 32 << 10;
/// What the gateway keeps of a stream that the client does not take.
const SEND_BUFFER: usize = 32 << 10;
/// Streams that a client has taken back before they were answered, and that it had reset for mistakes of its own: with
/// more, it only wants to make work.
const RESETS: usize = 20;
const ERRORS: usize = 128;
/// The least that the HTTP library reads into.
const LEAST: usize = 8 << 10;
/// How long the client's side stays open after a refusal, so that what it is still sending does not take the answer away
/// from it.
const LINGER: Duration = Duration::from_secs(1);

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For each request's head.
    pub timeout: Duration,
    pub limits: Limits,
}

impl Bounds {
    pub fn new(timeout: Duration, config: &ConnectionsConfig) -> Self {
        let limits = Limits { uri: config.uri.0, headers: config.headers, header_size: config.header_size.0 };
        Self { timeout, limits }
    }
}

/// Serves a connection's requests until it is closed or upgraded. `refused` is told what ended it where a request could not
/// be read, before the client is.
pub async fn serve<S, F>(
    stream: S,
    bounds: Bounds,
    drain: &Drain,
    answer: impl Fn(Request<Incoming>) -> F,
    refused: impl FnOnce(Refused),
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let Bounds { timeout: time, limits } = bounds;
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(time)
        // The limits are kept below; these are never reached.
        .max_buf_size((2 * (limits.uri + limits.header_size)).max(LEAST))
        .max_headers(limits.headers + 1)
        .serve_connection(TokioIo::new(Guarded::new(stream, limits)), service_fn(answer))
        .with_upgrades();
    let served = tokio::select! {
        served = &mut connection => Some(served),
        () = drain.begun() => None,
    };
    let served = match served {
        Some(served) => served,
        None => {
            // The request under way is answered; no other is taken. An event stream is an answer that goes on until its
            // session is told to go.
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            let left = async {
                drain.empty().await;
                tokio::time::sleep(time).await;
            };
            tokio::select! {
                served = &mut connection => served,
                () = left => Ok(()),
            }
        }
    };
    let Some(parts) = connection.into_parts() else { return };
    let guarded = parts.io.into_inner();
    let Some(unread) = guarded.refused() else {
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended in an error");
        }
        return;
    };
    tracing::debug!(why = unread.why(), "a request was not read");
    refused(unread);
    let _ = timeout(LINGER, refuse(guarded.into_inner(), unread)).await;
}

/// The one answer, and the end.
async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, refused: Refused) -> std::io::Result<()> {
    let (status, why) = (refused.status(), refused.why());
    let answer = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{why}",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        why.len(),
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut room = vec![0; 4 << 10];
    while stream.read(&mut room).await? > 0 {}
    Ok(())
}

/// What many requests of a connection share.
pub struct Shared<'a> {
    pub config: &'a Http2Config,
    /// The timeout is that until the first request.
    pub bounds: Bounds,
    /// Whether there is neither a request nor a session now.
    pub is_idle: &'a (dyn Fn() -> bool + Sync),
}

/// Serves a connection's requests, many at a time, until it is closed.
pub async fn serve_http2<S, A, F>(stream: S, shared: Shared<'_>, drain: &Drain, answer: A)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    // Sessions leave before what carries them: their last frames are still on their way when they have ended.
    let Some(_guest) = drain.enter() else { return };
    let Shared { config, bounds: Bounds { timeout, limits }, is_idle } = shared;
    let begun = Arc::new(AtomicBool::new(false));
    let asked = begun.clone();
    let answer = Arc::new(answer);
    let answer = move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let answer = answer.clone();
        async move {
            // A list of short headers may be within its bytes and still be a long one.
            let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
            let refused = match () {
                () if target > limits.uri => Some(Refused::LongUri),
                () if request.headers().len() > limits.headers => Some(Refused::ManyHeaders),
                () => None,
            };
            if let Some(refused) = refused {
                let (status, why) = (refused.status(), refused.why().to_owned());
                return Ok(Refusal { status, why, headers: Vec::new() }.answer());
            }
            answer(request).await
        }
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(config.streams)
        .max_header_list_size(u32::try_from(limits.header_size).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        // As much as all streams together, so that those which nobody reads do not stop the others.
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(config.streams + 1))
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(ERRORS)
        .keep_alive_interval(config.ping_interval.0)
        .keep_alive_timeout(config.ping_timeout.0)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    let mut connection = std::pin::pin!(connection);
    let idle = async {
        // A client that never asks for anything has less time than one that may ask again.
        tokio::time::sleep(timeout).await;
        while begun.load(Ordering::Relaxed) {
            // Twice in a row: it may be between two requests.
            tokio::time::sleep(config.idle_timeout.0 / 2).await;
            if is_idle() {
                tokio::time::sleep(config.idle_timeout.0 / 2).await;
                if is_idle() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        served = connection.as_mut() => {
            if let Err(error) = served {
                tracing::debug!(%error, "an HTTP/2 connection ended in an error");
            }
            return;
        }
        () = idle => {}
        () = drain.begun() => {}
    }
    // GOAWAY: streams that are there go on to their end, others are not taken.
    connection.as_mut().graceful_shutdown();
    if begun.load(Ordering::Relaxed) && !is_idle() {
        let _ = connection.await;
    } else {
        let _ = tokio::time::timeout(timeout, connection).await;
    }
}
