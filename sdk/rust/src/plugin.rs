//! What a plugin is: a type with the hooks that it has.

use crate::{Decision, Error, Message, Publication, Result, Session, Verdict, presence, subscription, upstream};

/// A plugin. Write the hooks that it has and name them in [`export!`](crate::export!); every one has a default.
///
/// `self` is what [`init`](Self::init) has made. It lives in one instance of one generation, so it holds what was read
/// and prepared from the configuration. Whatever events write belongs into the session's attributes or into
/// [`kv`](crate::kv).
///
/// A hook's error is a sentence for the log and the operator. The event has failed then and none of its effects is
/// applied, but the instance lives on.
#[allow(unused_variables, reason = "the defaults use none, and the names are the documentation")]
pub trait Plugin: Sized + 'static {
    /// Get ready to serve: called on each new instance, before its first event. When the first instance of a generation
    /// answers an error, the generation is not used and the former one goes on. No effects, no session.
    ///
    /// A plugin that does not name `init` is made by `Default`.
    ///
    /// # Errors
    /// Why it cannot serve.
    fn init() -> Result<Self> {
        Err(Error::new("`init` is named in export! and not written"))
    }

    /// Decide who may come in, before the client's handshake is answered. The session is the one to be: its request can
    /// be read, its response, attributes and expiry can be set. On a refusal only what concerns the response is
    /// applied.
    ///
    /// # Errors
    /// Refuses the client.
    fn authenticate(&self, session: Session) -> Result<Decision> {
        Ok(Decision::Pass)
    }

    /// Of `session`: the client is connected and can be sent to. Comes before every other event of the session.
    ///
    /// # Errors
    /// Closes the session with 1011.
    fn opened(&self, session: Session) -> Result {
        Ok(())
    }

    /// Of `session`: it is over; the last event. Attributes and subscriptions can be read; what is sent to it is
    /// dropped. Also called where `opened` failed. Not called when the node dies.
    ///
    /// # Errors
    /// For the log.
    fn closed(&self, session: Session, close: Close) -> Result {
        Ok(())
    }

    /// A message from the client. One at a time for each session, in order. What passes the last plugin goes to the
    /// route's upstream, if it has one.
    ///
    /// # Errors
    /// For the log; the session goes on.
    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        Ok(Verdict::Next)
    }

    /// Two to 16 messages of a client that were read together, in order; the answer has a verdict for each. As it is, each
    /// goes to [`inbound`](Self::inbound): for most plugins it is enough to name `batch` in [`export!`](crate::export!),
    /// beside `inbound`, and clients that send many at a time cost half as much. Left out, every message comes alone.
    ///
    /// They are one event, whose effects are applied in the order of the asking. One that is refused when it is applied
    /// takes later ones with it, also those of later messages: a plugin whose clients must hear which of their messages was
    /// not accepted does without `batch`. Messages behind one that the session is closed for are handled as well.
    ///
    /// # Errors
    /// None of what was asked for is done, and each message comes to `inbound` alone after all. The same after a panic.
    fn batch(&self, session: Session, messages: Vec<Message>) -> Result<Vec<Verdict>> {
        messages.into_iter().map(|message| self.inbound(session, message)).collect()
    }

    /// A publication on one of the route's topics, whoever made it: once, on the node where it was made and before it
    /// leaves it. It has no position yet. May read; may not ask for effects.
    ///
    /// # Errors
    /// Refuses the publication.
    fn publication(&self, publication: Publication, topic: &str, message: Message) -> Result<Verdict> {
        Ok(Verdict::Next)
    }

    /// A publication that has arrived, once on each node and for each route with subscribers, before it is put into
    /// their outboxes. It has its position by now, and the answer is the one frame that all of the route's subscribers
    /// share: the place where a protocol writes topic and offset around the payload. In the order of the topic. `Stop`:
    /// the route's sessions do not get it. May read; may not ask for effects.
    ///
    /// # Errors
    /// Costs the route's subscribers this publication: their sessions are closed with 1011, since a loss is never
    /// silent.
    fn broadcast(&self, publication: Publication, topic: &str, message: Message) -> Result<Verdict> {
        Ok(Verdict::Next)
    }

    /// A message on its way to one client, on routes that say `outbound = true`: it costs a call for each delivery. The
    /// chain is walked backwards, so what comes in through a plugin goes out through it; what a plugin sends itself is
    /// seen by the plugins before it only. There is no publication for a direct `send`. Effects: those of [`Session`],
    /// except `subscribe` and `send`.
    ///
    /// # Errors
    /// Closes the session with 1011, since a loss is never silent.
    fn outbound(&self, session: Session, publication: Option<Publication>, message: Message) -> Result<Verdict> {
        Ok(Verdict::Next)
    }

    /// What became of a subscription of the session: in the order of the session, before the deliveries that follow
    /// from it. On a chain without this hook a gap closes the session with 4001.
    ///
    /// # Errors
    /// For the log; the session goes on.
    fn subscription(&self, session: Session, change: subscription::Change) -> Result {
        Ok(())
    }

    /// A timer of this plugin and session has run out.
    ///
    /// # Errors
    /// For the log.
    fn timer(&self, session: Session, name: &str) -> Result {
        Ok(())
    }

    /// The answer to [`upstream::request`], with the tag that the request was made with. Not called once the session is
    /// over.
    ///
    /// # Errors
    /// For the log.
    fn reply(&self, session: Session, tag: &str, reply: Result<upstream::Response, upstream::Failure>) -> Result {
        Ok(())
    }

    /// Who came to one of the route's topics, and who left: once in the cluster for each change, in order for each
    /// topic. Effects: [`topics`](crate::topics), [`users`](crate::users), [`sessions`](crate::sessions).
    ///
    /// # Errors
    /// For the log.
    fn presence(&self, change: presence::Change) -> Result {
        Ok(())
    }
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// A WebSocket close code, also on other transports; 1005 without one, 1006 after a broken connection.
    pub code: u16,
    /// The sentence that came with the code.
    pub reason: String,
    /// Who ended it.
    pub by: Closer,
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closer {
    /// The client said goodbye.
    Client,
    /// A plugin asked for it.
    Plugin,
    /// The gateway did: heartbeat, limit, expiry, drain, operator.
    Gateway,
    /// The connection broke.
    Network,
}
