//! How a session ends: the goodbye, the last event, and what it leaves behind.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::timeout;

use super::{After, Session, Work};
use crate::message::{Close, Closer};
use crate::plugin::{Event, Hook};

/// How long a client may take to read what waits for it, and the close frame behind it.
const FLUSH: Duration = Duration::from_secs(5);
/// How long the client's side of the connection may stay open after that. Whatever it sends meanwhile is thrown away.
const LINGER: Duration = Duration::from_secs(1);

impl Session {
    pub(super) async fn end(mut self, close: Close, by: Closer) {
        let route = self.route.clone();
        let metrics = &self.applier.node.metrics;
        let who = match by {
            Closer::Client => "client",
            Closer::Plugin => "plugin",
            Closer::Gateway => "gateway",
            Closer::Network => "network",
        };
        // Clients choose among thousands of private codes, which are no labels.
        let code = match close.code {
            3000.. if by == Closer::Client => "private".to_owned(),
            code => code.to_string(),
        };
        metrics.closes.with_label_values(&[&*route.route.name, &code, who]).inc();
        tracing::debug!(session = %self.outbox.id, route = &*route.route.name, code = close.code, reason = &*close.reason, by = who, "closed");
        self.outbox.end();
        // Others hear at once that the client has gone; that it is slow to go concerns nobody.
        self.closed(&close, by).await;
        match by {
            Closer::Network => self.outbox.finish(),
            _ => self.say_goodbye(&close, by).await,
        }
        if self.outbox.mailbox().is_some() {
            self.applier.node.registry.remove(self.outbox.id, None);
        }
        route.route.leave();
    }

    /// The last event, then everything that names the session is removed.
    async fn closed(&mut self, close: &Close, by: Closer) {
        let Some(state) = self.state.take() else {
            self.applier.node.registry.remove(self.outbox.id, None);
            return;
        };
        let chain = self.route.chain.load_full();
        let mut event = Some(Box::new(Event::of(state)));
        if chain.has(Hook::Closed) {
            match chain.closed(&mut event, close, by).await {
                Ok(()) => {
                    // What is sent to the session itself has nowhere to go.
                    let mut work = Work { chain: &chain, out: &mut Vec::new(), after: After::default(), sent: 0 };
                    self.apply_asked(&mut event, &mut work).await;
                }
                Err(failure) => self.failed("closed", &failure),
            }
        }
        let Some(state) = event.and_then(|mut event| event.session.take()) else {
            return;
        };
        for subscribed in &state.subscriptions {
            self.applier.node.hub.unsubscribe(&subscribed.subscription);
            if subscribed.present {
                self.applier.node.presence.leave(&subscribed.subscription.topic, state.id);
            }
        }
        if let Some(topic) = &state.counted {
            self.applier.node.presence.leave(topic, state.id);
        }
        match self.outbox.mailbox() {
            // The client's next request is still to find it, and to hear why it has ended.
            Some(_) => self.applier.node.registry.forget(state.id, state.user.as_ref()),
            None => self.applier.node.registry.remove(state.id, state.user.as_ref()),
        }
    }

    /// RFC 6455 section 7.1.1: the close frame, then the end of what is sent, then a wait for the client's end, so that
    /// what it is still sending does not reset the connection before it has read the close frame.
    async fn say_goodbye(&mut self, close: &Close, by: Closer) {
        let mut frame = Vec::new();
        match by {
            // Its own code is the answer to a client's close.
            Closer::Client => self.format.close(&mut frame, &Close::new(close.code, "")),
            _ => self.format.close(&mut frame, close),
        }
        self.outbox.write_last(&frame);
        if let Some(mailbox) = self.outbox.mailbox() {
            mailbox.close(close);
            self.outbox.finish();
            let _ = timeout(FLUSH, poll_fn(|context| self.outbox.poll_told(context))).await;
            return;
        }
        let flushed = timeout(FLUSH, poll_fn(|context| self.outbox.poll_flush(context))).await;
        if !matches!(flushed, Ok(Ok(()))) {
            return;
        }
        let goodbye = async {
            let _ = poll_fn(|context| self.outbox.poll_shutdown(context)).await;
            self.reader.discard(&self.outbox).await;
        };
        let _ = timeout(LINGER, goodbye).await;
    }
}
