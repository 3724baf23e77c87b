//! Requests of HTTP/1 in any form: whether they are read does not depend on how the network cuts them, and what is handed on are
//! the bytes that came.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use super::input::Input;
use crate::server::{Guarded, Limits};

const LIMITS: Limits = Limits { uri: 40, headers: 6, header_size: 200 };

/// What requests are made of, and what looks like it.
const PARTS: [&[u8]; 24] = [
    b"GET ",
    b"POST ",
    b"CONNECT ",
    b"/",
    b"/path?query",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b" HTTP/1.1\n",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"content-length: 18446744073709551616\r\n",
    b"Content-Length:5,5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Upgrade: websocket\r\n",
    b"Name: value\r\n",
    b" folded\r\n",
    b"Space : value\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"hello",
];

/// Bytes that arrive in pieces.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: Vec<usize>,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let size = self.sizes.pop().unwrap_or(usize::MAX).clamp(1, buffer.remaining()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(size);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

/// What was handed on, and whether something was refused.
fn read(bytes: &[u8], sizes: Vec<usize>, room: usize) -> (Vec<u8>, bool) {
    let mut guarded = Guarded::new(Pieces { bytes, sizes }, LIMITS);
    let mut context = Context::from_waker(Waker::noop());
    let (mut read, mut space) = (Vec::new(), vec![0; room]);
    loop {
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(&mut guarded).poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => break,
            Poll::Ready(Ok(())) => read.extend_from_slice(buffer.filled()),
            Poll::Ready(Err(_)) => {
                assert!(buffer.filled().is_empty(), "bytes of what is refused are handed on");
                break;
            }
            Poll::Pending => panic!("the pieces are all here"),
        }
    }
    (read, guarded.refused().is_some())
}

pub fn heads(input: &[u8]) {
    let mut input = Input::new(input);
    let sizes: Vec<usize> = (0..input.below(16)).map(|_| input.below(40)).collect();
    let mut bytes = Vec::new();
    while !input.is_empty() && bytes.len() < 4_096 {
        match input.byte() {
            times @ 0..8 => bytes.extend(vec![b'x'; usize::from(times) * 16]),
            8..24 => bytes.push(input.byte()),
            part => bytes.extend_from_slice(PARTS[usize::from(part) % PARTS.len()]),
        }
    }
    let (whole, refused) = read(&bytes, Vec::new(), 8_192);
    if !refused {
        assert_eq!(whole, bytes);
    }
    for (sizes, room) in [(sizes, 8_192), (Vec::new(), 1), (Vec::new(), 7)] {
        let (part, also) = read(&bytes, sizes, room);
        assert_eq!(also, refused, "whether it is refused depends on how it arrives: {}", bytes.escape_ascii());
        assert!(bytes.starts_with(&part) && (refused || part == bytes), "{}", bytes.escape_ascii());
    }
}
