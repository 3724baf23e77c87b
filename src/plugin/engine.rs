//! The wasmtime engine, set up once: what it may use, and the clock that interrupts calls.

use std::time::Duration;

use anyhow::Context as _;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

/// How often running calls are looked at. A call that ends sooner pays nothing for its budget.
pub const TICK: Duration = Duration::from_millis(2);
/// Stack of a call in wasm, and of a call that waits, in which the former must fit.
const WASM_STACK: usize = 256 << 10;
const ASYNC_STACK: usize = 512 << 10;
/// Instances of all plugins together. Each reserves address space, not memory.
const INSTANCES: u32 = 1_000;
/// Kept of an instance's memory from call to call of new instances, instead of being given back and faulted in again.
const KEEP_RESIDENT: usize = 64 << 10;

/// Makes the engine. `memory` is the largest linear memory that a plugin may have, in bytes.
pub fn engine(memory: usize) -> anyhow::Result<Engine> {
    let engine = Engine::new(&pooled(memory)).or_else(|error| {
        // Little address space, as under a container's limit: the same engine, one mapping at a time.
        tracing::warn!(error = format!("{error:#}"), "no room for a pool of instances: each is mapped on demand");
        Engine::new(&base())
    });
    let engine = engine.map_err(sentence).context("the WebAssembly engine cannot be set up")?;
    start_ticking(&engine)?;
    Ok(engine)
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
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config
}

fn pooled(memory: usize) -> Config {
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
        .table_elements(20_000)
        .max_memory_size(memory)
        .linear_memory_keep_resident(KEEP_RESIDENT);
    let mut config = base();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// A thread of its own, since the runtime's may all be in guests; it ends with the engine.
fn start_ticking(engine: &Engine) -> anyhow::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("tidegate-tick".into()).spawn(tick).context("no thread for the epoch clock")?;
    Ok(())
}
