//! HTTP/1.1 on an accepted connection, with the time that a client may take for it.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use crate::drain::Drain;
use crate::reply::Body;

/// Bytes of a request's headers; more is answered 431.
const HEADER_BYTES: usize = 32 << 10;
/// Headers of a request.
const HEADERS: usize = 100;

/// Serves a connection's requests until it is closed or upgraded.
pub async fn serve<F>(stream: TcpStream, timeout: Duration, drain: &Drain, answer: impl Fn(Request<Incoming>) -> F)
where
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
