//! One round of one row by one of those who do it.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::setpriority_process;
use tidegate_load::{Fanout, Kind, Load, Pace, Report, Stage};

use crate::{
    noise::Watch,
    plan::Options,
    rows::{BARE, CORE, DEFLATE, FLOOR, Idle, Metric, PLUGIN, Row, STALLED, Sample, Work},
    server::{Place, Server},
    stalled::Stalled,
    tls,
};

/// Of the echo that shows what a connection keeps after it.
const AFTER: usize = 1024;
/// How long a plugin's new file may take to serve.
const RELOAD_WITHIN: Duration = Duration::from_secs(30);

/// Servers that live as long as the benchmark: those whose history makes no difference.
pub(crate) struct Bench<'a> {
    options: &'a Options,
    place: &'a Place,
    floor: Server,
    bare: Server,
    gateway: Server,
}

/// Whom a load goes to.
struct Target {
    echo: String,
    subscribe: String,
    publish: String,
    pid: u32,
}

impl<'a> Bench<'a> {
    pub(crate) fn start(options: &'a Options, place: &'a Place) -> Result<Self> {
        Ok(Self {
            options,
            place,
            floor: place.own("floor")?,
            bare: place.own("bare")?,
            gateway: place.gateway("gateway", &place.plugins, "")?,
        })
    }

    pub(crate) fn measure(&mut self, row: &Row, who: &str) -> Result<Sample> {
        for server in [&mut self.floor, &mut self.bare, &mut self.gateway] {
            server.must_run()?;
        }
        match row.work {
            Work::Echo { connections, depth, size } => {
                let target = self.target(who)?;
                let load = Load { connections, size, ..self.load(&target.echo, Kind::echo(depth), &target) };
                watched(&target, || loaded(&load))
            }
            Work::Fanout { subscribers, in_flight, size } => {
                let target = self.target(who)?;
                let _stalled = (who == STALLED).then(|| Stalled::begin(&self.gateway)).transpose()?;
                let load = self.fanout(&target, subscribers, in_flight, size, who == DEFLATE);
                watched(&target, || loaded(&load))
            }
            Work::Greedy { polite, greedy, depth } => {
                let target = self.target(who)?;
                let greedy = Load { connections: greedy, ..self.load(&target.echo, Kind::echo(depth), &target) };
                let polite = Load { connections: polite, ..self.load(&target.echo, Kind::echo(1), &target) };
                watched(&target, || beside(&polite, greedy))
            }
            Work::BesideFanout { polite, subscribers } => {
                let target = self.target(who)?;
                let fanout = self.fanout(&target, subscribers, 1, 128, false);
                let polite = Load { connections: polite, ..self.load(&target.echo, Kind::echo(1), &target) };
                watched(&target, || beside(&polite, fanout))
            }
            Work::Idle(kind) => self.idle(kind, who),
            Work::ColdStart => {
                // Whoever comes first fills the cache.
                drop(self.place.gateway("cold", &self.place.plugins, "")?);
                let watch = Watch::start(&[]);
                let server = self.place.gateway("cold", &self.place.plugins, "")?;
                let mut sample = Sample { others: watch.stop(), ..Sample::default() };
                sample.values.insert(Metric::Milliseconds, server.started_in.as_secs_f64() * 1e3);
                // The server itself is among the others of a watch that began before it.
                sample.others.processors = 0.0;
                Ok(sample)
            }
            Work::Reload => self.reload(),
        }
    }

    fn target(&self, who: &str) -> Result<Target> {
        let (base, echo, pid) = match who {
            FLOOR => (format!("ws://{}", self.floor.listen), "/echo", self.floor.id()),
            BARE => (format!("ws://{}", self.bare.listen), "/echo", self.bare.id()),
            CORE => (format!("ws://{}", self.gateway.listen), "/core", self.gateway.id()),
            PLUGIN | DEFLATE | STALLED => (format!("ws://{}", self.gateway.listen), "/echo", self.gateway.id()),
            name => match self.options.peers.iter().find(|peer| peer.name == name) {
                Some(peer) => (peer.url.clone(), "/echo", peer.pid),
                None => bail!("nobody is called {name}"),
            },
        };
        Ok(Target { echo: base.clone() + echo, subscribe: base.clone() + "/sub", publish: base + "/pub", pid })
    }

