//! Bind, take a permit, accept, hand the stream on: the listener knows nothing of what is served.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::permits::Connected;

/// The kernel's queue of connections that nobody has accepted yet.
const BACKLOG: u32 = 4096;
/// How long accepting pauses when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// A bound address.
pub struct Listener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    connections: IntGauge,
    metrics: Arc<Metrics>,
    /// The last attempt to accept has failed.
    paused: AtomicBool,
}

/// A place among the connections, for as long as it is held.
pub struct Permit {
    _place: Place,
    /// Where it counts for its client's address.
    connected: OnceLock<Box<Connected>>,
}

enum Place {
    Own {
        _permit: OwnedSemaphorePermit,
        connections: IntGauge,
    },
    /// That of the connection which a request has come by.
    Shared {
        _permit: Arc<Permit>,
    },
}

impl Permit {
    /// For what one client asks by way of a connection that others use as well.
    pub fn behind(connection: &Arc<Self>, counted: Option<Box<Connected>>) -> Arc<Self> {
        let Some(counted) = counted else { return connection.clone() };
        let place = Place::Shared { _permit: connection.clone() };
        Arc::new(Self { _place: place, connected: OnceLock::from(counted) })
    }

    /// Counts for its client as long as it is held.
    pub fn count(&self, counted: Option<Box<Connected>>) {
        if let Some(counted) = counted {
            let _ = self.connected.set(counted);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Own { connections, .. } = self {
            connections.dec();
        }
    }
}

impl Listener {
    /// `name` is the listener's in metrics; `connections` are at a time, at most.
    pub fn bind(name: &str, address: SocketAddr, connections: usize, metrics: Arc<Metrics>) -> io::Result<Self> {
        let permits = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self::bind_with(name, address, permits, metrics)
    }

    /// Another address, whose connections count among this one's.
    pub fn beside(&self, name: &str, socket: Option<std::net::TcpListener>, address: SocketAddr) -> io::Result<Self> {
        let (permits, metrics) = (self.permits.clone(), self.metrics.clone());
        let Some(socket) = socket else { return Self::bind_with(name, address, permits, metrics) };
        socket.set_nonblocking(true)?;
        Ok(Self::on(TcpListener::from_std(socket)?, name, permits, metrics))
    }

    fn bind_with(name: &str, address: SocketAddr, permits: Arc<Semaphore>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // So that a restart need not wait for the connections of the one before to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self::on(socket.listen(BACKLOG)?, name, permits, metrics))
    }

    /// The same on a socket that somebody else has bound, and may go on listening to.
    pub fn inherit(
        name: &str,
        socket: std::net::TcpListener,
        connections: usize,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let permits = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        socket.set_nonblocking(true)?;
        Ok(Self::on(TcpListener::from_std(socket)?, name, permits, metrics))
    }

    fn on(listener: TcpListener, name: &str, permits: Arc<Semaphore>, metrics: Arc<Metrics>) -> Self {
        let connections = metrics.connections.with_label_values(&[name]);
        Self { listener, permits, connections, metrics, paused: AtomicBool::new(false) }
    }

    /// Another descriptor of the same socket, for another process.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// The address, with the port that the system chose where 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Hands on what is accepted, until the drain begins.
    pub async fn serve<F>(self, drain: Drain, serve: impl Fn(TcpStream, SocketAddr, Permit) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ends = drain.accepting_ends();
        let mut ends = std::pin::pin!(ends);
        loop {
            let accepted = tokio::select! {
                () = &mut ends => return,
                accepted = self.accept() => accepted,
            };
            let Some((stream, peer, permit)) = accepted else {
                continue;
            };
            tokio::spawn(serve(stream, peer, permit));
        }
    }

    /// The permit comes first: what cannot be served stays in the kernel's queue.
    async fn accept(&self) -> Option<(TcpStream, SocketAddr, Permit)> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.metrics.accept_pauses.inc();
                self.permits.clone().acquire_owned().await.ok()?
            }
        };
        match self.listener.accept().await {
            Ok((stream, peer)) => {
                // A small message must not wait for the acknowledgement of the one before (Nagle's algorithm).
                let _ = stream.set_nodelay(true);
                if self.paused.swap(false, Ordering::Relaxed) {
                    tracing::info!("connections are accepted again");
                }
                self.connections.inc();
                Some((
                    stream,
                    peer,
                    Permit {
                        _place: Place::Own { _permit: permit, connections: self.connections.clone() },
                        connected: OnceLock::new(),
                    },
                ))
            }
            Err(error) => {
                // Out of descriptors, or a connection that has gone already: the sessions that are here must not feel it.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    self.metrics.accept_pauses.inc();
                    // It is tried again many times a second, and told once.
                    if !self.paused.swap(true, Ordering::Relaxed) {
                        tracing::warn!(%error, "connections cannot be accepted: they wait in the kernel's queue until there is room");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                None
            }
        }
    }
}
