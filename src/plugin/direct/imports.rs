//! The host functions that a core module imports: each a row of numbers in, and the state's own function behind it.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;

use wasmtime::{Caller, Engine, FuncType, Linker, Module, Result, ValRaw, ValType};

use super::abi::{FLAT_MAX, Flat, Flattened, Lift, Lower, aligned, mistake, no_case};
use super::guest::{Guest, Parts};
use crate::message::MessageRef;
use crate::plugin::host::State;
use crate::plugin::interface::Name;
use crate::plugin::wit::tidegate::plugin as wit;

use wit::clock::Host as _;
use wit::config::Host as _;
use wit::log::Host as _;
use wit::random::Host as _;

type Entry = dyn Fn(&mut Guest<'_>, &[ValRaw]) -> Result<Option<ValRaw>> + Send + Sync;

/// A host function in its core form.
struct Import {
    params: Vec<ValType>,
    results: Vec<ValType>,
    entry: Arc<Entry>,
}

/// Whether a function can be called directly: it never waits.
pub fn offers(interface: &str, function: &str) -> bool {
    find(interface, function).is_some()
}

/// Gives a module what it imports.
pub fn link(engine: &Engine, module: &Module) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    for import in module.imports() {
        let name = Name::parse(import.module());
        let found = name.and_then(|name| find(name.interface, import.name()));
        let unknown = || mistake(format!("{}.{} is not what this gateway offers", import.module(), import.name()));
        let Import { params, results, entry } = found.ok_or_else(unknown)?;
        let own = FuncType::new(engine, params, results);
        if !import.ty().func().is_some_and(|ty| FuncType::eq(ty, &own)) || own.params().len() > FLAT_MAX {
            return Err(unknown());
        }
        let count = own.params().len();
        let call = move |mut caller: Caller<'_, State>, values: &mut [MaybeUninit<ValRaw>]| {
            let given: &[MaybeUninit<ValRaw>] = values.get(..count).unwrap_or_default();
            // SAFETY: the engine has written as many values as the function has parameters.
            let given = unsafe { &*(ptr::from_ref(given) as *const [ValRaw]) };
            let answer = entry(&mut of(&mut caller)?, given)?;
            if let (Some(place), Some(answer)) = (values.first_mut(), answer) {
                place.write(answer);
            }
            Ok(())
        };
        // SAFETY: the function reads numbers of the parameters' types and writes one of the result's, as `Import` has them.
        unsafe { linker.func_new_unchecked(import.module(), import.name(), own, call) }?;
    }
    Ok(linker)
}

fn of<'a>(caller: &'a mut Caller<'_, State>) -> Result<Guest<'a>> {
    let parts: Option<Parts> = caller.data().parts;
    let early = || mistake("it calls the gateway before it is made".to_owned());
    Ok(Guest::new(wasmtime::AsContextMut::as_context_mut(caller), parts.ok_or_else(early)?))
}

/// A function of the state's in its core form: its parameters, flattened; its answer as a number, or where a last
/// parameter points to.
fn core<P, R>(function: impl Fn(&mut State, P) -> Result<R> + Send + Sync + 'static) -> Import
where
    P: Lift + 'static,
    R: Lower + 'static,
{
    let (mut params, mut results) = (Vec::new(), Vec::new());
    P::flatten(&mut params);
    R::flatten(&mut results);
    if R::COUNT > 1 {
        params.push(ValType::I32);
        results.clear();
    }
    let entry = move |guest: &mut Guest<'_>, given: &[ValRaw]| {
        let (mut source, state) = guest.split();
        let answer = function(state, P::lift(&mut Flat(given), &mut source)?)?;
        if R::COUNT <= 1 {
            let mut flat = Flattened::new();
            answer.lower(guest, &mut flat)?;
            return Ok((R::COUNT == 1).then(|| flat.room()[0]));
        }
        let at = aligned(given.last().map_or(0, |last| last.get_u32()), R::ALIGN)?;
        guest.split().0.bytes(at, R::SIZE)?;
        answer.store(guest, at)?;
        Ok(None)
    };
    Import { params, results, entry: Arc::new(entry) }
}

/// `session.send` is what plugins do most: its message is read where it lies.
fn send() -> Import {
    let entry = |guest: &mut Guest<'_>, given: &[ValRaw]| {
        let (source, state) = guest.split();
        let &[session, kind, at, length] = given else { return Err(mistake("send takes four numbers".to_owned())) };
        let (at, length) = (at.get_u32() as usize, length.get_u32() as usize);
        let message = match kind.get_u32() {
            0 => MessageRef::Text(source.text(at, length)?),
            1 => MessageRef::Binary(source.bytes(at, length)?),
            other => return Err(no_case(other)),
        };
        state.send_message(session.get_u64(), message).map(|effect| Some(ValRaw::u32(effect)))
    };
    let params = vec![ValType::I64, ValType::I32, ValType::I32, ValType::I32];
    Import { params, results: vec![ValType::I32], entry: Arc::new(entry) }
}

