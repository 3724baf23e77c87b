//! The hooks that a core module exports, and how each is called.

use wasmtime::{AsContextMut, Engine, ExternType, Func, FuncType, Instance, Module, Result, Store, ValRaw, ValType};

use super::abi::{Flattened, Lift, Lower, Source, Type, aligned, mistake};
use super::guest::{self, Guest, Parts};
use crate::message::MessageRef;
use crate::plugin::call::{Answer, Call, Decision, Verdict};
use crate::plugin::event::{BATCH_MAX, Hook};
use crate::plugin::host::{State, wit_message};
use crate::plugin::interface::Name;
use crate::plugin::wit::BorrowedMessage;
use crate::plugin::wit::exports::tidegate::plugin as wit;
use crate::plugin::wit::tidegate::plugin::types::{Position, Verdict as WitVerdict};

/// The names of a module's hooks. `Hook::Http` is no hook of core modules.
pub type Names = [Option<Box<str>>; Hook::ALL.len()];

/// An instance's hooks.
pub struct Hooks {
    parts: Parts,
    functions: [Option<Function>; Hook::ALL.len()],
}

#[derive(Clone, Copy)]
struct Function {
    call: Func,
    /// What frees the answer when it was read.
    after: Option<Func>,
}

/// What a hook answers.
type Answered<T> = std::result::Result<T, String>;

/// What each hook takes, as the interface has it.
mod given {
    use super::*;

    pub type Authenticate = (u64,);
    pub type Closed<'a> = (u64, u16, &'a str, wit::on_session::Closer);
    pub type Inbound<'a> = (u64, BorrowedMessage<'a>);
    pub type Batch<'a> = (u64, Vec<BorrowedMessage<'a>>);
    pub type Publication<'a> = (u64, &'a str, BorrowedMessage<'a>);
    pub type Outbound<'a> = (u64, Option<u64>, BorrowedMessage<'a>);
    pub type Subscription<'a> = (u64, &'a str, wit::on_subscription::Event, Option<Position>);
    pub type Timer<'a> = (u64, &'a str);
    pub type Reply<'a> = (u64, &'a str, std::result::Result<wit::on_reply::Response, wit::on_reply::Failure>);
    pub type Presence<'a> = (&'a str, wit::on_presence::Event, &'a str, Option<&'a str>, &'a str, u32);
}

/// A hook's parameters as core numbers. Its answer is a pointer.
fn params(hook: Hook) -> Option<Vec<ValType>> {
    let mut types = Vec::new();
    match hook {
        Hook::Init => {}
        Hook::Authenticate | Hook::Opened => given::Authenticate::flatten(&mut types),
        Hook::Closed => given::Closed::flatten(&mut types),
        Hook::Inbound => given::Inbound::flatten(&mut types),
        Hook::Batch => given::Batch::flatten(&mut types),
        Hook::Publication | Hook::Broadcast => given::Publication::flatten(&mut types),
        Hook::Outbound => given::Outbound::flatten(&mut types),
        Hook::Subscription => given::Subscription::flatten(&mut types),
        Hook::Timer => given::Timer::flatten(&mut types),
        Hook::Reply => given::Reply::flatten(&mut types),
        Hook::Presence => given::Presence::flatten(&mut types),
        Hook::Http => return None,
    }
    Some(types)
}

/// Finds a module's hooks.
pub fn names(engine: &Engine, module: &Module) -> Result<Names> {
    let mut names: Names = Default::default();
    for export in module.exports() {
        let Some((interface, function)) = export.name().split_once('#') else { continue };
        let Some(name) = Name::parse(interface) else { continue };
        let of = |hook: &Hook| {
            let (known, of_it) = hook.export();
            Name::parse(known).is_some_and(|known| known.interface == name.interface) && of_it == function
        };
        let unknown = || mistake(format!("{} is not what this gateway calls", export.name()));
        let hook = Hook::ALL.into_iter().find(of).ok_or_else(unknown)?;
        let expected = FuncType::new(engine, params(hook).ok_or_else(unknown)?, [ValType::I32]);
        if !matches!(export.ty(), ExternType::Func(ty) if FuncType::eq(&ty, &expected)) {
            return Err(unknown());
        }
        let after = FuncType::new(engine, [ValType::I32], []);
        match module.get_export(&after_name(export.name())) {
            None => {}
            Some(ExternType::Func(ty)) if FuncType::eq(&ty, &after) => {}
            Some(_) => return Err(unknown()),
        }
        names[hook as usize] = Some(export.name().into());
    }
    Ok(names)
}

