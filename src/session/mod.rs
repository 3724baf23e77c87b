//! The life of one client: its events one at a time and in order, its effects, its end.
//!
//! A turn is one read of what is there, the events in it, one write. While nothing that an event needs can wait, the
//! event is handled within the turn, on the thread's own buffers; an idle session owns none. An event that may wait (for
//! a store, for a plugin on a stack of its own) is awaited outside of the turn, and nothing more is read meanwhile.

mod batch;
mod begin;
mod due;
mod effects;
mod end;
mod format;
mod limit;
mod missed;
mod reader;
mod turn;

use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;

pub use self::begin::{Begin, Carrier, serve, serve_requests};
use self::format::Format;
pub use self::format::Kind;
use self::reader::Reader;
use crate::apply::Applier;
use crate::heartbeat::Pulse;
use crate::hub::Topic;
use crate::message::{Close, Closer, Message, MessageRef, Position, Publication, TopicName};
use crate::outbox::Outbox;
use crate::plugin::{
    Chain, Effect, Effects, Event, Failure, Forward, Patience, RouteChain, SubscriptionEvent, Verdict,
};
use crate::rate::Bucket;
use crate::source::{Alarm, Clock};
use crate::state::SessionState;
use crate::transport::websocket::Decoder;
use crate::upstream::Reply;
use crate::wire;

/// Room for what one turn reads.
const READ: usize = 16 << 10;
/// Buffers larger than this are given back after a turn.
const KEEP: usize = 64 << 10;

struct Session {
    applier: Arc<Applier>,
    route: Arc<RouteChain>,
    outbox: Arc<Outbox>,
    reader: Reader,
    decoder: Decoder,
    format: Format,
    /// None while an event has it.
    state: Option<Box<SessionState>>,
    pulse: Pulse,
    bucket: Bucket,
    /// For control frames.
    control: Bucket,
    alarm: Alarm,
    /// The reader has filled its buffer, or had more to read at once: others have their turn before this session reads on.
    greedy: bool,
    /// A publication's topic whose subscribers are behind.
    congested: Option<Arc<Topic>>,
    /// An event has subscribed: deliveries wait until its own messages are written.
    holds: bool,
    /// Deliveries wait because of a gap that the session is to deal with.
    holds_for_gap: bool,
    /// Boxed, as it is there for a moment only.
    ending: Option<Box<(Close, Closer)>>,
    _held: Box<dyn Send>,
}

/// One thing that happens to a session.
enum Task<'a> {
    Opened(Effects),
    Inbound(MessageRef<'a>),
    Timer(Arc<str>, Box<str>),
    /// An upstream's answer, for this plugin and under this tag.
    Reply(Arc<str>, Box<str>, Reply),
    /// A delivery on its way to the client.
    Outbound(Option<Arc<Publication>>, Message),
    Subscribe(TopicName),
    Unsubscribe(TopicName),
    /// Something was lost on a topic.
    Gap(TopicName, Option<Position>),
    /// Something did not fit, and the client has caught up.
    Missed(TopicName, Option<Position>),
}

/// What an event is worked on with.
struct Work<'a> {
    chain: &'a Chain,
    /// Frames for the client.
    out: &'a mut Vec<u8>,
    after: After,
    /// Messages within the turn that are not in the route's counters yet.
    sent: u64,
}

/// What follows the event's own effects.
#[derive(Default)]
struct After {
    /// What became of subscriptions, for the chain's hook.
    told: Vec<(TopicName, SubscriptionEvent, Option<Position>)>,
    /// What was missed, to be delivered before anything live.
    recovered: Vec<Arc<Publication>>,
}

impl After {
    fn is_empty(&self) -> bool {
        self.told.is_empty() && self.recovered.is_empty()
    }
}

/// Why a turn has ended.
enum Next {
    /// This may wait.
    Await(Box<Waiting>),
    /// Somebody's subscribers must catch up.
    Room(Arc<Topic>),
    End(Close, Closer),
}

