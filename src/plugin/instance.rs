//! One instance of a plugin: a store of its own, its hooks, and how they are called.

#![allow(unsafe_code, reason = "wasmtime checks a function's type at each safe call; here once for each instance")]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use wasmtime::component::{ComponentNamedList, Func, Lift, Lower, Resource, TypedFunc};
use wasmtime::{Store, UpdateDeadline};

use super::budget::Metered;
use super::call::{Answer, Call, Decision, SubscriptionEvent, Verdict};
use super::direct;
use super::event::{Event, Hook};
use super::failure::Why;
use super::host::{self, Context, State, wit_message};
use super::template::{Kind, Template};
use super::wit::BorrowedMessage;
use super::wit::exports::tidegate::plugin as hooks;
use super::wit::tidegate::plugin::types::{Position as WitPosition, Verdict as WitVerdict};
use crate::message::{Closer, MessageRef};
use crate::upstream::ReplyFailure;

type Answered<T> = (Result<T, String>,);

/// An instance, in the pool or in a call.
pub struct Instance {
    store: Store<State>,
    hooks: Hooks,
    account: Arc<AtomicU64>,
    waits: bool,
    /// What it had when it was new.
    first_memory: usize,
    /// Set when guest code was broken off: the store is dead then.
    dead: bool,
    /// Set when the guest keeps many of the host's resources from call to call.
    crowded: bool,
}

enum Hooks {
    Component([Option<Func>; Hook::ALL.len()]),
    Direct(direct::Hooks),
}

/// What each hook is given and answers; see sdk/wit.
mod signature {
    use super::*;

    pub type Init = ((), Answered<()>);
    pub type Authenticate = ((u64,), Answered<hooks::on_authenticate::Decision>);
    pub type Opened = ((u64,), Answered<()>);
    pub type Closed<'a> = ((u64, u16, &'a str, hooks::on_session::Closer), Answered<()>);
    pub type Inbound<'a> = ((u64, BorrowedMessage<'a>), Answered<WitVerdict>);
    pub type Batch<'a> = ((u64, &'a [BorrowedMessage<'a>]), Answered<Vec<WitVerdict>>);
    pub type Publication<'a> = ((u64, &'a str, BorrowedMessage<'a>), Answered<WitVerdict>);
    pub type Broadcast<'a> = Publication<'a>;
    pub type Outbound<'a> = ((u64, Option<u64>, BorrowedMessage<'a>), Answered<WitVerdict>);
    pub type Subscription<'a> = ((u64, &'a str, hooks::on_subscription::Event, Option<WitPosition>), Answered<()>);
    pub type Timer<'a> = ((u64, &'a str), Answered<()>);
    pub type Reply<'a> = ((u64, &'a str, Result<hooks::on_reply::Response, hooks::on_reply::Failure>), Answered<()>);
    pub type Presence<'a> =
        ((&'a str, hooks::on_presence::Event, &'a str, Option<&'a str>, &'a str, u32), Answered<()>);
    pub type Http = ((Resource<host::http::IncomingRequest>, Resource<host::http::ResponseOutparam>), ());
}

impl Instance {
    /// Makes an instance and calls its `init`.
    pub async fn new(template: &Template, context: &Arc<Context>) -> Result<Self, Why> {
        let mut store = Store::new(template.engine(), State::new(context.clone()));
        store.limiter(|state| &mut state.memory);
        // What a host call may copy out of the guest: pointers that all show to the same bytes multiply them.
        store.set_hostcall_fuel(context.limits.memory.0);
        store.set_epoch_deadline(1);
        let waits = template.waits;
        store.epoch_deadline_callback(move |mut store| {
            // A call that waits gives others a turn at each tick; one that does not cannot.
            if waits {
                store.data_mut().budget.tick_waiting()?;
                return Ok(UpdateDeadline::Yield(1));
            }
            store.data_mut().budget.tick()?;
            Ok(UpdateDeadline::Continue(1))
        });
        store.data_mut().begin(Hook::Init, None);
        let account = store.data().budget.account();
        let wall = context.limits.wall.0;
        let made = match &template.kind {
            Kind::Direct(direct) => direct.instantiate(&mut store).map(Hooks::Direct),
            Kind::Component(pre, exports) => {
                let instance = if waits {
                    let mut instantiation = pin!(pre.instantiate_async(&mut store));
                    let metered = Metered { account: &account, call: instantiation.as_mut() };
                    tokio::time::timeout(wall, metered).await.map_err(|_| Why::Wall(wall))?
                } else {
                    pre.instantiate(&mut store)
                };
                let mut found = |instance: wasmtime::component::Instance| {
                    exports.map(|index| index.and_then(|index| instance.get_func(&mut store, index)))
                };
                instance.map(|instance| Hooks::Component(found(instance)))
            }
        };
        let hooks = match made {
            Ok(hooks) => hooks,
            Err(error) => {
                let why = Why::of(&error, store.data().memory.refused);
                return Err(if let Why::Trap(what) = why { Why::Instance(what) } else { why });
            }
        };
        let first_memory = store.data().memory_bytes();
        let mut made = Self { store, hooks, account, waits, first_memory, dead: false, crowded: false };
        made.check_types().map_err(|error| Why::Instance(format!("{error:#}")))?;
        if made.has(Hook::Init) {
            made.call(&Call::Init, &mut None).await?;
        }
        made.first_memory = made.store.data().memory_bytes();
        Ok(made)
    }

