//! One instance of a plugin: a store of its own, its hooks, and how they are called.

#![allow(unsafe_code, reason = "wasmtime checks a function's type at each safe call; here once for each instance")]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use wasmtime::component::{ComponentNamedList, Func, Lift, Lower, TypedFunc};
use wasmtime::{Store, UpdateDeadline};

use super::budget::Metered;
use super::event::{Event, Hook};
use super::failure::Why;
use super::generation::Template;
use super::host::{Context, State};
use super::wit::BorrowedMessage;
use super::wit::exports::tidegate::plugin as hooks;
use super::wit::tidegate::plugin::types::Verdict;

type Answer<T> = (Result<T, String>,);

/// An instance, in the pool or in a call.
pub struct Instance {
    store: Store<State>,
    hooks: [Option<Func>; Hook::ALL.len()],
    account: Arc<AtomicU64>,
    waits: bool,
    /// What it had when it was new.
    first_memory: usize,
    /// Set when guest code was broken off: the store is dead then.
    dead: bool,
}

/// What each hook is given and answers; see sdk/wit.
pub mod signature {
    use super::*;

    pub type Init = ((), Answer<()>);
    pub type Authenticate = ((u64,), Answer<hooks::on_authenticate::Decision>);
    pub type Opened = ((u64,), Answer<()>);
    pub type Closed<'a> = ((u64, u16, &'a str, hooks::on_session::Closer), Answer<()>);
    pub type Inbound<'a> = ((u64, BorrowedMessage<'a>), Answer<Verdict>);
    pub type Publication<'a> = ((u64, &'a str, BorrowedMessage<'a>), Answer<Verdict>);
    pub type Timer<'a> = ((u64, &'a str), Answer<()>);
    pub type Presence<'a> = ((&'a str, hooks::on_presence::Event, &'a str, Option<&'a str>, &'a str, u32), Answer<()>);
}

impl Instance {
    /// Makes an instance and calls its `init`.
    pub async fn new(template: &Template, context: &Arc<Context>) -> Result<Self, Why> {
        let mut store = Store::new(template.pre.engine(), State::new(context.clone()));
        store.limiter(|state| &mut state.memory);
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
        let made = if waits {
            let mut instantiation = pin!(template.pre.instantiate_async(&mut store));
            let metered = Metered { account: &account, call: instantiation.as_mut() };
            tokio::time::timeout(wall, metered).await.map_err(|_| Why::Wall(wall))?
        } else {
            template.pre.instantiate(&mut store)
        };
        let instance = match made {
            Ok(instance) => instance,
            Err(error) => {
                let why = Why::of(&error, store.data().memory.refused);
                return Err(if let Why::Trap(what) = why { Why::Instance(what) } else { why });
            }
        };
        let mut hooks = [None; Hook::ALL.len()];
        for hook in Hook::ALL {
            if let Some(index) = template.exports[hook as usize] {
                hooks[hook as usize] = instance.get_func(&mut store, index);
            }
        }
        let first_memory = store.data().memory_bytes();
        let mut made = Self { store, hooks, account, waits, first_memory, dead: false };
        made.check_types().map_err(|error| Why::Instance(format!("{error:#}")))?;
        if made.hooks[Hook::Init as usize].is_some() {
            let answer = made.call::<signature::Init, _, _>(Hook::Init, &mut None, (), wall).await?;
            answer.0.map_err(Why::error)?;
        }
        made.first_memory = made.store.data().memory_bytes();
        Ok(made)
    }

    /// The proof for `call`: each hook has the type that it will be called by.
    fn check_types(&self) -> wasmtime::Result<()> {
        fn check<P, R>(instance: &Instance, hook: Hook) -> wasmtime::Result<()>
        where
            P: ComponentNamedList + Lower,
            R: ComponentNamedList + Lift,
        {
            match &instance.hooks[hook as usize] {
                Some(func) => func.typed::<P, R>(&instance.store).map(drop),
                None => Ok(()),
            }
        }
        macro_rules! check_all {
            ($($hook:ident$(<$lifetime:lifetime>)?),*) => {
                $(check::<
                    <signature::$hook$(<$lifetime>)? as Signature>::Params,
                    <signature::$hook$(<$lifetime>)? as Signature>::Answer,
                >(self, Hook::$hook)?;)*
            };
        }
        check_all!(
            Init,
            Authenticate,
            Opened,
            Closed<'static>,
            Inbound<'static>,
            Publication<'static>,
            Timer<'static>,
            Presence<'static>
        );
        Ok(())
    }

    /// Calls a hook that the plugin has. The event is back in its place afterwards, whatever happened. `S` must be the
    /// hook's own signature.
    pub async fn call<S, P, R>(
        &mut self,
        hook: Hook,
        event: &mut Option<Box<Event>>,
        params: P,
        wall: std::time::Duration,
    ) -> Result<R, Why>
    where
        S: Signature<Params = P, Answer = R>,
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        let Some(func) = self.hooks[hook as usize] else {
            return Err(Why::Instance(format!("the plugin has no hook `{}`", hook.name())));
        };
        // SAFETY: `check_types` has compared each hook's function with its signature when the instance was made; the
        // signatures of different lifetimes are one component type.
        let func: TypedFunc<P, R> = unsafe { TypedFunc::new_unchecked(func) };
        self.store.data_mut().begin(hook, event.take());
        self.store.set_epoch_deadline(1);
        // What is broken off leaves a store in which nothing can be called any more.
        self.dead = true;
        let answer = if self.waits {
            let call = pin!(func.call_async(&mut self.store, params));
            match tokio::time::timeout(wall, Metered { account: &self.account, call }).await {
                Ok(answer) => answer.map_err(Some),
                Err(_) => Err(None),
            }
        } else {
            func.call(&mut self.store, params).map_err(Some)
        };
        let state = self.store.data_mut();
        *event = state.event.take();
        match answer {
            Ok(answer) => {
                self.dead = false;
                Ok(answer)
            }
            Err(Some(error)) => Err(Why::of(&error, state.memory.refused)),
            Err(None) => Err(Why::Wall(wall)),
        }
    }

    /// Whether another call may use this instance: not after a trap, and not when it has grown towards its limit.
    pub fn is_good(&self) -> bool {
        let state = self.store.data();
        let limit = state.context.limits.memory.0;
        let room = limit.saturating_sub(self.first_memory);
        !self.dead && state.memory_bytes() <= self.first_memory + room / 2
    }
}

/// What a hook is given and answers.
pub trait Signature {
    type Params;
    type Answer;
}

impl<P, R> Signature for (P, R) {
    type Params = P;
    type Answer = R;
}
