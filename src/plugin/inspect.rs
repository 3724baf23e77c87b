//! A plugin's file, looked into without a gateway: what it has, what it wants, what it costs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest, Sha256};
use wasmparser::{Parser, Payload};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::code::Code;
use super::encode;
use super::engine::sentence;
use super::event::Hook;
use super::host::{self, Context};
use super::instance::Instance;
use super::interface::{Interface, Name};
use super::template::Template;
use crate::config::PluginConfig;
use crate::node::Node;

const PAGE: u64 = 64 << 10;

/// What is known of a file. Sizes in bytes, times in microseconds.
#[derive(Debug, Serialize)]
pub struct Report {
    pub form: &'static str,
    /// It is called without a component around it.
    pub direct: bool,
    pub bytes: usize,
    pub sha256: String,
    pub hooks: Vec<&'static str>,
    pub imports: Vec<Import>,
    /// Versions of the interface that the file names, and the gateway's own.
    pub speaks: Vec<String>,
    pub gateway_speaks: String,
    pub memory: Memory,
    pub compile_us: u64,
    /// Making an instance, and its `init`.
    pub instance_us: Option<u64>,
    /// Why `init` did not answer well; it had no configuration, grants or keys.
    pub init_error: Option<String>,
    /// The imports because of which calls may wait; empty: none does.
    pub waits_for: Vec<String>,
    pub grants: Vec<Grant>,
}

/// An interface and the functions of it that are imported.
#[derive(Debug, Serialize)]
pub struct Import {
    pub interface: String,
    pub functions: Vec<String>,
}

/// Linear memory: what the file declares, and what an instance had after its `init`.
#[derive(Debug, Default, Serialize)]
pub struct Memory {
    pub initial: u64,
    /// None: as much as the gateway gives.
    pub maximum: Option<u64>,
    pub after_init: Option<u64>,
}

/// A grant that the imports ask for.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// The key under `[plugin.NAME.grants]`.
    pub key: &'static str,
    /// Something to begin with, as TOML.
    pub value: &'static str,
    /// The functions that need it.
    pub because: Vec<String>,
    /// What is to be written.
    pub what: &'static str,
}

/// Looks into a file. The error is why it is no plugin that this gateway can serve.
pub async fn inspect(engine: &Engine, bytes: &[u8], node: Arc<Node>) -> anyhow::Result<Report> {
    let encoded = encode::encoded(bytes)?;
    let begun = Instant::now();
    let code = Code::new(engine, bytes, &encoded)?;
    let compile_us = micros(begun.elapsed());
    // Described as a component whichever way it is called.
    let component = match &code {
        Code::Component(component) => component.clone(),
        Code::Module(_) => Component::new(engine, &encoded.component).map_err(sentence)?,
    };
    let imports = imports(engine, &component);
    let mut speaks: Vec<String> = Vec::new();
    let ty = component.component_type();
    let exports = ty.exports(engine).map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    let names = imports.iter().map(|import| import.interface.as_str()).chain(exports.iter().map(String::as_str));
    speaks.extend(names.filter_map(Name::parse).map(|name| name.version.to_owned()));
    speaks.sort_unstable();
    speaks.dedup();
    let (template, _) = Template::new(engine, &code)?;
    let hooks = Hook::ALL.into_iter().filter(|hook| template.has(*hook));
    let hooks = hooks.map(Hook::name).collect();
    let mut report = Report {
        form: encoded.form.name(),
        direct: encoded.is_direct,
        bytes: bytes.len(),
        sha256: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
        hooks,
        waits_for: imports.iter().map(|import| &import.interface).filter(|name| host::waits(name)).cloned().collect(),
        grants: grants(&imports),
        speaks,
        gateway_speaks: Interface::own()?.version(),
        memory: memory(&encoded.component)?,
        compile_us,
        instance_us: None,
        init_error: None,
        imports,
    };
    let context = context(&PluginConfig::default(), node);
    let begun = Instant::now();
    match Instance::new(&template, &Arc::new(context)).await {
        Ok(instance) => {
            report.instance_us = Some(micros(begun.elapsed()));
            report.memory.after_init = Some(instance.memory() as u64);
        }
        Err(why) => report.init_error = Some(why.to_string()),
    }
    Ok(report)
}

/// What instances of a plugin cost. Times in nanoseconds, memory in bytes.
#[derive(Debug, Serialize)]
pub struct Instances {
    pub compile_ns: u64,
    pub made: usize,
    /// Making one, with its `init`.
    pub p50_ns: u64,
    pub p99_ns: u64,
    /// Linear memory of one after its `init`.
    pub memory: u64,
}

