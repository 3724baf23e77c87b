//! HTTP/1.1 or HTTP/2 on a stream, with the time and the memory that a client may take for it.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::Http2Config;
use crate::drain::Drain;
use crate::reply::{Body, Refusal};

/// Bytes of a request's headers; more is answered 431.
const HEADER_BYTES: usize = 32 << 10;
/// Headers of a request.
const HEADERS: usize = 100;

/// What a client may send on one stream of HTTP/2 before the gateway has read it.
const STREAM_WINDOW: u32 = 32 << 10;
/// What the gateway keeps of a stream that the client does not take.
const SEND_BUFFER: usize = 32 << 10;
/// Streams that a client has taken back before they were answered, and that it had reset for mistakes of its own: with
/// more, it only wants to make work.
const RESETS: usize = 20;
const ERRORS: usize = 128;

/// Serves a connection's requests until it is closed or upgraded.
pub async fn serve<S, F>(stream: S, timeout: Duration, drain: &Drain, answer: impl Fn(Request<Incoming>) -> F)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        served = connection.as_mut() => {
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended in an error");
            }
            return;
        }
        () = drain.begun() => {}
    }
    // The request under way is answered; no other is taken.
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(timeout, connection).await;
}

/// What many requests of a connection share.
pub struct Shared<'a> {
    pub config: &'a Http2Config,
    /// Until the first request.
    pub timeout: Duration,
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
    let Shared { config, timeout, is_idle } = shared;
    let begun = Arc::new(AtomicBool::new(false));
    let asked = begun.clone();
    let answer = Arc::new(answer);
    let answer = move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let answer = answer.clone();
        async move {
            // A list of short headers may be within its bytes and still be a long one.
            if request.headers().len() > HEADERS {
                let (status, why) = (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many headers".to_owned());
                return Ok(Refusal { status, why, headers: Vec::new() }.answer());
            }
            answer(request).await
        }
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(config.streams)
        .max_header_list_size(HEADER_BYTES as u32)
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
