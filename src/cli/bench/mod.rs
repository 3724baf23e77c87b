//! `tidegate bench`: load on any WebSocket server, and what it shows.

mod progress;
mod told;

use std::io::{IsTerminal as _, Write as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use tidegate_load::{Fanout, Kind, Load, LoadError, Pace, Report};
use tokio::signal::unix::{SignalKind, signal};

use super::Unusable;
use super::paint::Paint;
use progress::Line;

/// Sizes of payloads unless one is given.
const ECHO: usize = 64;
const FANOUT: usize = 128;

#[derive(Args)]
#[command(after_help = "\
  tidegate bench ws://127.0.0.1:8080/ws --connections 500 --depth 4
      500 clients, each with 4 messages under way, on a server that sends messages back
  tidegate bench ws://127.0.0.1:8080/ws --rate 20000
      20,000 messages a second, whatever the server does: how long do its users wait?
  tidegate bench ws://127.0.0.1:8090/sub --kind fanout --publish-url ws://127.0.0.1:8090/pub --connections 1000
      one publisher, 1,000 subscribers
  tidegate bench wss://example.org/ws --kind idle --connections 5000 --duration 1m
      5,000 connections that are only held

ctrl-c ends it early, with the report of what was measured by then. How to read the report, and what distorts it:
docs/guides/load-testing.md.

Exit codes: 0 measured without a failure, 1 failures (they are in the report) or nothing measured, 64 bad usage.")]
pub struct Bench {
    /// Where to connect to, ws:// or wss://; connections take turns where there are several. {i} is a connection's number
    #[arg(value_name = "URL", required = true)]
    urls: Vec<String>,
    /// What the connections do
    #[arg(long, value_enum, default_value_t = Does::Echo)]
    kind: Does,
    /// How many; of a fan-out, the subscribers
    #[arg(long, short, value_name = "NUMBER", default_value_t = 50)]
    connections: usize,
    /// So many messages of each connection, or publications in all, are under way at once; 1 unless said
    #[arg(long, visible_alias = "in-flight", value_name = "NUMBER", conflicts_with = "rate")]
    depth: Option<usize>,
    /// So many messages or publications a second are sent, whatever the server does
    #[arg(long, value_name = "PER-SECOND")]
    rate: Option<f64>,
    /// Bytes of a payload; 64 of an echo, 128 of a publication
    #[arg(long, value_name = "BYTES")]
    size: Option<usize>,
    /// Send binary messages, not texts
    #[arg(long)]
    binary: bool,
    /// How long is measured; idle connections are held for it
    #[arg(long, short, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long the same goes on before, uncounted
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// A header of the handshake; may come several times
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Offer this subprotocol; may come several times
    #[arg(long = "subprotocol", value_name = "NAME")]
    subprotocols: Vec<String>,
    /// Offer permessage-deflate, without context takeover
    #[arg(long)]
    compression: bool,
    /// Send this after the handshake; may come several times. \r \n \t \\ \xNN are understood, {i} is the connection's number
    #[arg(long, value_name = "MESSAGE", value_parser = escaped)]
    hello: Vec<Text>,
    /// A connection is ready when a message with this in it has come
    #[arg(long, value_name = "TEXT", value_parser = escaped)]
    wait: Option<Text>,
    /// What messages and publications look like, with {payload} in it, as {"say":"{payload}"}
    #[arg(long, value_name = "MESSAGE", value_parser = escaped)]
    template: Option<Text>,
    /// Answer this message of the server with that one
    #[arg(long, value_names = ["MESSAGE", "ANSWER"], num_args = 2, value_parser = escaped)]
    keepalive: Vec<Text>,
    /// Where publishers connect to; where subscribers do unless it is given
    #[arg(long, value_name = "URL")]
    publish_url: Option<String>,
    /// How many publish; none if others do, in another process on this machine
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    publishers: usize,
    /// Publishers send this after the handshake; may come several times
    #[arg(long, value_name = "MESSAGE", value_parser = escaped)]
    publish_hello: Vec<Text>,
    /// A publisher is ready when a message with this in it has come
    #[arg(long, value_name = "TEXT", value_parser = escaped)]
    publish_wait: Option<Text>,
    /// An address that connections come from; may come several times
    #[arg(long = "source", value_name = "ADDRESS")]
    sources: Vec<IpAddr>,
    /// Threads of this client
    #[arg(long, short, value_name = "NUMBER", default_value_t = 1)]
    threads: usize,
    /// Begin so many connections a second
    #[arg(long, value_name = "PER-SECOND")]
    connect_rate: Option<f64>,
    /// For a connection to be ready
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    connect_timeout: Duration,
    /// End when nothing has come for so long although something was asked for
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    watchdog: Duration,
    /// A process of the server on this machine, whose CPU time and memory are told; may come several times
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,
    /// Take any certificate
    #[arg(long)]
    insecure: bool,
    /// Print the report as JSON: times in microseconds, sizes in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Does {
    /// Each message comes back to who has sent it
    Echo,
    /// What one publishes reaches all
    Fanout,
    /// Nothing: connections are held
    Idle,
}

/// A message as it was given, with its escapes resolved.
#[derive(Clone)]
struct Text(Vec<u8>);

impl Bench {
    pub fn run(self) -> anyhow::Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let load = Load { stop: Some(Arc::clone(&stop)), ..self.load()? };
        warn(&load)?;
        let signals = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        signals.spawn(ended_by_signal(stop));
        let mut line = Line::new(load.kind.name(), std::io::stderr().is_terminal());
        let measured = tidegate_load::run(&load, &mut |progress| line.tell(progress));
        line.clear();
        signals.shutdown_background();
        let report = measured.map_err(usage)?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            put!(told::report(&report, &load, Paint(std::io::stdout().is_terminal())));
        }
        verdict(&report)
    }

    fn load(&self) -> Result<Load, Unusable> {
        let only = |is_given: bool, what: &str, kind: &str| {
            if is_given { Err(Unusable(format!("only for --kind {kind}: {what}"))) } else { Ok(()) }
        };
        let publishes = self.publish_url.is_some() || !self.publish_hello.is_empty() || self.publish_wait.is_some();
        if self.kind != Does::Fanout {
            only(publishes || self.publishers != 1, "what is said of publishers", "fanout")?;
        }
        if self.kind == Does::Idle {
            only(
                self.depth.is_some() || self.rate.is_some() || self.size.is_some(),
                "--depth, --rate, --size",
                "echo or fanout",
            )?;
        }
        let pace = self.rate.map_or(Pace::InFlight(self.depth.unwrap_or(1)), Pace::Rate);
        let texts = |texts: &[Text]| texts.iter().map(|text| text.0.clone()).collect::<Vec<_>>();
        let text = |text: &Option<Text>| text.as_ref().map(|text| text.0.clone());
        let mut template = text(&self.template);
        let kind = match self.kind {
            Does::Echo => Kind::Echo { pace },
            Does::Idle => Kind::Idle,
            Does::Fanout => Kind::Fanout(Fanout {
                publish_url: self.publish_url.clone(),
                publishers: self.publishers,
                pace,
                template: template.take().unwrap_or_else(|| Fanout::default().template),
                headers: self.headers.clone(),
                hello: texts(&self.publish_hello),
                wait: text(&self.publish_wait),
                ..Fanout::default()
            }),
        };
        let size = self.size.unwrap_or(if self.kind == Does::Fanout { FANOUT } else { ECHO });
        Ok(Load {
            urls: self.urls.clone(),
            connections: self.connections,
            size,
            binary: self.binary,
            duration: self.duration,
            warm_up: self.warm_up,
            headers: self.headers.clone(),
            subprotocols: self.subprotocols.clone(),
            compression: self.compression,
            hello: texts(&self.hello),
            wait: text(&self.wait),
            template,
            keepalive: match &self.keepalive[..] {
                [ask, answer] => Some((ask.0.clone(), answer.0.clone())),
                _ => None,
            },
            sources: self.sources.clone(),
            insecure: self.insecure,
            threads: self.threads,
            connect_rate: self.connect_rate,
            connect_timeout: self.connect_timeout,
            watchdog: self.watchdog,
            server_pids: self.pids.clone(),
            ..Load::new(String::new(), kind)
        })
    }
}