/// A task that has left the buffer that it was read into.
enum Waiting {
    /// The plugins of this chain have answered; what they ask for is to be done.
    Asked(Box<Event>, Arc<Chain>),
    Opened(Effects),
    Inbound(Message),
    /// Messages that could not be handled together.
    Each(Vec<Message>),
    Timer(Arc<str>, Box<str>),
    Reply(Arc<str>, Box<str>, Reply),
    Outbound(Option<Arc<Publication>>, Message),
    Subscribe(TopicName),
    Unsubscribe(TopicName),
    Gap(TopicName, Option<Position>),
    Missed(TopicName, Option<Position>),
}

impl Task<'_> {
    fn into_owned(self) -> Box<Waiting> {
        Box::new(match self {
            Self::Opened(effects) => Waiting::Opened(effects),
            Self::Inbound(message) => Waiting::Inbound(message.to_owned()),
            Self::Timer(plugin, name) => Waiting::Timer(plugin, name),
            Self::Reply(plugin, tag, reply) => Waiting::Reply(plugin, tag, reply),
            Self::Outbound(publication, message) => Waiting::Outbound(publication, message),
            Self::Subscribe(topic) => Waiting::Subscribe(topic),
            Self::Unsubscribe(topic) => Waiting::Unsubscribe(topic),
            Self::Gap(topic, position) => Waiting::Gap(topic, position),
            Self::Missed(topic, since) => Waiting::Missed(topic, since),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Opened(_) => "opened",
            Self::Inbound(_) => "inbound",
            Self::Timer(..) => "timer",
            Self::Reply(..) => "reply",
            Self::Outbound(..) => "outbound",
            Self::Subscribe(_) | Self::Unsubscribe(_) | Self::Gap(..) | Self::Missed(..) => "subscription",
        }
    }
}

impl Waiting {
    /// None: it is none, or none any more.
    fn as_task(&mut self) -> Option<Task<'_>> {
        Some(match self {
            Self::Asked(..) | Self::Each(_) => return None,
            Self::Opened(effects) => Task::Opened(std::mem::take(effects)),
            Self::Inbound(message) => Task::Inbound(message.as_ref()),
            Self::Timer(plugin, name) => Task::Timer(plugin.clone(), name.clone()),
            Self::Reply(plugin, tag, reply) => Task::Reply(plugin.clone(), tag.clone(), reply.clone()),
            Self::Outbound(publication, message) => Task::Outbound(publication.clone(), message.clone()),
            Self::Subscribe(topic) => Task::Subscribe(topic.clone()),
            Self::Unsubscribe(topic) => Task::Unsubscribe(topic.clone()),
            Self::Gap(topic, position) => Task::Gap(topic.clone(), *position),
            Self::Missed(topic, since) => Task::Missed(topic.clone(), *since),
        })
    }
}

impl Session {
    async fn run(&mut self, first: Box<Waiting>) -> (Close, Closer) {
        let mut next = Next::Await(first);
        loop {
            match next {
                Next::Await(waiting) => Box::pin(self.wait_for(*waiting)).await,
                Next::Room(topic) => Box::pin(topic.room()).await,
                Next::End(close, by) => return (close, by),
            }
            if let Some(ending) = self.ending.take() {
                return *ending;
            }
            next = std::future::poll_fn(|context| self.poll_turn(context)).await;
        }
    }

    /// Awaits one event; what the client must hear is written when it is over, what others send goes out meanwhile.
    async fn wait_for(&mut self, waiting: Waiting) {
        let outbox = self.outbox.clone();
        let mut out = Vec::new();
        {
            let chain = self.route.chain.load_full();
            let (session, out) = (&mut *self, &mut out);
            let mut event: Pin<Box<dyn Future<Output = ()> + Send>> = match waiting {
                Waiting::Asked(event, chain) => Box::pin(session.finish(event, chain, out)),
                Waiting::Each(messages) => Box::pin(session.each(messages, chain, out)),
                mut waiting => Box::pin(async move {
                    if let Some(task) = waiting.as_task() {
                        session.handle(task, &chain, Patience::Waits, out, None).await;
                    }
                }),
            };
            std::future::poll_fn(|context| {
                let _ = outbox.poll_flush(context);
                event.as_mut().poll(context)
            })
            .await;
        }
        self.write(&out);
        self.release();
    }

