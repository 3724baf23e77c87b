//! The opening handshake's checks, stricter than the HTTP library under it: an upgrade of HTTP/1.1 (RFC 6455 section 4.2.1),
//! or a stream of HTTP/2 (RFC 8441 section 5).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::ext::Protocol;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Request, StatusCode, Version};
use sha1::{Digest, Sha1};

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that is not a WebSocket handshake as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: StatusCode,
    pub why: &'static str,
}

/// How a WebSocket was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By an upgrade, with this key.
    Upgrade(String),
    /// By an extended CONNECT, whose stream it is.
    Stream,
}

/// How it was asked for, if everything is as it should be. `origins`: see `RouteConfig`.
pub fn check<B>(request: &Request<B>, origins: Option<&[String]>) -> Result<Asked, Refused> {
    let headers = request.headers();
    let refuse = |status, why| Err(Refused { status, why });
    if is_extended_connect(request) {
        if single(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
            return refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Version 13 is spoken here");
        }
        let host = request.uri().authority().map_or("", |authority| authority.as_str());
        if !is_allowed(headers, host, origins) {
            return refuse(StatusCode::FORBIDDEN, "this origin may not connect here");
        }
        return Ok(Asked::Stream);
    }
    if !has_token(headers, &header::UPGRADE, "websocket") || !has_token(headers, &header::CONNECTION, "upgrade") {
        return refuse(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket route: ask for an upgrade");
    }
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return refuse(StatusCode::BAD_REQUEST, "a WebSocket handshake is a GET of HTTP/1.1");
    }
    let Some(host) = single(headers, &header::HOST) else {
        return refuse(StatusCode::BAD_REQUEST, "one Host header is needed");
    };
    // A body would be read as frames, or as a second request.
    let empty = single(headers, &header::CONTENT_LENGTH).is_none_or(|length| length == "0")
        && headers.get_all(header::CONTENT_LENGTH).iter().count() < 2
        && !headers.contains_key(header::TRANSFER_ENCODING);
    if !empty {
        return refuse(StatusCode::BAD_REQUEST, "a WebSocket handshake has no body");
    }
    if single(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return refuse(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version 13 is spoken here");
    }
    let key = single(headers, &header::SEC_WEBSOCKET_KEY).unwrap_or_default();
    if STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
        return refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64");
    }
    if !is_allowed(headers, host, origins) {
        return refuse(StatusCode::FORBIDDEN, "this origin may not connect here");
    }
    Ok(Asked::Upgrade(key.to_owned()))
}

/// Whether this asks for a WebSocket at all, however well.
pub fn is_asked<B>(request: &Request<B>) -> bool {
    is_extended_connect(request) || has_token(request.headers(), &header::UPGRADE, "websocket")
}

fn is_extended_connect<B>(request: &Request<B>) -> bool {
    let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
    request.method() == Method::CONNECT && protocol == Some("websocket")
}

/// The server's answer to a key (RFC 6455 section 4.2.2).
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finalize())
}

/// Clients that are no browsers send no Origin; what they do cannot be a page of somebody else's (RFC 6455 section 10.2).
pub fn is_allowed(headers: &HeaderMap, host: &str, origins: Option<&[String]>) -> bool {
    let mut all = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = all.next() else { return true };
    let (Ok(origin), None) = (origin.to_str(), all.next()) else {
        return false;
    };
    match origins {
        Some(origins) => origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin)),
        None => origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host)),
    }
}

/// The header's value, if there is exactly one and it is text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(first)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut Request<()>)) -> Request<()> {
        let mut request = Request::get("/chat/blue")
            .header("host", "example.org")
            .header("upgrade", "WebSocket")
            .header("connection", "keep-alive, Upgrade")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap();
        change(&mut request);
        request
    }

    fn status(change: impl FnOnce(&mut Request<()>)) -> u16 {
        check(&request(change), None).map_or_else(|refused| refused.status.as_u16(), |_| 101)
    }

    fn put(name: &'static str, value: &'static str) -> impl FnOnce(&mut Request<()>) {
        move |request| drop(request.headers_mut().insert(name, value.parse().unwrap()))
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let Ok(Asked::Upgrade(key)) = check(&request(|_| {}), None) else { panic!("it is as it should be") };
        assert_eq!(accept_key(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_missing_or_wrong_is_refused() {
        assert_eq!(status(|request| drop(request.headers_mut().remove("host"))), 400);
        assert_eq!(status(|request| assert!(request.headers_mut().append("host", "other".parse().unwrap()))), 400);
        assert_eq!(status(|request| drop(request.headers_mut().remove("upgrade"))), 426);
        assert_eq!(status(put("connection", "close")), 426);
        assert_eq!(status(put("sec-websocket-version", "8")), 426);
        assert_eq!(status(put("sec-websocket-key", "c2hvcnQ=")), 400);
        assert_eq!(status(put("sec-websocket-key", "not base64")), 400);
        assert_eq!(status(put("content-length", "5")), 400);
        assert_eq!(status(put("content-length", "0")), 101);
        assert_eq!(status(put("transfer-encoding", "chunked")), 400);
        assert_eq!(status(|request| *request.method_mut() = Method::POST), 400);
        assert_eq!(status(|request| *request.version_mut() = Version::HTTP_10), 400);
    }

    #[test]
    fn origins_are_the_hosts_own_unless_listed() {
        assert_eq!(status(put("origin", "https://example.org")), 101);
        assert_eq!(status(put("origin", "https://evil.example")), 403);
        assert_eq!(status(put("origin", "null")), 403);
        let listed = |origin, list: &[&str]| {
            let list: Vec<String> = list.iter().map(|origin| (*origin).to_owned()).collect();
            check(&request(put("origin", origin)), Some(&list)).is_ok()
        };
        assert!(listed("https://app.example", &["https://app.example"]));
        assert!(!listed("http://app.example", &["https://app.example"]));
        assert!(!listed("https://example.org", &["https://app.example"]));
        assert!(listed("https://anyone.example", &["*"]));
    }
}