    fn has(&self, hook: Hook) -> bool {
        match &self.hooks {
            Hooks::Component(hooks) => hooks[hook as usize].is_some(),
            Hooks::Direct(hooks) => hooks.has(hook),
        }
    }

    /// The proof for `call`: each hook has the type that it will be called by.
    fn check_types(&self) -> wasmtime::Result<()> {
        let Hooks::Component(hooks) = &self.hooks else { return Ok(()) };
        fn check<P, R>(func: Option<&Func>, store: &Store<State>) -> wasmtime::Result<()>
        where
            P: ComponentNamedList + Lower,
            R: ComponentNamedList + Lift,
        {
            match func {
                Some(func) => func.typed::<P, R>(store).map(drop),
                None => Ok(()),
            }
        }
        macro_rules! check_all {
            ($($hook:ident$(<$lifetime:lifetime>)?),*) => {
                $(check::<
                    <signature::$hook$(<$lifetime>)? as Signature>::Params,
                    <signature::$hook$(<$lifetime>)? as Signature>::Answer,
                >(hooks[Hook::$hook as usize].as_ref(), &self.store)?;)*
            };
        }
        check_all!(
            Init,
            Authenticate,
            Opened,
            Closed<'static>,
            Inbound<'static>,
            Batch<'static>,
            Publication<'static>,
            Broadcast<'static>,
            Outbound<'static>,
            Subscription<'static>,
            Timer<'static>,
            Reply<'static>,
            Presence<'static>,
            Http
        );
        Ok(())
    }

