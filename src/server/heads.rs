//! The heads of HTTP/1 requests, looked at on their way to the HTTP library: what is too large is refused as what it is, and
//! what two readers could understand differently, which is what request smuggling lives on, is not understood at all.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest method that is looked for before a target; what HTTP knows is shorter.
const METHOD: usize = 32;
/// Behind the target: a space, the version, the end of the line.
const VERSION: usize = 11;

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the target.
    pub uri: usize,
    /// Header lines.
    pub headers: usize,
    /// Bytes of all header lines.
    pub header_size: usize,
}

/// Why a request is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    LongUri,
    LongHeaders,
    ManyHeaders,
    Malformed(&'static str),
}

impl Refused {
    pub fn status(self) -> StatusCode {
        match self {
            Self::LongUri => StatusCode::URI_TOO_LONG,
            Self::LongHeaders | Self::ManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
        }
    }

    pub fn why(self) -> &'static str {
        match self {
            Self::LongUri => "the request's target is too long",
            Self::LongHeaders => "the request's headers are too large",
            Self::ManyHeaders => "the request has too many headers",
            Self::Malformed(why) => why,
        }
    }

    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::LongUri => "uri",
            Self::LongHeaders | Self::ManyHeaders => "headers",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// A stream whose requests are looked at as they are read.
pub struct Guarded<S> {
    stream: S,
    heads: Heads,
    refused: Option<Refused>,
}

impl<S> Guarded<S> {
    pub fn new(stream: S, limits: Limits) -> Self {
        Self { stream, heads: Heads { limits, next: Next::Head, head: Vec::new() }, refused: None }
    }

    /// The stream itself: after an upgrade, what comes are no requests.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// What ended the reading.
    pub fn refused(&self) -> Option<Refused> {
        self.refused
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if this.refused.is_none() {
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            this.refused = this.heads.see(&buffer.filled()[before..]).err();
        }
        match this.refused {
            None => Poll::Ready(Ok(())),
            Some(refused) => {
                // What has not been handed on cannot be answered by anybody else.
                buffer.set_filled(before);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refused.why())))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The refusal is still to be said.
        if this.refused.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

/// Where in the stream of requests the next byte stands.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// In what is not to be followed: after it there is no other request on this connection.
    Through,
}

struct Heads {
    limits: Limits,
    next: Next,
    /// As much as is here of the head that is coming.
    head: Vec<u8>,
}

impl Heads {
    fn see(&mut self, mut bytes: &[u8]) -> Result<(), Refused> {
        while !bytes.is_empty() {
            match &mut self.next {
                Next::Through => return Ok(()),
                Next::Body(left) => {
                    let here = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    bytes = &bytes[here..];
                    *left -= here as u64;
                    if *left == 0 {
                        self.next = Next::Head;
                    }
                }
                Next::Head => bytes = self.see_head(bytes)?,
            }
        }
        Ok(())
    }

    /// Takes what belongs to the head, and returns the rest.
    fn see_head<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], Refused> {
        if self.head.is_empty() {
            // Empty lines before a request are nothing (RFC 9112 section 2.2).
            let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
            bytes = &bytes[begin..];
        }
        let most = METHOD + self.limits.uri + VERSION + self.limits.header_size + 4;
        let known = self.head.len();
        let here = bytes.len().min((most + 1).saturating_sub(known));
        self.head.extend_from_slice(&bytes[..here]);
        let from = known.saturating_sub(3);
        let Some(end) = self.head[from..].windows(4).position(|four| four == b"\r\n\r\n") else {
            self.unfinished()?;
            return Ok(&bytes[here..]);
        };
        let end = from + end + 4;
        self.next = check(&self.head[..end], self.limits)?;
        self.head = Vec::new();
        Ok(&bytes[end - known..])
    }

    /// What can be said already of a head that has not ended.
    fn unfinished(&self) -> Result<(), Refused> {
        let end = self.head.iter().position(|byte| *byte == b'\n');
        begins(&self.head[..end.map_or(self.head.len(), |end| end + 1)], self.limits)?;
        match end {
            Some(line) if self.head.len() - line > self.limits.header_size + 4 => {
                // Which of the two it is: the line is whole.
                request_line(&self.head[..=line], self.limits)?;
                Err(Refused::LongHeaders)
            }
            _ => Ok(()),
        }
    }
}