/// Makes many instances, for half a second at the most.
pub async fn instances(
    engine: &Engine,
    bytes: &[u8],
    settings: &PluginConfig,
    node: Arc<Node>,
) -> anyhow::Result<Instances> {
    const TIME: Duration = Duration::from_millis(500);
    const MOST: usize = 1_000;
    let encoded = encode::encoded(bytes)?;
    let begun = Instant::now();
    let code = Code::new(engine, bytes, &encoded)?;
    let compile_ns = nanos(begun.elapsed());
    let (template, _) = Template::new(engine, &code)?;
    let context = Arc::new(context(settings, node));
    let (mut times, mut memory) = (Vec::new(), 0);
    let begun = Instant::now();
    while times.len() < MOST && (times.is_empty() || begun.elapsed() < TIME) {
        let one = Instant::now();
        let made = Instance::new(&template, &context).await;
        let instance = made.map_err(|why| anyhow::anyhow!("no instance can be made: {why}"))?;
        times.push(nanos(one.elapsed()));
        memory = instance.memory() as u64;
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    Ok(Instances { compile_ns, made: times.len(), p50_ns: at(50), p99_ns: at(99), memory })
}

/// A generation that no gateway has.
fn context(settings: &PluginConfig, node: Arc<Node>) -> Context {
    // It asks nobody.
    let http_requests = Arc::new(tokio::sync::Semaphore::new(0));
    Context { http_requests, ..Context::new("inspected", 1, settings, node) }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn imports(engine: &Engine, component: &Component) -> Vec<Import> {
    let mut imports = Vec::new();
    for (interface, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = &import.ty else { continue };
        let is_function = |item: &ComponentItem| matches!(item, ComponentItem::ComponentFunc(_));
        let functions = instance.exports(engine).filter(|(_, export)| is_function(&export.ty));
        let functions: Vec<_> = functions.map(|(name, _)| name.to_owned()).collect();
        // Of an interface of types alone nothing is called.
        if !functions.is_empty() {
            imports.push(Import { interface: interface.to_owned(), functions });
        }
    }
    imports
}

/// What the imports show to be needed. A language that imports whole interfaces, used or not, shows more than is.
fn grants(imports: &[Import]) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    for import in imports {
        let interface = import.interface.split('@').next().unwrap_or_default();
        let short = interface.strip_prefix("tidegate:plugin/").unwrap_or(interface);
        for function in &import.functions {
            for (key, value, what) in needed(short, function) {
                let because = format!("{short}.{function}");
                match grants.iter_mut().find(|grant| grant.key == key) {
                    Some(grant) => grant.because.push(because),
                    None => grants.push(Grant { key, value, what, because: vec![because] }),
                }
            }
        }
    }
    grants
}

/// Key, value and meaning of each grant that a function needs.
fn needed(interface: &str, function: &str) -> Vec<(&'static str, &'static str, &'static str)> {
    const PUBLISH: (&str, &str, &str) = ("publish", "[]", "patterns of topics, such as \"room:*\"");
    const SUBSCRIBE: (&str, &str, &str) = ("subscribe", "[]", "patterns of topics, such as \"room:*\"");
    const USERS: (&str, &str, &str) = ("users", "true", "");
    const SESSIONS: (&str, &str, &str) = ("sessions", "true", "");
    const KV: (&str, &str, &str) = ("kv", "[]", "prefixes of keys; \"\" for all");
    const HEADERS: (&str, &str, &str) = ("headers", "[]", "names of request headers, such as \"authorization\"");
    const UPSTREAMS: (&str, &str, &str) = ("upstreams", "[]", "names of upstreams");
    const HTTP: (&str, &str, &str) = ("http", "[]", "hosts, such as \"api.example.org\" or \"127.0.0.1:9000\"");
    match (interface, function) {
        ("topics", "publish") => vec![PUBLISH],
        ("session", "subscribe") | ("history" | "presence", _) => vec![SUBSCRIBE],
        ("users", "subscribe") => vec![USERS, SUBSCRIBE],
        ("sessions", "subscribe") => vec![SESSIONS, SUBSCRIBE],
        ("users", _) => vec![USERS],
        ("sessions", _) => vec![SESSIONS],
        ("kv", _) => vec![KV],
        ("wasi:http/outgoing-handler", _) => vec![HTTP],
        ("handshake", "header" | "headers" | "cookie") => vec![HEADERS],
        ("upstream", "forward" | "request") => vec![UPSTREAMS],
        _ => Vec::new(),
    }
}

/// The memories that the component's modules define.
fn memory(component: &[u8]) -> anyhow::Result<Memory> {
    let mut memory = Memory { maximum: Some(0), ..Memory::default() };
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::MemorySection(section) = payload? {
            for ty in section {
                let ty = ty?;
                memory.initial += ty.initial * PAGE;
                memory.maximum = memory.maximum.zip(ty.maximum).map(|(sum, maximum)| sum + maximum * PAGE);
            }
        }
    }
    Ok(memory)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_follow_from_the_functions() {
        let import = |interface: &str, functions: &[&str]| Import {
            interface: format!("tidegate:plugin/{interface}@0.1.0"),
            functions: functions.iter().map(|name| (*name).to_owned()).collect(),
        };
        let found = grants(&[
            import("session", &["send", "subscribe"]),
            import("topics", &["publish", "with-key"]),
            import("users", &["send"]),
            import("history", &["read"]),
            import("clock", &["now"]),
        ]);
        let keys: Vec<_> = found.iter().map(|grant| (grant.key, grant.because.join(" "))).collect();
        let expected = [
            ("subscribe", "session.subscribe history.read".to_owned()),
            ("publish", "topics.publish".to_owned()),
            ("users", "users.send".to_owned()),
        ];
        assert_eq!(keys, expected);
        // Whatever is proposed can be pasted.
        let every = [
            ("topics", "publish"),
            ("sessions", "subscribe"),
            ("users", "send"),
            ("kv", "get"),
            ("handshake", "cookie"),
            ("upstream", "request"),
            ("wasi:http/outgoing-handler", "handle"),
        ];
        let all: Vec<_> = every.iter().flat_map(|(interface, function)| needed(interface, function)).collect();
        let text: String = all.iter().map(|(key, value, _)| format!("{key} = {value}\n")).collect();
        toml::from_str::<crate::config::Grants>(&text).unwrap();
    }
}
