//! The epoch clock, by which running calls are interrupted: it ticks while guests run, and rests while none does.
//!
//! A call tells that it runs when it begins, at each tick that it sees, and whenever it goes on after it has waited. So a
//! clock that nobody has told for a while may stop, and who tells it then wakes it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::{Condvar, Mutex};
use wasmtime::Engine;

/// How often running calls are looked at. A call that ends sooner pays nothing for its budget.
const TICK: Duration = Duration::from_millis(2);
/// Ticks without a call after which the clock rests.
const IDLE: u64 = 100;
/// How often a resting clock looks whether its engine is still there.
const LOOK: Duration = Duration::from_secs(10);

/// Ticks of all engines' clocks, of which a process has one; tests have more, and each keeps the others awake.
static TICKS: AtomicU64 = AtomicU64::new(IDLE);
/// What it stood at when a guest was last seen to run.
static LAST: AtomicU64 = AtomicU64::new(0);
/// How many of the clocks rest.
static RESTING: AtomicUsize = AtomicUsize::new(0);
static REST: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

/// A guest runs now.
#[inline]
pub fn runs() {
    let now = TICKS.load(Ordering::Relaxed);
    // Once for each tick: this is read by all threads, and seldom written.
    if LAST.load(Ordering::Relaxed) != now {
        wake(now);
    }
}

#[cold]
fn wake(now: u64) {
    // Either this sees that the clock rests, or the clock, which looks once more before it does, sees this.
    LAST.store(now, Ordering::SeqCst);
    if RESTING.load(Ordering::SeqCst) > 0 {
        drop(REST.0.lock());
        REST.1.notify_all();
    }
}

fn is_idle() -> bool {
    TICKS.load(Ordering::SeqCst).wrapping_sub(LAST.load(Ordering::SeqCst)) >= IDLE
}

/// A thread of its own, since the runtime's may all be in guests; it ends with the engine.
pub fn start(engine: &Engine) -> anyhow::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            TICKS.fetch_add(1, Ordering::SeqCst);
            drop(engine);
            if is_idle() {
                let mut rest = REST.0.lock();
                RESTING.fetch_add(1, Ordering::SeqCst);
                if is_idle() {
                    REST.1.wait_for(&mut rest, LOOK);
                }
                RESTING.fetch_sub(1, Ordering::SeqCst);
            }
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("tidegate-tick".into()).spawn(tick).context("no thread for the epoch clock")?;
    Ok(())
}