/// A row for each function that never waits. What is not here goes by way of a component.
fn find(interface: &str, function: &str) -> Option<Import> {
    use wit::{handshake, metrics, publication, session, sessions, topics, upstream, users};
    macro_rules! rows {
        ($($interface:literal $module:ident { $($name:literal $function:ident($($param:ident),*)),+ $(,)? })+) => {
            match (interface, function) {
                $($(($interface, $name) =>
                    core(|state, ($($param,)*)| $module::Host::$function(state $(, $param)*)),)+)+
                ("session", "send") => send(),
                ("clock", "now") => core(|state: &mut State, ()| state.now()),
                ("clock", "monotonic") => core(|state: &mut State, ()| state.monotonic()),
                ("config", "json") => core(|state: &mut State, ()| state.json()),
                ("config", "get") => core(|state: &mut State, (path,)| state.get(path)),
                ("random", "number") => core(|state: &mut State, ()| state.number()),
                ("random", "bytes") => core(|state: &mut State, (length,)| state.bytes(length)),
                ("log", "enabled") => core(|state: &mut State, (level,)| state.enabled(level)),
                ("log", "write") => core(|state: &mut State, (level, message)| state.write(level, message)),
                ("log", "write-fields") => {
                    core(|state: &mut State, (level, message, fields)| state.write_fields(level, message, fields))
                }
                ("handshake", "certificate-facts") => core(|state, (session,)| {
                    let facts = handshake::Host::certificate_facts(state, session)?;
                    Ok(facts.map(|facts| {
                        let handshake::Certificate { subject, dns_names, uris, emails, .. } = facts;
                        (subject, dns_names, uris, emails, facts.addresses, facts.spiffe_id, facts.not_after)
                    }))
                }),
                _ => return None,
            }
        };
    }
    Some(rows! {
        "session" session {
            "id" id(session), "user" user(session), "route" route(session), "transport" transport(session),
            "subprotocol" subprotocol(session), "attribute" attribute(session, name),
            "is-subscribed" is_subscribed(session, topic), "topics" topics(session),
            "send-if-refused" send_if_refused(session, message), "set-user" set_user(session, user),
            "set-attribute" set_attribute(session, name, value), "set-expiry" set_expiry(session, at),
            "subscribe" subscribe(session, topic), "with-presence" with_presence(effect, info),
            "with-recovery" with_recovery(effect, since), "unsubscribe" unsubscribe(session, topic),
            "close" close(session, code, reason), "set-timer" set_timer(session, name, after),
            "cancel-timer" cancel_timer(session, name), "limit-sessions" limit_sessions(session, sessions, keep),
        }
        "handshake" handshake {
            "method" method(session), "path" path(session), "parameter" parameter(session, name),
            "query" query(session, name), "raw-query" raw_query(session), "header" header(session, name),
            "headers" headers(session), "cookie" cookie(session, name), "peer-address" peer_address(session),
            "client-certificate" client_certificate(session), "subprotocols" subprotocols(session),
            "select-subprotocol" select_subprotocol(session, name), "add-header" add_header(session, name, value),
            "set-body" set_body(session, content_type, body),
        }
        "topics" topics {
            "publish" publish(topic, message), "with-exclude" with_exclude(effect, session),
            "with-exclude-id" with_exclude_id(effect, id), "with-history" with_history(effect, size, ttl),
            "with-idempotency-key" with_idempotency_key(effect, key), "with-key" with_key(effect, key),
            "with-metadata" with_metadata(effect, name, value),
        }
        "publication" publication {
            "topic" topic(publication), "content" content(publication),
            "history-position" history_position(publication), "time" time(publication), "key" key(publication),
            "metadata" metadata(publication, name),
        }
        "users" users {
            "send" send(user, message), "subscribe" subscribe(user, topic), "unsubscribe" unsubscribe(user, topic),
            "disconnect" disconnect(user, code, reason),
        }
        "sessions" sessions {
            "send" send(id, message), "subscribe" subscribe(id, topic), "unsubscribe" unsubscribe(id, topic),
            "disconnect" disconnect(id, code, reason),
        }
        "upstream" upstream {
            "forward" forward(session, upstream, message), "request" request(session, upstream, tag, message),
            "with-header" with_header(effect, name, value), "with-timeout" with_timeout(effect, after),
        }
        "metrics" metrics {
            "count" count(series, by), "gauge" gauge(series, value), "observe" observe(series, value),
        }
    })
}

#[cfg(test)]
mod tests {
    use wit_parser::abi::{AbiVariant, WasmType};

    use super::*;
    use crate::plugin::host;
    use crate::plugin::interface::Interface;

    /// What wit-parser says that a function's core form is.
    fn flat(types: &[WasmType]) -> Vec<String> {
        let name = |ty: &WasmType| match ty {
            WasmType::I64 | WasmType::PointerOrI64 => "i64",
            WasmType::F32 => "f32",
            WasmType::F64 => "f64",
            WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        };
        types.iter().map(|ty| name(ty).to_owned()).collect()
    }

    #[test]
    fn every_function_that_never_waits_is_here_in_its_core_form() {
        let interface = Interface::own().unwrap();
        let resolve = &interface.resolve;
        let mut seen = 0;
        for (name, id) in &resolve.packages.iter().next().unwrap().1.interfaces {
            let waits = host::waits(&format!("tidegate:plugin/{name}"));
            for (function, described) in &resolve.interfaces[*id].functions {
                let found = find(name, function);
                if waits || name.starts_with("on-") {
                    assert!(found.is_none(), "{name}.{function}");
                    continue;
                }
                let Import { params, results, .. } = found.unwrap_or_else(|| panic!("{name}.{function} is missing"));
                let signature = resolve.wasm_signature(AbiVariant::GuestImport, described);
                let texts = |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>();
                assert_eq!(texts(&params), flat(&signature.params), "{name}.{function}");
                assert_eq!(texts(&results), flat(&signature.results), "{name}.{function}");
                seen += 1;
            }
        }
        assert!(seen > 60, "{seen}");
    }
}
