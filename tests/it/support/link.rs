//! A link to a server that can be bad: a TCP proxy that holds what it carries, carries it late, or cuts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::redis::Server;

/// How the link is now.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// What is sent towards the server stays on the way, as do new connections: as in a partition, whose end lets TCP send it
    /// again.
    holds_up: bool,
    /// The same for what comes from the server.
    holds_down: bool,
    /// For each way.
    delay: Duration,
    /// New connections are closed at once.
    refuses: bool,
    /// Connections of earlier numbers are cut.
    life: u64,
}

/// A link to one server, through which any number of connections go.
pub(crate) struct Link {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

impl Link {
    pub(crate) async fn to(server: &Server) -> Self {
        let port = server.url().rsplit(':').next().unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State::default()));
        let seen = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let now = *seen.borrow();
                if now.refuses {
                    let _ = client.set_zero_linger();
                    continue;
                }
                tokio::spawn(carry(client, port, now.life, seen.subscribe()));
            }
        });
        Self { address, state }
    }

    /// `redis://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Nothing gets through, either way, and nobody is told.
    pub(crate) fn hold(&self) {
        self.state.send_modify(|state| (state.holds_up, state.holds_down) = (true, true));
    }

    /// What the server says does not arrive, what it is told does.
    pub(crate) fn hold_answers(&self) {
        self.state.send_modify(|state| state.holds_down = true);
    }

    /// Everything takes longer by this, each way.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Ends all connections, as a router does that has forgotten them, and takes no new ones.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| {
            state.life += 1;
            state.refuses = true;
        });
    }

    /// From now on all is well. What was held goes on its way.
    pub(crate) fn heal(&self) {
        self.state.send_modify(|state| *state = State { life: state.life, ..State::default() });
    }
}

async fn carry(client: TcpStream, port: u16, life: u64, mut state: watch::Receiver<State>) {
    // A SYN that is held has no answer.
    if state.wait_for(|now| !now.holds_up || now.life != life).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
        let _ = client.set_zero_linger();
        return;
    };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        // So that a cut is a reset, and not a goodbye.
        let _ = stream.set_zero_linger();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = state.clone();
    tokio::select! {
        () = pump(from_client, to_server, state.clone(), |state| state.holds_up) => {}
        () = pump(from_server, to_client, state, |state| state.holds_down) => {}
        _ = cut.wait_for(|now| now.life != life) => {}
    }
}

/// Pieces that are on the way in one direction.
const UNDER_WAY: usize = 4096;

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    held: fn(&State) -> bool,
) {
    let (tell, mut told) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let reading = async move {
        let mut piece = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            if tell.send((Instant::now(), piece[..count].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let writing = async move {
        while let Some((came, piece)) = told.recv().await {
            loop {
                let Ok(now) = state.wait_for(|state| !held(state)).await.map(|state| *state) else { return };
                sleep_until(came + now.delay).await;
                // It may be held by now.
                if !held(&state.borrow()) {
                    break;
                }
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    // What was read is still delivered after the end.
    tokio::join!(reading, writing);
}