    fn load(&self, url: &str, kind: Kind, target: &Target) -> Load {
        Load {
            duration: Duration::from_secs_f64(self.options.seconds),
            warm_up: Duration::from_secs_f64(self.options.seconds / 4.0),
            server_pids: vec![target.pid],
            ..Load::new(url, kind)
        }
    }

    fn fanout(&self, target: &Target, subscribers: usize, in_flight: usize, size: usize, deflate: bool) -> Load {
        let fanout = Fanout {
            publish_url: Some(target.publish.clone()),
            pace: Pace::InFlight(in_flight),
            // What compresses as JSON does, in both of the rows that are compared.
            template: if size > 256 { json(size) } else { b"{payload}".to_vec() },
            ..Fanout::default()
        };
        let size = if size > 256 { 64 } else { size };
        let load = self.load(&target.subscribe, Kind::Fanout(fanout), target);
        Load { connections: subscribers, size, compression: deflate, ..load }
    }

    /// Each figure on a server of its own, which has had some clients, so that nothing of it is paid for the first time.
    fn idle(&self, kind: Idle, who: &str) -> Result<Sample> {
        let connections = self.options.idle;
        let mut sample = Sample::default();
        for (metric, echoes) in [(Metric::Bytes, false), (Metric::BytesAfter, true)] {
            let certificate = tls::section(&self.place.folder)?;
            let (server, base) = match (who, kind) {
                (FLOOR, _) => started(self.place.own("floor")?),
                (BARE, _) => started(self.place.own("bare")?),
                (_, Idle::Tls) => {
                    let server = self.place.gateway("idle", &self.place.plugins, &certificate)?;
                    let base = format!("wss://{}", server.listen);
                    (server, base)
                }
                _ => started(self.place.gateway("idle", &self.place.plugins, "")?),
            };
            let path = if who == CORE { "/core" } else { "/echo" };
            let url = format!("{base}{path}");
            let text = b"one message, and then nothing more. ".repeat(AFTER / 36);
            let load = Load {
                connections,
                duration: Duration::from_millis(500),
                warm_up: Duration::ZERO,
                compression: kind == Idle::Deflate,
                insecure: true,
                hello: if echoes { vec![text] } else { Vec::new() },
                wait: echoes.then(|| b"nothing more".to_vec()),
                server_pids: vec![server.id()],
                ..Load::new(url, Kind::Idle)
            };
            let before = Load { connections: connections / 10 + 1, ..load.clone() };
            tidegate_load::run(&before, &mut |_| {})?;
            let watch = Watch::start(&[server.id()]);
            let report = tidegate_load::run(&load, &mut |_| {})?;
            sample.others = watch.stop();
            trouble(&report, &mut sample);
            let used = report.server.as_ref().context("the load does not tell the server's memory")?;
            sample.values.insert(metric, used.bytes_per_connection_at_end);
            if kind == Idle::Deflate && !report.compressed {
                sample.trouble = Some("compression was not negotiated".to_owned());
            }
        }
        Ok(sample)
    }

    /// A file that differs from the one that serves in a few bytes that nobody reads, so that it is compiled.
    fn reload(&self) -> Result<Sample> {
        let folder = self.place.folder.join("reload");
        fs::create_dir_all(&folder)?;
        for plugin in ["echo.wasm", "fanout.wasm"] {
            fs::copy(self.place.plugins.join(plugin), folder.join(plugin))
                .with_context(|| format!("{plugin} is not built: `cargo xtask plugins` does it"))?;
        }
        let server = self.place.gateway("reload", &folder, "")?;
        let mut module = fs::read(folder.join("echo.wasm"))?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos().to_string();
        // A custom section (0): its size, its name's size, its name.
        let length = u8::try_from(now.len())?;
        module.extend([0, length + 1, length]);
        module.extend(now.as_bytes());
        fs::write(folder.join("echo.new"), module)?;
        let watch = Watch::start(&[server.id()]);
        let begun = Instant::now();
        fs::rename(folder.join("echo.new"), folder.join("echo.wasm"))?;
        let serves = "tidegate_plugin_generation{plugin=\"echo\"} 2";
        while !server.page("/metrics").is_some_and(|metrics| metrics.contains(serves)) {
            ensure!(begun.elapsed() < RELOAD_WITHIN, "the plugin's new file does not serve after {RELOAD_WITHIN:?}");
            thread::sleep(Duration::from_millis(4));
        }
        let took = begun.elapsed();
        let mut sample = Sample { others: watch.stop(), ..Sample::default() };
        // The compiler's own process is among the others.
        sample.others.processors = 0.0;
        sample.values.insert(Metric::Milliseconds, took.as_secs_f64() * 1e3);
        Ok(sample)
    }
}