    /// What the event had to say is written: what it has subscribed to may follow.
    fn release(&mut self) {
        if std::mem::take(&mut self.holds) {
            self.outbox.release();
        }
        if std::mem::take(&mut self.holds_for_gap) {
            self.outbox.release();
        }
    }

    /// One event, from the chain to its effects. `spare` is an event to use again.
    async fn handle(
        &mut self,
        task: Task<'_>,
        chain: &Chain,
        patience: Patience,
        out: &mut Vec<u8>,
        spare: Option<&mut Option<Box<Event>>>,
    ) {
        let Some(state) = self.state.take() else { return };
        let mut fresh = None;
        let slot = spare.unwrap_or(&mut fresh);
        let mut event = slot.take().unwrap_or_default();
        event.session = Some(state);
        event.patience = patience;
        let mut event = Some(event);
        let name = task.name();
        let mut work = Work { chain, out, after: After::default(), sent: 0 };
        let called = self.call(task, &mut event, &mut work).await;
        match called {
            Ok(()) => self.apply_asked(&mut event, &mut work).await,
            Err(failure) => self.failed(name, &failure),
        }
        if work.sent > 0 {
            self.route.route.counters.sent.inc_by(work.sent);
        }
        if !work.after.is_empty() {
            self.follow_up(&mut event, &mut work).await;
        }
        self.format.tell(work.out);
        *slot = self.take_back(event);
    }

    /// One event for each of the messages, as long as the session lasts.
    async fn each(&mut self, messages: Vec<Message>, chain: Arc<Chain>, out: &mut Vec<u8>) {
        for message in messages {
            if self.ending.is_some() {
                return;
            }
            self.handle(Task::Inbound(message.as_ref()), &chain, Patience::Waits, out, None).await;
        }
    }

    /// What is left of an event whose plugins were called within the turn.
    async fn finish(&mut self, mut event: Box<Event>, chain: Arc<Chain>, out: &mut Vec<u8>) {
        event.patience = Patience::Waits;
        let mut event = Some(event);
        let mut work = Work { chain: &chain, out, after: After::default(), sent: 0 };
        self.apply_asked(&mut event, &mut work).await;
        if !work.after.is_empty() {
            self.follow_up(&mut event, &mut work).await;
        }
        self.format.tell(work.out);
        self.take_back(event);
    }

    /// The session's state is its own again; the event, emptied, may be used again.
    fn take_back(&mut self, event: Option<Box<Event>>) -> Option<Box<Event>> {
        let mut event = event;
        if let Some(event) = &mut event {
            self.state = event.session.take();
            event.effects.clear();
            event.publications.clear();
        }
        if self.state.is_none() {
            self.ends(Close::new(Close::INTERNAL, "the session was lost in a plugin's call"), Closer::Gateway);
        }
        event
    }