/// The canonical ABI's name for what is called when an answer was read.
fn after_name(hook: &str) -> String {
    format!("cabi_post_{hook}")
}

impl Hooks {
    pub fn new(store: &mut Store<State>, instance: &Instance, names: &Names, parts: Parts) -> Self {
        let mut functions = [None; Hook::ALL.len()];
        for (function, name) in functions.iter_mut().zip(names) {
            let Some(name) = name else { continue };
            let after = instance.get_func(&mut *store, &after_name(name));
            *function = instance.get_func(&mut *store, name).map(|call| Function { call, after });
        }
        Self { parts, functions }
    }

    pub fn has(&self, hook: Hook) -> bool {
        self.functions[hook as usize].is_some()
    }

    /// Calls a hook that the plugin has. The inner error is what the hook answered.
    pub fn call(&self, store: &mut Store<State>, call: &Call<'_>) -> Result<Answered<Answer>> {
        let hook = call.hook();
        match call {
            Call::Init | Call::Http { .. } => self.done(store, hook, &()),
            Call::Authenticate { session } => {
                let given: given::Authenticate = (*session,);
                let decision = self.made::<_, wit::on_authenticate::Decision>(store, hook, &given)?;
                Ok(decision.map(|decision| Answer::Decision(Decision::from(decision))))
            }
            Call::Opened { session } => self.done(store, hook, &(*session,)),
            Call::Closed { session, code, reason, by } => {
                let given: given::Closed<'_> = (*session, *code, &**reason, (*by).into());
                self.done(store, hook, &given)
            }
            Call::Inbound { session, message } => {
                let given: given::Inbound<'_> = (*session, message.lowered());
                self.verdict(store, hook, &given)
            }
            Call::Publication { topic, message } | Call::Broadcast { topic, message } => {
                let given: given::Publication<'_> = (1, &**topic, message.lowered());
                self.verdict(store, hook, &given)
            }
            Call::Outbound { session, publication, message } => {
                let given: given::Outbound<'_> = (*session, *publication, message.lowered());
                self.verdict(store, hook, &given)
            }
            Call::Subscription { session, topic, event, position } => {
                let position = position.map(|at| Position { epoch: at.epoch, offset: at.offset });
                let given: given::Subscription<'_> = (*session, &**topic, (*event).into(), position);
                self.done(store, hook, &given)
            }
            Call::Timer { session, name } => {
                let given: given::Timer<'_> = (*session, &**name);
                self.done(store, hook, &given)
            }
            Call::Reply { session, tag, reply } => {
                let reply = match &**reply {
                    Ok((status, body)) => Ok(wit::on_reply::Response { status: *status, body: wit_message(body) }),
                    Err(failure) => Err((*failure).into()),
                };
                let given: given::Reply<'_> = (*session, &**tag, reply);
                self.done(store, hook, &given)
            }
            Call::Presence { topic, joined, session_id, user, info, sessions_of_user } => {
                let what = if *joined { wit::on_presence::Event::Joined } else { wit::on_presence::Event::Left };
                let given: given::Presence<'_> =
                    (&**topic, what, &**session_id, user.as_deref(), &**info, *sessions_of_user);
                self.done(store, hook, &given)
            }
        }
    }

    /// What `call` does for a client's message.
    pub fn inbound(
        &self,
        store: &mut Store<State>,
        session: u64,
        message: MessageRef<'_>,
    ) -> Result<Answered<Verdict>> {
        let (kind, at, length) = given(&mut Guest::new(store.as_context_mut(), self.parts), message)?;
        let mut room = [ValRaw::u64(session), ValRaw::u32(kind), ValRaw::u32(at), ValRaw::u32(length)];
        Ok(self.called::<WitVerdict>(store, Hook::Inbound, &mut room)?.map(Verdict::from))
    }

