//! The wasmtime engine, set up once: what it may use.

use anyhow::Context as _;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::epoch;
use crate::config::PluginLimits;

/// What host functions have beside the guest's own stack, where a call that waits has one of its own.
const HOST_STACK: usize = 256 << 10;
/// Instances of all plugins together. Each reserves address space, not memory.
const INSTANCES: u32 = 1_000;
/// Kept of an instance's memory from call to call of new instances, instead of being given back and faulted in again.
const KEEP_RESIDENT: usize = 64 << 10;

/// What instances have at the most. Address space for it is set aside once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Linear memory, in bytes.
    pub memory: usize,
    /// Elements of tables.
    pub tables: usize,
    /// The guest's stack, in bytes: the same for all, since calls are made on the gateway's own threads.
    pub stack: usize,
}

impl Room {
    /// For the plugins of a configuration.
    pub fn of(config: &crate::config::Config) -> Self {
        let defaults = PluginLimits::default();
        let limits = || config.plugins.values().map(|plugin| plugin.limits).chain([defaults]);
        Self {
            memory: limits().map(|limits| limits.memory.0).max().unwrap_or_default(),
            tables: limits().map(|limits| limits.tables).max().unwrap_or_default(),
            stack: config.plugin_stack.0,
        }
    }
}

/// Makes the engine.
pub fn engine(room: Room) -> anyhow::Result<Engine> {
    let engine = Engine::new(&pooled(room)).or_else(|error| {
        // Little address space, as under a container's limit: the same engine, one mapping at a time.
        tracing::warn!(error = format!("{error:#}"), "no room for a pool of instances: each is mapped on demand");
        Engine::new(base().max_wasm_stack(room.stack).async_stack_size(room.stack + HOST_STACK))
    });
    let engine = engine.map_err(sentence).context("the WebAssembly engine cannot be set up")?;
    epoch::start(&engine)?;
    Ok(engine)
}

/// An engine that only compiles, for `engine`: what it makes does not depend on the room.
pub fn compiling() -> anyhow::Result<Engine> {
    Engine::new(&base()).map_err(sentence).context("the WebAssembly compiler cannot be set up")
}

/// The engine's error with its causes, as the rest of the gateway passes errors on.
pub fn sentence(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

fn base() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Component-model tasks would cost each call some 0.4 µs; nothing here uses them.
        .concurrency_support(false)
        // Fuel would cost a tight loop 20 %, an epoch costs it 7 % at the most.
        .epoch_interruption(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

fn pooled(room: Room) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(4 * INSTANCES)
        .total_memories(INSTANCES)
        .total_tables(4 * INSTANCES)
        .total_stacks(INSTANCES)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_core_instances_per_component(64)
        .max_memories_per_component(16)
        .max_tables_per_component(64)
        .table_elements(room.tables)
        .max_memory_size(room.memory)
        .linear_memory_keep_resident(KEEP_RESIDENT);
    let mut config = base();
    config
        .max_wasm_stack(room.stack)
        .async_stack_size(room.stack + HOST_STACK)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}
