//! A subscriber that has stopped reading.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::server::Server;

/// What it is sent before anything is measured: more than its kernel and the gateway's take, and less than its outbox has room for.
const MESSAGES: usize = 128;
const SIZE: usize = 64 << 10;
const WITHIN: Duration = Duration::from_secs(10);

/// Stalled until it is dropped.
pub(crate) struct Stalled(#[allow(dead_code, reason = "it is held, and nothing else")] TcpStream);

impl Stalled {
    /// On the routes of examples/bench. When this returns, its publications wait in its outbox.
    pub(crate) fn begin(gateway: &Server) -> Result<Self> {
        let subscriber = connected(gateway.listen, "/sub")?;
        let mut publisher = connected(gateway.listen, "/pub")?;
        let before = delivered(gateway);
        // A binary frame, masked with nothing.
        let mut frame = vec![0x82, 0x80 | 127];
        frame.extend((SIZE as u64).to_be_bytes());
        frame.extend([0; 4]);
        frame.resize(frame.len() + SIZE, 0);
        for _ in 0..MESSAGES {
            publisher.write_all(&frame)?;
        }
        let begun = Instant::now();
        while delivered(gateway) < before + MESSAGES as f64 {
            ensure!(begun.elapsed() < WITHIN, "what a stalled subscriber was sent is not delivered after {WITHIN:?}");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Self(subscriber))
    }
}

fn delivered(gateway: &Server) -> f64 {
    let metrics = gateway.page("/metrics").unwrap_or_default();
    let line = metrics.lines().find_map(|line| line.strip_prefix("tidegate_deliveries_total "));
    line.and_then(|count| count.parse().ok()).unwrap_or_default()
}

fn connected(address: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.write_all(
        format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .as_bytes(),
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    Ok(stream)
}