    /// What a task asks of the chain.
    async fn call(
        &mut self,
        task: Task<'_>,
        event: &mut Option<Box<Event>>,
        work: &mut Work<'_>,
    ) -> Result<(), Failure> {
        match task {
            Task::Opened(mut effects) => {
                let state = event.as_ref().and_then(|event| event.session.as_ref());
                if let Some(user) = state.and_then(|state| state.user.clone()) {
                    // What is sent to the user from now on comes to this session too.
                    self.applier.hears(&user).await;
                }
                // First what `authenticate` asked for, then what `opened` sees and asks for.
                self.apply(event, &mut effects, work).await;
                let opened = work.chain.opened(event).await;
                if let Some(state) = event.as_mut().and_then(|event| event.session.as_mut()) {
                    state.handshake.forget(&self.route.route.rules().keep_headers);
                }
                if opened.is_err() {
                    self.ends(Close::new(Close::INTERNAL, "the session could not be opened"), Closer::Gateway);
                }
                opened
            }
            Task::Inbound(message) => {
                let verdict = work.chain.inbound(event, message).await?;
                self.passed(verdict, message, event, work);
                Ok(())
            }
            Task::Timer(plugin, name) => work.chain.timer(event, &plugin, &name).await,
            Task::Reply(plugin, tag, reply) => work.chain.reply(event, &plugin, &tag, &reply).await,
            Task::Outbound(publication, message) => {
                self.send_by_hand(event, work, publication.as_ref(), message, usize::MAX).await;
                Ok(())
            }
            Task::Subscribe(topic) => {
                self.subscribe_from_elsewhere(event, topic, work).await;
                Ok(())
            }
            Task::Unsubscribe(topic) => {
                if self.unsubscribe(event, &topic) {
                    work.after.told.push((topic, SubscriptionEvent::Removed, None));
                }
                Ok(())
            }
            Task::Missed(topic, since) => {
                self.catch_up(event, topic, since, work).await;
                Ok(())
            }
            Task::Gap(topic, position) => {
                self.holds_for_gap = true;
                let state = event.as_ref().and_then(|event| event.session.as_ref());
                if state.is_some_and(|state| state.is_subscribed(&topic)) {
                    self.gap(work);
                    work.after.told.push((topic, SubscriptionEvent::Gap, position));
                }
                Ok(())
            }
        }
    }

    /// What becomes of a message that no plugin has stopped.
    fn passed(&self, verdict: Verdict, message: MessageRef<'_>, event: &mut Option<Box<Event>>, work: &mut Work<'_>) {
        let rules = self.route.route.rules();
        if rules.upstream.is_none() && !rules.echo {
            return;
        }
        let Some(event) = event else { return };
        let list = &mut event.effects.list;
        let passed = match verdict {
            // Nothing was asked for that would have to be done before.
            Verdict::Next if rules.upstream.is_none() && list.is_empty() && !self.outbox.by_hand() => {
                work.sent += 1;
                wire::message(work.out, message);
                return;
            }
            Verdict::Next => message.to_owned(),
            Verdict::Replace(message) => message,
            Verdict::Stop => return,
        };
        if rules.echo {
            list.push(Effect::Send(passed.clone(), u16::MAX));
        }
        if let Some(upstream) = &rules.upstream {
            list.push(Effect::Forward(Box::new(Forward::plain(upstream.clone(), passed))));
        }
    }

    fn failed(&mut self, event: &'static str, failure: &Failure) {
        let route = &self.route.route;
        self.applier.node.metrics.events_failed.with_label_values(&[&route.name, event]).inc();
        let session = self.outbox.id;
        // While a breaker is open it is the breaker that the log tells of.
        if !failure.is_barred() {
            tracing::error!(route = &*route.name, %session, event, why = %failure.why, plugin = &*failure.plugin,
                generation = failure.generation, hook = failure.hook.name(), "the event failed: none of its effects is applied");
        }
        if route.rules().failed_event == crate::config::FailedEvent::Close {
            self.ends(Close::new(Close::INTERNAL, "a message could not be handled"), Closer::Gateway);
        }
    }

    /// The session is over when this event is, unless something has ended it before.
    fn ends(&mut self, close: Close, by: Closer) {
        self.ending.get_or_insert_with(|| Box::new((close, by)));
    }

    /// Writes whole frames of the session's own.
    fn write(&mut self, out: &[u8]) {
        if !out.is_empty() {
            self.outbox.write(out, 1);
        }
    }

    fn clock(&self) -> &Clock {
        &self.applier.node.clock
    }

    /// When the session must look at its clock next.
    fn next_alarm(&mut self, beat: Instant) -> Instant {
        let state = self.state.as_ref();
        let timers = state.into_iter().flat_map(|state| state.timers.iter().map(|timer| timer.at));
        let expiry = state.and_then(|state| state.expiry).map(|expiry| {
            // Looked at again at least every hour: the wall clock may be set meanwhile.
            let left = expiry.get().saturating_sub(self.clock().unix()).min(3_600_000);
            self.clock().now() + std::time::Duration::from_millis(left)
        });
        timers.chain(expiry).fold(beat, Instant::min)
    }
}
