//! Load for the benchmarks: clients that send a number of messages at once, read all the answers, and begin again.
//!
//! Each is a thread that blocks. That is slow for the client, and costs the server nothing: it is the server that is
//! measured.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// What is asked of the server.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    /// Messages of a client that are on their way at a time.
    pub(crate) depth: usize,
    /// Bytes of a message, 125 at most.
    pub(crate) size: u8,
    pub(crate) time: Duration,
}

/// What came of it.
pub(crate) struct Measured {
    pub(crate) messages: u64,
    /// CPU time of the server.
    pub(crate) cpu: Duration,
}

/// Runs a load against a path of a server that answers each message with itself.
pub(crate) fn echo(address: SocketAddr, path: &str, load: Load, server: u32) -> Result<Measured> {
    let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    // The clients, and this thread.
    let ready = Barrier::new(load.connections + 1);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..load.connections)
            .map(|_| {
                scope.spawn(|| {
                    let client = connect(address, path);
                    ready.wait();
                    client.and_then(|stream| converse(stream, load, &count, &stop))
                })
            })
            .collect();
        ready.wait();
        // What is cold is not what is measured.
        thread::sleep(load.time / 5);
        let (before, cpu) = (count.load(Ordering::Relaxed), cpu_time(server));
        thread::sleep(load.time);
        let (after, used) = (count.load(Ordering::Relaxed), cpu_time(server));
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client has panicked"))??;
        }
        let cpu = used?.saturating_sub(cpu?);
        if after == before {
            bail!("nothing came back from {path}");
        }
        Ok(Measured { messages: after - before, cpu })
    })
}

fn connect(address: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).context("no connection")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).context("no answer to the handshake")?;
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        bail!("the handshake was refused: {}", String::from_utf8_lossy(&head).lines().next().unwrap_or_default());
    }
    Ok(stream)
}

fn converse(mut stream: TcpStream, load: Load, count: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let payload = vec![b'x'; load.size.into()];
    // RFC 6455, section 5.2: final, text; masked, by zeros, which changes nothing; an answer has no mask.
    let question = [&[0x81, 0x80 | load.size, 0, 0, 0, 0], &payload[..]].concat().repeat(load.depth);
    let answer = [&[0x81, load.size], &payload[..]].concat().repeat(load.depth);
    let mut received = vec![0; answer.len()];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&question)?;
        stream.read_exact(&mut received).context("an answer is missing")?;
        if received != answer {
            bail!("something else came back than what was sent");
        }
        count.fetch_add(load.depth as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// What a process has used of the CPU, in user and in kernel mode (proc(5), /proc/pid/stat, fields 14 and 15).
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the server is gone")?;
    // Behind the program's name, which may have spaces in it.
    let fields: Vec<_> = stat.rsplit_once(") ").context("what is this /proc?")?.1.split(' ').collect();
    let field = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).context("what is this /proc?");
    let ticks = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64((field(11)? + field(12)?) as f64 / ticks as f64))
}
