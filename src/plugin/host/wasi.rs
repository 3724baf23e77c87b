//! What a language's runtime finds behind WASI: no directories, no environment, no sockets; the gateway's clock and
//! randomness where these are not the machine's; and a place for what it prints, which is where many languages say why
//! they panic.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, async_trait};

use super::Context;
use super::asked::Answer;
use crate::plugin::event::Hook;
use crate::plugin::script::{Heard, Script, nothing};
use crate::source::{Clock, Random};
use crate::tap::Note;

/// Bytes of a line; the rest is on the next.
const LINE: usize = 8 << 10;
/// Lines of one call; what comes then is thrown away.
const LINES: u32 = 100;

/// Which call prints, and asks for time and randomness.
#[derive(Default)]
pub struct Speaker {
    hook: AtomicU8,
    lines: AtomicU32,
    /// Whether there is a script, so that calls without one take no lock.
    scripted: AtomicBool,
    script: Mutex<Option<Arc<Script>>>,
}

impl Speaker {
    pub fn begin(&self, hook: Hook, script: Option<&Arc<Script>>) {
        self.hook.store(hook as u8, Ordering::Relaxed);
        self.lines.store(0, Ordering::Relaxed);
        if script.is_some() || self.scripted.load(Ordering::Relaxed) {
            *self.script.lock() = script.cloned();
            self.scripted.store(script.is_some(), Ordering::Relaxed);
        }
    }

    /// What the machine says, or the recording; where that says nothing, the guest's own runtime has asked, for which there
    /// is always an answer.
    fn asked<T: Answer>(&self, ask: &'static str, with: impl Fn() -> Value, live: impl FnOnce() -> T) -> T {
        let script = self.scripted.load(Ordering::Relaxed).then(|| self.script.lock().clone()).flatten();
        let Some(script) = script else { return live() };
        if let Heard::Recorded(question) = script.ask(ask, &with, true)
            && let Some(answer) = question.get("is").and_then(T::heard)
        {
            return answer;
        }
        let answer = live();
        script.keep(ask, with, || ("is", answer.told()));
        answer
    }
}

pub fn context(context: &Arc<Context>, speaker: &Arc<Speaker>) -> WasiCtx {
    let mut wasi = WasiCtx::builder();
    let print = |error| Print { context: context.clone(), speaker: speaker.clone(), error, line: Arc::default() };
    wasi.stdout(print(false)).stderr(print(true));
    let (clock, random) = (&context.node.clock, &context.node.random);
    wasi.wall_clock(Wall(clock.clone(), speaker.clone())).monotonic_clock(Monotonic(clock.clone(), speaker.clone()));
    let bytes = || Bytes(random.clone(), speaker.clone());
    wasi.secure_random(bytes()).insecure_random(bytes());
    if random.is_seeded() {
        wasi.insecure_random_seed(random.number().unwrap_or_default().into());
    }
    wasi.build()
}

struct Wall(Clock, Arc<Speaker>);

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        if self.0.is_by_hand() { Duration::from_millis(1) } else { Duration::from_nanos(1) }
    }

    fn now(&self) -> Duration {
        let now = || {
            if self.0.is_by_hand() {
                return Duration::from_millis(self.0.unix());
            }
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
        };
        let nanos = self.1.asked("wasi.wall-clock", nothing, || u64::try_from(now().as_nanos()).unwrap_or(u64::MAX));
        Duration::from_nanos(nanos)
    }
}

struct Monotonic(Clock, Arc<Speaker>);

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        let now = || u64::try_from(self.0.monotonic().as_nanos()).unwrap_or(u64::MAX);
        self.1.asked("wasi.monotonic-clock", nothing, now)
    }
}

struct Bytes(Random, Arc<Speaker>);

impl rand_core::TryRng for Bytes {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        let length = bytes.len();
        let live = || {
            let mut bytes = vec![0; length];
            // Zeros would be secrets that everybody knows. The machine's source fails before it is set up, if ever.
            while self.0.fill(&mut bytes).is_err() {
                std::thread::sleep(Duration::from_millis(10));
            }
            bytes
        };
        let heard = self.1.asked("wasi.random", || json!({ "length": length }), live);
        for (byte, heard) in bytes.iter_mut().zip(heard) {
            *byte = heard;
        }
        Ok(())
    }
}

/// A stream whose lines go to the log under the plugin's name.
#[derive(Clone)]
struct Print {
    context: Arc<Context>,
    speaker: Arc<Speaker>,
    error: bool,
    line: Arc<Mutex<Vec<u8>>>,
}

impl Print {
    fn put(&self, bytes: &[u8]) {
        let mut line = self.line.lock();
        for byte in bytes {
            if *byte != b'\n' {
                line.push(*byte);
            }
            if *byte == b'\n' || line.len() >= LINE {
                self.say(&line);
                line.clear();
            }
        }
    }

    fn say(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if text.is_empty() || self.speaker.lines.fetch_add(1, Ordering::Relaxed) >= LINES {
            return;
        }
        let level = if self.error { "error" } else { "info" };
        if let Some(tap) = &self.context.node.tap {
            let (plugin, message) = (self.context.name.to_string(), text.to_owned());
            tap.note(Note::Log { plugin, level, message, fields: Vec::new() });
        }
        let (plugin, generation) = (&*self.context.name, self.context.generation);
        let hook = Hook::ALL.get(usize::from(self.speaker.hook.load(Ordering::Relaxed))).map_or("", |hook| hook.name());
        // A control character of a plugin's is no line of the log's.
        let text = text.replace(char::is_control, "\u{2424}");
        if self.error {
            tracing::error!(target: "plugin", plugin, generation, hook, "{text}");
        } else {
            tracing::info!(target: "plugin", plugin, generation, hook, "{text}");
        }
    }
}

impl IsTerminal for Print {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Print {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Print {
    async fn ready(&mut self) {}
}

impl OutputStream for Print {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LINE)
    }
}

impl AsyncWrite for Print {
    fn poll_write(self: Pin<&mut Self>, _: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.put(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