/// What the beginning of a request line must look like, whether its end is here or not.
fn begins(line: &[u8], limits: Limits) -> Result<(), Refused> {
    let length = line.strip_suffix(b"\n").unwrap_or(line).len();
    if length > METHOD && !line[..=METHOD].contains(&b' ') {
        return Err(NO_REQUEST);
    }
    if length > METHOD + limits.uri + VERSION {
        return Err(Refused::LongUri);
    }
    Ok(())
}

const NO_REQUEST: Refused = Refused::Malformed("this is no HTTP request");

struct RequestLine {
    is_connect: bool,
    is_http_11: bool,
}

/// A whole line with its end.
fn request_line(line: &[u8], limits: Limits) -> Result<RequestLine, Refused> {
    begins(line, limits)?;
    let line = line.strip_suffix(b"\r\n").ok_or(BARE)?;
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(NO_REQUEST);
    };
    if target.len() > limits.uri {
        return Err(Refused::LongUri);
    }
    if version.len() > VERSION - b" \r\n".len() {
        return Err(NO_REQUEST);
    }
    Ok(RequestLine { is_connect: method == b"CONNECT", is_http_11: version == b"HTTP/1.1" })
}

const BARE: Refused = Refused::Malformed("a line ends in LF alone, or has a CR in it");