fn started(server: Server) -> (Server, String) {
    let base = format!("ws://{}", server.listen);
    (server, base)
}

/// An object of that size with the payload in it.
fn json(size: usize) -> Vec<u8> {
    let mut text = "{\"type\":\"say\",\"room\":\"lobby\",\"payload\":\"{payload}\",\"members\":[".to_owned();
    let mut number = 17;
    while text.len() < size - 90 {
        number = number * 31 % 9973;
        text += &format!("{{\"user\":\"user-{number}\",\"away\":{}}},", number % 2 == 0);
    }
    text.pop();
    (text + "]}").into_bytes()
}

fn watched(target: &Target, work: impl FnOnce() -> Result<Sample>) -> Result<Sample> {
    let watch = Watch::start(&[target.pid]);
    let sample = work()?;
    Ok(Sample { others: watch.stop(), ..sample })
}

fn loaded(load: &Load) -> Result<Sample> {
    let report = tidegate_load::run(load, &mut |_| {})?;
    Ok(sample(report))
}

fn sample(report: Report) -> Sample {
    let mut sample = Sample { client: report.client.cpu, ..Sample::default() };
    trouble(&report, &mut sample);
    sample.values.insert(Metric::PerSecond, report.per_second);
    if let Some(cpu) = report.server.as_ref().and_then(|server| server.us_per_message) {
        sample.values.insert(Metric::Cpu, cpu);
    }
    if let Some(latency) = &report.latency {
        sample.values.insert(Metric::P50, latency.p50);
        sample.values.insert(Metric::P99, latency.p99);
        if latency.p50 > 0.0 {
            sample.values.insert(Metric::Fairness, latency.p99 / latency.p50);
        }
    }
    sample.latency = Some(report.histograms.latency);
    sample
}

fn trouble(report: &Report, sample: &mut Sample) {
    if let Some(failure) = report.failures.first() {
        sample.trouble = Some(format!("{failure:?}"));
    }
}

/// The figures of the polite ones, while the others go on. Both share a processor, so the others' thread gives way: it is the server
/// that is to be fair, and not this program.
fn beside(polite: &Load, others: Load) -> Result<Sample> {
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, running) = mpsc::channel();
    let others = Load { duration: Duration::from_secs(3600), stop: Some(Arc::clone(&stop)), ..others };
    thread::scope(|scope| {
        let others = scope.spawn(move || {
            // For this thread alone, and those that it starts.
            setpriority_process(None, 19)?;
            let report = tidegate_load::run(&others, &mut |progress| {
                if progress.stage == Stage::Measuring {
                    let _ = sender.send(());
                }
            })?;
            anyhow::Ok(report)
        });
        // An error means that the others have ended, which is told below.
        let sample = match running.recv() {
            Ok(()) => loaded(polite),
            Err(_) => Ok(Sample::default()),
        };
        stop.store(true, Ordering::Relaxed);
        let others = others.join().map_err(|_| anyhow::anyhow!("the load beside has panicked"))??;
        ensure!(others.messages > 0, "nothing came back from the load beside");
        sample
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_its_size_and_its_payload() {
        let text = String::from_utf8(json(512)).unwrap();
        let filled = text.replace("{payload}", &"x".repeat(64));
        assert!((480..=540).contains(&filled.len()), "{}", filled.len());
        serde_json::from_str::<serde_json::Value>(&filled).unwrap();
    }
}