    /// Calls a hook that the plugin has. The event is back in its place afterwards, whatever happened.
    pub async fn call(&mut self, call: &Call<'_>, event: &mut Option<Box<Event>>) -> Result<Answer, Why> {
        use signature as s;
        let hook = call.hook();
        if let Hooks::Direct(_) = &self.hooks {
            return self.direct(hook, event, |hooks, store| hooks.call(store, call));
        }
        match call {
            Call::Init => done(self.typed::<s::Init, _, _>(hook, event, ()).await?),
            Call::Authenticate { session } => {
                let decision = self.typed::<s::Authenticate, _, _>(hook, event, (*session,)).await?;
                decision.0.map_err(Why::error).map(|decision| Answer::Decision(decision.into()))
            }
            Call::Opened { session } => done(self.typed::<s::Opened, _, _>(hook, event, (*session,)).await?),
            Call::Closed { session, code, reason, by } => {
                let params = (*session, *code, &**reason, (*by).into());
                done(self.typed::<s::Closed<'_>, _, _>(hook, event, params).await?)
            }
            Call::Inbound { session, message } => {
                verdict(self.typed::<s::Inbound<'_>, _, _>(hook, event, (*session, message.lowered())).await?)
            }
            Call::Publication { topic, message } | Call::Broadcast { topic, message } => {
                verdict(self.typed::<s::Publication<'_>, _, _>(hook, event, (1, &**topic, message.lowered())).await?)
            }
            Call::Outbound { session, publication, message } => {
                let params = (*session, *publication, message.lowered());
                verdict(self.typed::<s::Outbound<'_>, _, _>(hook, event, params).await?)
            }
            Call::Subscription { session, topic, event: what, position } => {
                let position = position.map(|at| WitPosition { epoch: at.epoch, offset: at.offset });
                let params = (*session, &**topic, (*what).into(), position);
                done(self.typed::<s::Subscription<'_>, _, _>(hook, event, params).await?)
            }
            Call::Timer { session, name } => {
                done(self.typed::<s::Timer<'_>, _, _>(hook, event, (*session, &**name)).await?)
            }
            Call::Reply { session, tag, reply } => {
                let reply = match &**reply {
                    Ok((status, body)) => Ok(hooks::on_reply::Response { status: *status, body: wit_message(body) }),
                    Err(failure) => Err((*failure).into()),
                };
                done(self.typed::<s::Reply<'_>, _, _>(hook, event, (*session, &**tag, reply)).await?)
            }
            Call::Presence { topic, joined, session_id, user, info, sessions_of_user } => {
                let what = if *joined { hooks::on_presence::Event::Joined } else { hooks::on_presence::Event::Left };
                let params = (&**topic, what, &**session_id, user.as_deref(), &**info, *sessions_of_user);
                done(self.typed::<s::Presence<'_>, _, _>(hook, event, params).await?)
            }
            Call::Http { request } => {
                let params = self.store.data_mut().http_request(request)?;
                self.typed::<s::Http, _, _>(hook, event, params).await?;
                Ok(Answer::Http(Box::new(self.store.data_mut().http_answer()?)))
            }
        }
    }

    /// Calls `inbound` of a plugin that does not wait, without a future around it: see `Chain::inbound_now`.
    pub fn inbound_now(
        &mut self,
        session: u64,
        message: MessageRef<'_>,
        event: &mut Option<Box<Event>>,
    ) -> Result<Verdict, Why> {
        if let Hooks::Direct(_) = &self.hooks {
            return self.direct(Hook::Inbound, event, |hooks, store| hooks.inbound(store, session, message));
        }
        let func = self.begin::<signature::Inbound<'_>, _, _>(Hook::Inbound, event)?;
        let answer = func.call(&mut self.store, (session, message.into())).map_err(Some);
        self.end(event, answer)?.0.map(Verdict::from).map_err(Why::error)
    }

    /// The same for `batch`: up to `BATCH_MAX` messages, and as many verdicts.
    pub fn batch_now(
        &mut self,
        session: u64,
        messages: &[MessageRef<'_>],
        event: &mut Option<Box<Event>>,
    ) -> Result<Vec<Verdict>, Why> {
        let verdicts = if let Hooks::Direct(_) = &self.hooks {
            self.direct(Hook::Batch, event, |hooks, store| hooks.batch(store, session, messages))?
        } else {
            let lowered: Vec<BorrowedMessage<'_>> = messages.iter().map(|message| (*message).into()).collect();
            let func = self.begin::<signature::Batch<'_>, _, _>(Hook::Batch, event)?;
            let answer = func.call(&mut self.store, (session, &*lowered)).map_err(Some);
            let verdicts = self.end(event, answer)?.0.map_err(Why::error)?;
            verdicts.into_iter().map(Verdict::from).collect()
        };
        if verdicts.len() != messages.len() {
            let (given, answered) = (messages.len(), verdicts.len());
            // Who knows what else is wrong with it.
            self.dead = true;
            return Err(Why::Trap(format!("it has answered {answered} verdicts for {given} messages")));
        }
        Ok(verdicts)
    }

    fn direct<T>(
        &mut self,
        hook: Hook,
        event: &mut Option<Box<Event>>,
        call: impl FnOnce(&direct::Hooks, &mut Store<State>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, Why> {
        self.prepare(hook, event);
        let Hooks::Direct(hooks) = &self.hooks else { return Err(no_hook(hook)) };
        let answer = call(hooks, &mut self.store).map_err(Some);
        self.end(event, answer)?.map_err(Why::error)
    }

    /// `S` must be the hook's own signature.
    async fn typed<S, P, R>(&mut self, hook: Hook, event: &mut Option<Box<Event>>, params: P) -> Result<R, Why>
    where
        S: Signature<Params = P, Answer = R>,
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let func = self.begin::<S, P, R>(hook, event)?;
        let answer = if self.waits {
            let wall = self.store.data().context.limits.wall.0;
            let call = pin!(func.call_async(&mut self.store, params));
            match tokio::time::timeout(wall, Metered { account: &self.account, call }).await {
                Ok(answer) => answer.map_err(Some),
                Err(_) => Err(None),
            }
        } else {
            func.call(&mut self.store, params).map_err(Some)
        };
        self.end(event, answer)
    }

    /// Gets ready for a call of a hook, whose own signature `S` must be.
    fn begin<S, P, R>(&mut self, hook: Hook, event: &mut Option<Box<Event>>) -> Result<TypedFunc<P, R>, Why>
    where
        S: Signature<Params = P, Answer = R>,
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let Hooks::Component(hooks) = &self.hooks else { return Err(no_hook(hook)) };
        let func = hooks[hook as usize].ok_or_else(|| no_hook(hook))?;
        self.prepare(hook, event);
        // SAFETY: `check_types` has compared each hook's function with its signature when the instance was made; the
        // signatures of different lifetimes are one component type.
        Ok(unsafe { TypedFunc::new_unchecked(func) })
    }

    fn prepare(&mut self, hook: Hook, event: &mut Option<Box<Event>>) {
        self.store.data_mut().begin(hook, event.take());
        self.store.set_epoch_deadline(1);
        // What is broken off leaves a store in which nothing can be called any more.
        self.dead = true;
    }

    /// No error: the wall cap has passed.
    fn end<R>(&mut self, event: &mut Option<Box<Event>>, answer: Result<R, Option<wasmtime::Error>>) -> Result<R, Why> {
        let state = self.store.data_mut();
        *event = state.event.take();
        match answer {
            Ok(answer) => {
                self.dead = false;
                self.crowded = self.waits && state.is_crowded();
                Ok(answer)
            }
            Err(Some(error)) => Err(Why::of(&error, state.memory.refused)),
            Err(None) => Err(Why::Wall(state.context.limits.wall.0)),
        }
    }

    /// Whether the last call was still running when the epoch ticked: it took some milliseconds.
    pub fn was_slow(&self) -> bool {
        self.store.data().budget.was_slow()
    }

    /// What its linear memories take now, in bytes.
    pub fn memory(&self) -> usize {
        self.store.data().memory_bytes()
    }

    /// Whether another call may use this instance: not after a trap, and not when it has grown towards its limit.
    pub fn is_good(&self) -> bool {
        let state = self.store.data();
        let limit = state.context.limits.memory.0;
        let room = limit.saturating_sub(self.first_memory);
        !self.dead && !self.crowded && state.memory_bytes() <= self.first_memory + room / 2
    }
}

fn no_hook(hook: Hook) -> Why {
    Why::Instance(format!("the plugin has no hook `{}`", hook.name()))
}

fn done(answer: Answered<()>) -> Result<Answer, Why> {
    answer.0.map(|()| Answer::Done).map_err(Why::error)
}

fn verdict(answer: Answered<WitVerdict>) -> Result<Answer, Why> {
    answer.0.map_err(Why::error).map(|verdict| Answer::Verdict(verdict.into()))
}

impl From<WitVerdict> for Verdict {
    fn from(verdict: WitVerdict) -> Self {
        match verdict {
            WitVerdict::Next => Self::Next,
            WitVerdict::Replace(message) => Self::Replace(message.into()),
            WitVerdict::Stop => Self::Stop,
        }
    }
}

impl From<hooks::on_authenticate::Decision> for Decision {
    fn from(decision: hooks::on_authenticate::Decision) -> Self {
        match decision {
            hooks::on_authenticate::Decision::Refuse(status) => Self::Refuse(status),
            hooks::on_authenticate::Decision::Pass => Self::Pass,
            hooks::on_authenticate::Decision::Admit(user) => Self::Admit(user.map(Arc::from)),
        }
    }
}

impl From<Closer> for hooks::on_session::Closer {
    fn from(by: Closer) -> Self {
        match by {
            Closer::Client => Self::Client,
            Closer::Plugin => Self::Plugin,
            Closer::Gateway => Self::Gateway,
            Closer::Network => Self::Network,
        }
    }
}

impl From<SubscriptionEvent> for hooks::on_subscription::Event {
    fn from(event: SubscriptionEvent) -> Self {
        match event {
            SubscriptionEvent::Subscribed => Self::Subscribed,
            SubscriptionEvent::Recovered => Self::Recovered,
            SubscriptionEvent::Gap => Self::Gap,
            SubscriptionEvent::Added => Self::Added,
            SubscriptionEvent::Removed => Self::Removed,
        }
    }
}

impl From<ReplyFailure> for hooks::on_reply::Failure {
    fn from(failure: ReplyFailure) -> Self {
        match failure {
            ReplyFailure::Unavailable => Self::Unavailable,
            ReplyFailure::Timeout => Self::Timeout,
            ReplyFailure::TooLarge => Self::TooLarge,
            ReplyFailure::Broken => Self::Broken,
        }
    }
}

/// What a hook is given and answers.
trait Signature {
    type Params;
    type Answer;
}

impl<P, R> Signature for (P, R) {
    type Params = P;
    type Answer = R;
}