/// Whoever loads another machine shall have meant to.
fn warn(load: &Load) -> anyhow::Result<()> {
    let mut others: Vec<_> = tidegate_load::addresses(load).map_err(usage)?;
    others.retain(|(_, address)| !address.ip().to_canonical().is_loopback());
    others.dedup();
    for (host, address) in others {
        let mut out = std::io::stderr();
        let _ = writeln!(
            out,
            "tidegate: about to load {host} ({address}), which is not this machine, with {} connections for {}.",
            load.connections,
            humantime::format_duration(load.duration)
        );
        let _ = writeln!(out, "tidegate: ctrl-c ends it. Only load servers that are yours, or whose owner knows.");
    }
    Ok(())
}

/// The first signal ends the run with a report, the second without.
async fn ended_by_signal(stop: Arc<AtomicBool>) {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    for _ in 0..2 {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    }
}

/// What was asked for wrongly has another exit code than what went wrong.
fn usage(error: LoadError) -> anyhow::Error {
    match error {
        LoadError::Plan(_) | LoadError::Url { .. } => Unusable(error.to_string()).into(),
        error => error.into(),
    }
}

fn verdict(report: &Report) -> anyhow::Result<()> {
    if !report.is_clean() {
        let told: Vec<_> = report.failures.iter().map(|one| format!("{} {}", one.count, one.kind)).collect();
        bail!("not everything went well: {}", told.join(", "));
    }
    if report.seconds == 0.0 {
        bail!("it was ended before anything was measured");
    }
    Ok(())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME: VALUE")?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is no name of a header"));
    }
    if value.bytes().any(|byte| byte < b' ' && byte != b'\t') {
        return Err("a header's value is one line".to_owned());
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// `\r \n \t \0 \\ \xNN`: messages of protocols that are no texts.
fn escaped(text: &str) -> Result<Text, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        let mut chars = after.chars();
        match chars.next() {
            Some('r') => out.push(b'\r'),
            Some('n') => out.push(b'\n'),
            Some('t') => out.push(b'\t'),
            Some('0') => out.push(0),
            Some('\\') => out.push(b'\\'),
            Some('x') => {
                let digits = after.get(1..3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                out.push(byte.ok_or("\\x is followed by two hexadecimal digits")?);
                chars = after[3..].chars();
            }
            _ => return Err("after \\ comes r, n, t, 0, x or another \\".to_owned()),
        }
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(Text(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_may_have_bytes_that_no_shell_passes() {
        assert_eq!(escaped(r"SUB t\r\n\x00\\n{i}").unwrap().0, b"SUB t\r\n\0\\n{i}");
        assert_eq!(escaped("größe").unwrap().0, "größe".as_bytes());
        for wrong in [r"\", r"\q", r"\x1", r"\x+1", r"\xä"] {
            assert!(escaped(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        assert_eq!(header("X-Key:  a: b ").unwrap(), ("X-Key".to_owned(), "a: b".to_owned()));
        for wrong in ["X-Key", ": a", "X Key: a", "X: a\r\nY: b"] {
            assert!(header(wrong).is_err(), "{wrong}");
        }
    }
}
