//! How a session begins: from what an answered handshake leaves to a future that serves the client.

use std::sync::Arc;

use super::format::Format;
use super::reader::Reader;
use super::{Kind, Session, Waiting};
use crate::apply::Applier;
use crate::heartbeat::{Beat, Pulse};
use crate::outbox::{Line, Mailbox, Outbox, Packer, Request, SlowCounters, Stream};
use crate::plugin::{Effects, RouteChain};
use crate::rate::Bucket;
use crate::state::SessionState;
use crate::transport::websocket::{Agreed, Decoder, Inflation};
use crate::wire::{Positions, events};

/// What a session is begun with, once the handshake has been answered.
pub struct Begin {
    pub carrier: Carrier,
    /// What the client sent behind its handshake.
    pub read: Vec<u8>,
    /// None: messages go as they are.
    pub compression: Option<Agreed>,
    pub state: Box<SessionState>,
    /// What `authenticate` asked for.
    pub effects: Effects,
    pub route: Arc<RouteChain>,
    pub applier: Arc<Applier>,
    /// What is held as long as the session lasts: the connection's permit, a place in the drain.
    pub held: Box<dyn Send>,
}

/// What carries the client's bytes.
pub enum Carrier {
    Tcp(tokio::net::TcpStream),
    Stream(Box<dyn Stream>),
    /// Requests, which find the session by its mailbox.
    Requests(Kind, Box<Mailbox>, Positions),
}

/// Serves a client until its session is over. The route's place (`Route::enter`) is given back at the end.
///
/// The future is what an idle session is made of, so it holds nothing that is needed only at times.
pub fn serve(begin: Begin) -> impl Future<Output = ()> + Send {
    let (session, first) = begun(begin);
    live(session, first)
}

/// The same for a client that comes by requests, with the outbox that they fetch from. An event stream begins with what the
/// client needs to send messages of its own; `retry` is when it should come back, in milliseconds.
pub fn serve_requests(begin: Begin, retry: u32) -> (Arc<Outbox>, impl Future<Output = ()> + Send) {
    let (session, first) = begun(begin);
    let outbox = session.outbox.clone();
    if let (Format::Requests(requests), Some(mailbox)) = (&session.format, outbox.mailbox())
        && requests.kind == Kind::Events
    {
        let mut greeting = Vec::new();
        events::greeting(&mut greeting, mailbox.token(), retry);
        outbox.write(&greeting, 0);
    }
    (outbox, live(session, first))
}

#[allow(clippy::manual_async_fn, reason = "it would have room for the session twice: as its parameter, and as its own")]
fn live(mut session: Session, first: Box<Waiting>) -> impl Future<Output = ()> + Send {
    async move {
        let (close, by) = session.run(first).await;
        // What is left of a session's life is short, and needs more room than the life of an idle one.
        Box::pin(session.end(close, by)).await;
    }
}

/// A session, and what happens to it first.
fn begun(begin: Begin) -> (Session, Box<Waiting>) {
    let Begin { carrier, read, compression, state, effects, route, applier, held } = begin;
    let mut format = Format::WebSocket;
    let (reader, line) = match carrier {
        Carrier::Tcp(socket) => {
            let (reader, writer) = socket.into_split();
            (Reader::Tcp(reader), Line::Tcp(writer))
        }
        Carrier::Stream(stream) => (Reader::Line, Line::stream(stream)),
        Carrier::Requests(kind, mailbox, resume) => {
            format = Format::requests(kind, resume);
            (Reader::Line, Line::Fetched(mailbox))
        }
    };
    let rules = route.route.rules();
    // What is shared with other sessions is made for frames.
    let by_hand = route.route.outbound || format.counts();
    let packer = compression.as_ref().map(|agreed| {
        let sessions = route.route.counters.compressed_sessions.clone();
        Packer::new(agreed.compression, agreed.server_takeover, applier.node.metrics.clone(), sessions)
    });
    let inflation = match compression {
        None => Inflation::Off,
        Some(agreed) if agreed.client_takeover => Inflation::Takeover(None),
        Some(_) => Inflation::Alone,
    };
    let slow = SlowCounters::new(&applier.node.metrics, &route.route.name, rules.overflow);
    let outbox = Arc::new(Outbox::new(state.id, line, rules.outbox_limit, rules.overflow, by_hand, packer, slow));
    let now = applier.node.clock.now();
    let mut pulse = Pulse::new(now, state.id.node ^ state.id.number);
    let first_beat = match pulse.beat(&rules.heartbeat, now) {
        Beat::Sleep(until) => until,
        Beat::Ping(..) | Beat::Dead => now,
    };
    applier.node.registry.add(&outbox, state.user.as_ref());
    if route.route.is_gone() {
        // The handshake was under way when the others were told.
        let _ = outbox.request(Request::RouteGone);
    }
    let session = Session {
        outbox,
        reader,
        decoder: Decoder::resume(read, inflation),
        format,
        state: Some(state),
        pulse,
        bucket: Bucket::new(now),
        control: Bucket::new(now),
        alarm: applier.node.clock.alarm(first_beat),
        greedy: false,
        congested: None,
        holds: false,
        holds_for_gap: false,
        ending: None,
        applier,
        route,
        _held: held,
    };
    (session, Box::new(Waiting::Opened(effects)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// tokio adds some 100 bytes of its own and makes multiples of 128 of it; each idle session has one.
    #[test]
    fn the_task_of_an_idle_session_stays_small() {
        fn size<F>(_: impl Fn(Session, Box<Waiting>) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(live) <= 288, "{} bytes", size(live));
    }
}