/// A whole head, and what follows it. What the library under this refuses by itself is left to it.
fn check(head: &[u8], limits: Limits) -> Result<Next, Refused> {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n');
    let line = request_line(lines.next().unwrap_or_default(), limits)?;
    let (mut hosts, mut lengths, mut codings, mut upgrades) = (0, 0, 0, false);
    let (mut length, mut count, mut size) = (0_u64, 0, 0);
    for line in lines {
        size += line.len();
        let line = line.strip_suffix(b"\r\n").filter(|line| !line.contains(&b'\r')).ok_or(BARE)?;
        if line.is_empty() {
            break;
        }
        count += 1;
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(Refused::Malformed("a header without a colon"))?);
        let value = value[1..].trim_ascii();
        if name.is_empty() || name.iter().any(|byte| byte.is_ascii_whitespace()) {
            return Err(Refused::Malformed("a header's name is empty, has a space, or is folded"));
        }
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            upgrades = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            lengths += 1;
            let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(value).ok().filter(|_| digits);
            let bad = Refused::Malformed("a Content-Length is a number");
            length = text.and_then(|text| text.parse().ok()).ok_or(bad)?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            codings += 1;
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refused::Malformed("the only Transfer-Encoding that is read here is chunked"));
            }
        }
    }
    if size > limits.header_size {
        return Err(Refused::LongHeaders);
    }
    if count > limits.headers {
        return Err(Refused::ManyHeaders);
    }
    if lengths + codings > 1 {
        return Err(Refused::Malformed("a request has one Content-Length, or one Transfer-Encoding, or neither"));
    }
    if hosts > 1 || (hosts == 0 && line.is_http_11) {
        return Err(Refused::Malformed("one Host header is needed"));
    }
    if codings > 0 && !line.is_http_11 {
        return Err(Refused::Malformed("HTTP/1.0 has no Transfer-Encoding"));
    }
    Ok(match length {
        // Whoever answers closes the connection, unless it is upgraded (`http::Http::answer`).
        _ if codings > 0 || upgrades || line.is_connect => Next::Through,
        0 => Next::Head,
        length => Next::Body(length),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { uri: 64, headers: 10, header_size: 512 };

    /// What becomes of these bytes, in pieces of every size.
    fn seen(bytes: &str) -> Result<Next, Refused> {
        let whole = seen_in(bytes, bytes.len());
        for size in 1..8 {
            assert_eq!(seen_in(bytes, size), whole, "in pieces of {size}: {bytes:?}");
        }
        whole
    }

    fn seen_in(bytes: &str, size: usize) -> Result<Next, Refused> {
        let mut heads = Heads { limits: LIMITS, next: Next::Head, head: Vec::new() };
        for piece in bytes.as_bytes().chunks(size.max(1)) {
            heads.see(piece)?;
            assert!(heads.head.len() <= METHOD + 64 + VERSION + 512 + 5, "what is kept is bounded");
        }
        Ok(heads.next)
    }

    fn get(headers: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
    }

    #[test]
    fn requests_follow_each_other() {
        assert_eq!(seen(&get("")), Ok(Next::Head));
        assert_eq!(seen(&format!("\r\n\r\n{}{}", get(""), get("A: b\r\n"))), Ok(Next::Head));
        assert_eq!(seen(&get("Content-Length: 5\r\n")), Ok(Next::Body(5)));
        let second = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(seen(&format!("{}GET /\r\n{second}a", get("Content-Length: 7\r\n"))), Ok(Next::Body(2)));
        assert_eq!(seen("GET / HTTP/1.0\r\n\r\n"), Ok(Next::Head));
    }

    #[test]
    fn what_may_not_be_requests_is_not_followed() {
        for head in ["Upgrade: websocket\r\n", "Transfer-Encoding: chunked\r\n"] {
            assert_eq!(seen(&(get(head) + "\u{1}\u{2} anything\n\n")), Ok(Next::Through));
        }
        assert_eq!(seen("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n\n\n"), Ok(Next::Through));
    }

    #[test]
    fn what_can_be_understood_in_two_ways_is_refused() {
        let cases = [
            get("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            get("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
            get("Content-Length: 5\r\nContent-Length: 6\r\n"),
            get("Content-Length: 5\r\nContent-Length: 5\r\n"),
            get("Content-Length: 5, 5\r\n"),
            get("Content-Length: +5\r\n"),
            get("Content-Length: 0x5\r\n"),
            get("Content-Length:\r\n"),
            get("Content-Length: 99999999999999999999\r\n"),
            get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            get("Transfer-Encoding: xchunked\r\n"),
            get("Transfer-Encoding: gzip, chunked\r\n"),
            get("Transfer-Encoding : chunked\r\n"),
            get(" folded: yes\r\n"),
            get("A: b\r\n Transfer-Encoding: chunked\r\n"),
            get("A: b\nTransfer-Encoding: chunked\r\n"),
            get("A: b\rc\r\n"),
            get("no colon\r\n"),
            get(": nameless\r\n"),
            get("Host: y\r\n"),
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "x".repeat(40),
        ];
        for case in cases {
            assert!(matches!(seen(&case), Err(Refused::Malformed(_))), "{case:?}: {:?}", seen(&case));
        }
    }

    #[test]
    fn what_is_too_large_is_refused_as_what_it_is() {
        let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(bytes - 1));
        assert_eq!(seen(&target(64)), Ok(Next::Head));
        assert_eq!(seen(&target(65)), Err(Refused::LongUri));
        assert_eq!(seen(&target(60_000)), Err(Refused::LongUri));
        // The line's end is here at once with as much as is kept, and the head's is not.
        let (long, headers) = ("x".repeat(120), "A: b\r\n".repeat(100));
        assert_eq!(seen(&format!("GET /{long}\r\n{headers}")), Err(Refused::LongUri));
        assert_eq!(seen(&format!("GET /{long} HTTP/1.1\r\n{headers}")), Err(Refused::LongUri));
        let method = "M".repeat(120);
        assert_eq!(seen(&format!("{method} / HTTP/1.1\r\n{headers}")), Err(NO_REQUEST));
        assert_eq!(seen(&format!("GET / HTTP/1.1{}\r\nHost: x\r\n\r\n", "1".repeat(9))), Err(NO_REQUEST));
        assert_eq!(seen(&get(&format!("A: {}\r\n", "x".repeat(600)))), Err(Refused::LongHeaders));
        assert_eq!(seen(&format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(60_000))), Err(Refused::LongHeaders));
        assert_eq!(seen(&get(&"a: b\r\n".repeat(9))), Ok(Next::Head));
        assert_eq!(seen(&get(&"a: b\r\n".repeat(10))), Err(Refused::ManyHeaders));
    }
}