    /// Calls `batch` for messages that were read together.
    pub fn batch(
        &self,
        store: &mut Store<State>,
        session: u64,
        messages: &[MessageRef<'_>],
    ) -> Result<Answered<Vec<Verdict>>> {
        const ROW: usize = BorrowedMessage::SIZE;
        let mut rows = [0; ROW * BATCH_MAX];
        let count = messages.len().min(BATCH_MAX);
        let mut guest = Guest::new(store.as_context_mut(), self.parts);
        for (row, message) in rows.chunks_exact_mut(ROW).zip(messages) {
            let (kind, at, length) = given(&mut guest, *message)?;
            // As `BorrowedMessage::store` does it, without a look at the guest's memory for each number.
            for (place, number) in row.chunks_exact_mut(size_of::<u32>()).zip([kind, at, length]) {
                place.copy_from_slice(&number.to_le_bytes());
            }
        }
        let at = guest.allocate(BorrowedMessage::ALIGN as u32, (ROW * count) as u32)?;
        guest.write(at as usize, &rows[..ROW * count])?;
        let mut room = [ValRaw::u64(session), ValRaw::u32(at), ValRaw::u32(count as u32)];
        let verdicts = self.called::<Vec<WitVerdict>>(store, Hook::Batch, &mut room)?;
        Ok(verdicts.map(|verdicts| verdicts.into_iter().map(Verdict::from).collect()))
    }

    fn done<P: Lower>(&self, store: &mut Store<State>, hook: Hook, given: &P) -> Result<Answered<Answer>> {
        Ok(self.made::<P, ()>(store, hook, given)?.map(|()| Answer::Done))
    }

    fn verdict<P: Lower>(&self, store: &mut Store<State>, hook: Hook, given: &P) -> Result<Answered<Answer>> {
        Ok(self.made::<P, WitVerdict>(store, hook, given)?.map(|verdict| Answer::Verdict(verdict.into())))
    }

    fn made<P: Lower, R: Lift>(&self, store: &mut Store<State>, hook: Hook, given: &P) -> Result<Answered<R>> {
        let mut flat = Flattened::new();
        given.lower(&mut Guest::new(store.as_context_mut(), self.parts), &mut flat)?;
        self.called(store, hook, flat.room())
    }

    fn called<R: Lift>(&self, store: &mut Store<State>, hook: Hook, room: &mut [ValRaw]) -> Result<Answered<R>> {
        let Some(Function { call, after }) = self.functions[hook as usize] else {
            return Err(mistake(format!("the plugin has no hook `{}`", hook.name())));
        };
        guest::call(store, call, room)?;
        let pointer = room[0].get_u32();
        let at = aligned(pointer, Answered::<R>::ALIGN)?;
        let limit = store.data().context.limits.memory.0;
        let mut source = Source::new(self.parts.memory.data(&*store), limit);
        source.bytes(at, Answered::<R>::SIZE)?;
        let answer = Answered::<R>::load(at, &mut source)?;
        if let Some(after) = after {
            store.data_mut().alone = true;
            guest::call(store, after, &mut [ValRaw::u32(pointer)])?;
            store.data_mut().alone = false;
        }
        Ok(answer)
    }
}

/// A message in the guest's memory: its kind, where it lies, and its length.
fn given(guest: &mut Guest<'_>, message: MessageRef<'_>) -> Result<(u32, u32, u32)> {
    let (kind, payload) = match message {
        MessageRef::Text(text) => (0, text.as_bytes()),
        MessageRef::Binary(bytes) => (1, bytes),
    };
    let length = u32::try_from(payload.len()).map_err(|_| mistake("a message is too long".to_owned()))?;
    let at = guest.allocate(1, length)?;
    guest.write(at as usize, payload)?;
    Ok((kind, at, length))
}

#[cfg(test)]
mod tests {
    use wit_parser::abi::{AbiVariant, WasmType};

    use super::*;
    use crate::plugin::interface::Interface;

    #[test]
    fn every_hook_takes_what_the_interface_says() {
        let interface = Interface::own().unwrap();
        let resolve = &interface.resolve;
        for hook in Hook::ALL.into_iter().filter(|hook| *hook != Hook::Http) {
            let (name, function) = hook.export();
            let name = Name::parse(name).unwrap().interface;
            let id = resolve.packages.iter().next().unwrap().1.interfaces[name];
            let described = &resolve.interfaces[id].functions[function];
            let signature = resolve.wasm_signature(AbiVariant::GuestExport, described);
            let wide = |ty: &WasmType| matches!(ty, WasmType::I64 | WasmType::PointerOrI64);
            let wide: Vec<_> = signature.params.iter().map(wide).collect();
            let own: Vec<_> = params(hook).unwrap().iter().map(|ty| matches!(ty, ValType::I64)).collect();
            assert_eq!(own, wide, "{}", hook.name());
            assert!(signature.retptr, "{} answers by a pointer", hook.name());
        }
    }
}
