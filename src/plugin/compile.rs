//! From a plugin's file to machine code, in a process of its own.
//!
//! A compiler can be kept busy by a small file, and needs memory that an allocator seldom gives back. So the gateway runs
//! itself once more, as `tidegate compile`, with limits that the kernel keeps: what goes over them ends that
//! process and no other. Its input is the plugin's file; its output a byte for the form, then the code.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use wasmtime::Engine;

use super::code::Code;
use super::encode::Form;
use super::engine;
use crate::config::PluginLimits;

/// The argument that makes this program the compiler.
pub const COMMAND: &str = "compile";
/// On a busy machine the process may have to wait for its CPU time; one that gets so much less is stuck.
const PATIENCE: u32 = 20;
/// How often it is asked whether anybody still wants the code.
const LOOK: Duration = Duration::from_millis(100);
/// What is read of a compiler's last words.
const WORDS: u64 = 4 << 10;

/// Whether this process's program has the command `compile`. The library inside of another program does not.
static APART: AtomicBool = AtomicBool::new(false);

/// This program is `tidegate`: from now on it compiles in processes of their own.
pub fn compile_apart() {
    APART.store(true, Ordering::Relaxed);
}

/// What became of a file.
pub struct Compiled {
    pub form: Form,
    /// As `Code::precompiled` has made it.
    pub code: Vec<u8>,
}

/// A limit on the way from a file to a plugin.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Exceeded {
    /// The limit's name in the configuration.
    pub limit: &'static str,
    what: String,
}

impl Exceeded {
    pub fn new(limit: &'static str, what: String) -> Self {
        Self { limit, what }
    }
}

/// Where and how far a file is compiled.
pub struct Compiler<'a> {
    pub engine: &'a Engine,
    pub limits: &'a PluginLimits,
    /// Set when nobody wants the code any more.
    pub leaving: &'a AtomicBool,
}

impl Compiler<'_> {
    /// Compiles a plugin's file.
    pub fn compile(&self, file: &[u8]) -> anyhow::Result<Compiled> {
        if !APART.load(Ordering::Relaxed) {
            return here(self.engine, file);
        }
        // Found by the kernel even where the file was replaced by a newer version.
        let own = Path::new("/proc/self/exe");
        let program =
            if own.exists() { own.to_owned() } else { std::env::current_exe().context("which program is this?")? };
        let mut command = Command::new(program);
        let limits = [seconds(self.limits.compile.0), self.limits.compile_memory.0 as u64];
        command.arg(COMMAND).args(limits.map(|limit| limit.to_string())).env_clear();
        let ended = attend(&mut command, file, self.limits.compile.0.saturating_mul(PATIENCE), self.leaving)?;
        judge(ended, self.limits)
    }
}

/// Within this process, without limits.
fn here(engine: &Engine, file: &[u8]) -> anyhow::Result<Compiled> {
    let (form, code) = Code::precompiled(engine, file)?;
    Ok(Compiled { form, code })
}

/// What a compiler's process has left.
struct Ended {
    /// None: it was killed, because it had taken so long.
    status: Option<ExitStatus>,
    output: Vec<u8>,
    words: String,
}

