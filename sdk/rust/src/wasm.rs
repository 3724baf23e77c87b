//! From the generated bindings to the plugin's methods. Not for plugin authors; `export!` names it.

use std::cell::OnceCell;

use crate::bindings::{authenticate, batch, broadcast, inbound, init, outbound, presence};
use crate::bindings::{publication, reply, session, subscription, timer};
use crate::history::Position;
use crate::upstream::{Failure, Response};
use crate::{Close, Closer, Decision, Error, Message, Publication, Result, Session, Verdict};
use crate::{Exported, presence as presences, subscription as subscriptions};

use authenticate::exports::tidegate::plugin::on_authenticate;
use batch::exports::tidegate::plugin::on_batch;
use broadcast::exports::tidegate::plugin::on_broadcast;
use inbound::exports::tidegate::plugin::on_inbound;
use init::exports::tidegate::plugin::on_init;
use outbound::exports::tidegate::plugin::on_outbound;
use presence::exports::tidegate::plugin::on_presence;
use publication::exports::tidegate::plugin::on_publication;
use reply::exports::tidegate::plugin::on_reply;
use session::exports::tidegate::plugin::on_session;
use subscription::exports::tidegate::plugin::on_subscription;
use timer::exports::tidegate::plugin::on_timer;

pub fn call<P: Exported, T>(instance: &OnceCell<P>, call: impl FnOnce(&P) -> Result<T>) -> Result<T> {
    if let Some(plugin) = instance.get() {
        return call(plugin);
    }
    let plugin = P::make()?;
    call(instance.get_or_init(|| plugin))
}

impl<P: Exported> on_init::Guest for P {
    fn handle() -> Result<(), String> {
        P::instance(|_| Ok(())).map_err(Error::into_message)
    }
}

impl<P: Exported> on_authenticate::Guest for P {
    fn handle(session: u64) -> Result<on_authenticate::Decision, String> {
        let decision = P::instance(|p| p.authenticate(Session::new(session))).map_err(Error::into_message)?;
        Ok(match decision {
            Decision::Refuse(status) => on_authenticate::Decision::Refuse(status),
            Decision::Pass => on_authenticate::Decision::Pass,
            Decision::Admit(user) => on_authenticate::Decision::Admit(user),
        })
    }
}

impl<P: Exported> on_session::Guest for P {
    fn opened(session: u64) -> Result<(), String> {
        P::instance(|p| p.opened(Session::new(session))).map_err(Error::into_message)
    }

    fn closed(session: u64, code: u16, reason: String, by: on_session::Closer) -> Result<(), String> {
        let by = match by {
            on_session::Closer::Client => Closer::Client,
            on_session::Closer::Plugin => Closer::Plugin,
            on_session::Closer::Gateway => Closer::Gateway,
            on_session::Closer::Network => Closer::Network,
        };
        let close = Close { code, reason, by };
        P::instance(|p| p.closed(Session::new(session), close)).map_err(Error::into_message)
    }
}

impl<P: Exported> on_inbound::Guest for P {
    fn handle(session: u64, message: Message) -> Result<Verdict, String> {
        P::instance(|p| p.inbound(Session::new(session), message)).map_err(Error::into_message)
    }
}

impl<P: Exported> on_batch::Guest for P {
    fn handle(session: u64, messages: Vec<Message>) -> Result<Vec<Verdict>, String> {
        P::instance(|p| p.batch(Session::new(session), messages)).map_err(Error::into_message)
    }
}

impl<P: Exported> on_publication::Guest for P {
    fn handle(publication: u64, topic: String, message: Message) -> Result<Verdict, String> {
        P::instance(|p| p.publication(Publication::new(publication), &topic, message)).map_err(Error::into_message)
    }
}

impl<P: Exported> on_broadcast::Guest for P {
    fn handle(publication: u64, topic: String, message: Message) -> Result<Verdict, String> {
        P::instance(|p| p.broadcast(Publication::new(publication), &topic, message)).map_err(Error::into_message)
    }
}

impl<P: Exported> on_outbound::Guest for P {
    fn handle(session: u64, publication: Option<u64>, message: Message) -> Result<Verdict, String> {
        let publication = publication.map(Publication::new);
        P::instance(|p| p.outbound(Session::new(session), publication, message)).map_err(Error::into_message)
    }
}

impl<P: Exported> on_subscription::Guest for P {
    fn handle(
        session: u64,
        topic: String,
        event: on_subscription::Event,
        position: Option<Position>,
    ) -> Result<(), String> {
        let event = match event {
            on_subscription::Event::Subscribed => subscriptions::Event::Subscribed,
            on_subscription::Event::Recovered => subscriptions::Event::Recovered,
            on_subscription::Event::Gap => subscriptions::Event::Gap,
            on_subscription::Event::Added => subscriptions::Event::Added,
            on_subscription::Event::Removed => subscriptions::Event::Removed,
        };
        let change = subscriptions::Change { topic, event, position };
        P::instance(|p| p.subscription(Session::new(session), change)).map_err(Error::into_message)
    }
}

impl<P: Exported> on_timer::Guest for P {
    fn handle(session: u64, name: String) -> Result<(), String> {
        P::instance(|p| p.timer(Session::new(session), &name)).map_err(Error::into_message)
    }
}

impl<P: Exported> on_reply::Guest for P {
    fn handle(session: u64, tag: String, reply: Result<on_reply::Response, on_reply::Failure>) -> Result<(), String> {
        let reply = match reply {
            Ok(on_reply::Response { status, body }) => Ok(Response { status, body }),
            Err(on_reply::Failure::Unavailable) => Err(Failure::Unavailable),
            Err(on_reply::Failure::Timeout) => Err(Failure::Timeout),
            Err(on_reply::Failure::TooLarge) => Err(Failure::TooLarge),
            Err(on_reply::Failure::Broken) => Err(Failure::Broken),
        };
        P::instance(|p| p.reply(Session::new(session), &tag, reply)).map_err(Error::into_message)
    }
}

impl<P: Exported> on_presence::Guest for P {
    fn handle(
        topic: String,
        event: on_presence::Event,
        session_id: String,
        user: Option<String>,
        info: String,
        sessions_of_user: u32,
    ) -> Result<(), String> {
        let event = match event {
            on_presence::Event::Joined => presences::Event::Joined,
            on_presence::Event::Left => presences::Event::Left,
        };
        let change = presences::Change { topic, event, session_id, user, info, sessions_of_user };
        P::instance(|p| p.presence(change)).map_err(Error::into_message)
    }
}