fn attend(command: &mut Command, file: &[u8], patience: Duration, leaving: &AtomicBool) -> anyhow::Result<Ended> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("the process that compiles plugins cannot be started")?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut input), Some(mut output), Some(words)) = pipes else {
        bail!("the process that compiles plugins has no pipes");
    };
    std::thread::scope(|scope| {
        // One that dies over it says why with its status.
        scope.spawn(move || input.write_all(file));
        let words = scope.spawn(move || {
            let mut text = Vec::new();
            let _ = words.take(WORDS).read_to_end(&mut text);
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        let (done, reader) = std::sync::mpsc::sync_channel(1);
        scope.spawn(move || {
            let mut all = Vec::new();
            let read = output.read_to_end(&mut all).map(|_| all);
            let _ = done.send(read);
        });
        let begun = Instant::now();
        let read = loop {
            match reader.recv_timeout(LOOK) {
                Ok(read) => break Some(read.context("what was compiled cannot be read")?),
                Err(_) if begun.elapsed() < patience && !leaving.load(Ordering::Relaxed) => {}
                Err(_) => break None,
            }
        };
        if read.is_none() {
            child.kill().context("the process that compiles plugins cannot be ended")?;
        }
        let status = child.wait().context("the process that compiles plugins is lost")?;
        if leaving.load(Ordering::Relaxed) {
            bail!("the gateway is leaving");
        }
        let words = words.join().unwrap_or_default();
        Ok(Ended { status: read.is_some().then_some(status), output: read.unwrap_or_default(), words })
    })
}

fn judge(ended: Ended, limits: &PluginLimits) -> anyhow::Result<Compiled> {
    let Ended { status, mut output, words } = ended;
    let time = humantime::format_duration(Duration::from_secs(seconds(limits.compile.0)));
    let Some(status) = status else {
        let what = format!(
            "compiling it was not done in {PATIENCE} times the {time} of CPU time that it may take (`compile`)"
        );
        return Err(Exceeded::new("compile", what).into());
    };
    if status.success() {
        let form = output.first().copied().and_then(Form::from_byte).context("the compiler has answered nothing")?;
        output.remove(0);
        return Ok(Compiled { form, code: output });
    }
    let killed = |signal: Signal| status.signal() == Some(signal.as_raw());
    if killed(Signal::XCPU) {
        let what = format!("compiling it takes more than {time} of CPU time (`compile`)");
        return Err(Exceeded::new("compile", what).into());
    }
    if status.code() == Some(EXIT_REFUSED) {
        bail!("{words}");
    }
    if killed(Signal::KILL) {
        // The kernel's choice where memory runs out, since the process has asked to be it.
        let what = "compiling it was killed: the machine, or the gateway's container, has too little memory for it";
        return Err(Exceeded::new("compile_memory", what.to_owned()).into());
    }
    let memory = bytesize::ByteSize(limits.compile_memory.0 as u64);
    if words.contains("memory") || killed(Signal::ABORT) || killed(Signal::SEGV) || killed(Signal::BUS) {
        let what = format!("compiling it takes more than {memory} of memory (`compile_memory`): {words}");
        return Err(Exceeded::new("compile_memory", what).into());
    }
    bail!("the compiler has failed ({status}): {words}");
}

/// The kernel counts whole seconds.
fn seconds(limit: Duration) -> u64 {
    limit.as_secs().max(1)
}

/// The file is no plugin.
const EXIT_REFUSED: i32 = 3;

/// The process that compiles: stdin to stdout. Returns its exit code.
pub fn compiler(cpu_seconds: u64, memory: u64) -> u8 {
    let limited = (|| {
        // No compiler is left behind by a gateway that was killed.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let limit = |limit| Rlimit { current: Some(limit), maximum: Some(limit) };
        setrlimit(Resource::Cpu, Rlimit { current: Some(cpu_seconds), maximum: Some(cpu_seconds.saturating_add(1)) })?;
        setrlimit(Resource::As, limit(memory))?;
        setrlimit(Resource::Core, limit(0))
    })();
    // Where the machine itself has too little memory, this is what it can do without.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    if let Err(error) = limited {
        let _ = writeln!(std::io::stderr(), "the limits of compiling cannot be set: {error}");
        return 1;
    }
    let compiled = (|| {
        let mut file = Vec::new();
        std::io::stdin().lock().read_to_end(&mut file)?;
        here(&engine::compiling()?, &file)
    })();
    match compiled {
        Ok(Compiled { form, code }) => {
            let mut output = std::io::stdout().lock();
            let written = output.write_all(&[form.byte()]).and_then(|()| output.write_all(&code));
            u8::from(written.and_then(|()| output.flush()).is_err())
        }
        Err(why) => {
            // No more than is read: the pipe may be closed behind that.
            let words = format!("{why:#}");
            let _ = std::io::stderr().write_all(&words.as_bytes()[..words.len().min(WORDS as usize)]);
            EXIT_REFUSED as u8
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(program: &str, leaving: bool) -> anyhow::Result<Ended> {
        let file = [0; 1 << 20];
        // Who hangs need not be waited for long; the others may have to wait for a busy machine.
        let patience = Duration::from_millis(if program.contains("STOP") { 500 } else { 60_000 });
        attend(Command::new("sh").args(["-c", program]), &file, patience, &leaving.into())
    }

    fn refused(program: &str) -> (Option<&'static str>, String) {
        let why = judge(ended(program, false).unwrap(), &PluginLimits::default()).err().expect("a refusal");
        (why.downcast_ref::<Exceeded>().map(|exceeded| exceeded.limit), format!("{why:#}"))
    }

    #[test]
    fn the_end_of_a_compiler_says_which_limit_it_was() {
        assert_eq!(refused("kill -XCPU $$").0, Some("compile"));
        assert_eq!(refused("kill -KILL $$").0, Some("compile_memory"), "where the machine has no memory left");
        assert_eq!(refused("kill -STOP $$").0, Some("compile"), "one that hangs is ended");
        assert_eq!(refused("kill -ABRT $$").0, Some("compile_memory"));
        assert_eq!(refused("echo memory allocation of 9 bytes failed >&2; exit 1").0, Some("compile_memory"));
        assert_eq!(refused("echo no hook >&2; exit 3"), (None, "no hook".to_owned()));
        assert!(refused("echo oh >&2; exit 7").1.contains("exit status: 7): oh"));
        assert!(refused("exit 0").1.contains("answered nothing"));
    }

    #[test]
    fn who_leaves_waits_for_no_code() {
        let why = ended("kill -STOP $$", true).err().expect("no end").to_string();
        assert_eq!(why, "the gateway is leaving");
    }

    #[test]
    fn what_it_writes_is_the_form_and_the_code() {
        let ended = ended("cat > /dev/null; printf '\\001code'", false).unwrap();
        let compiled = judge(ended, &PluginLimits::default()).unwrap();
        assert_eq!((compiled.form, &*compiled.code), (Form::TypedModule, &b"code"[..]));
    }
}
