//! Who gets past the door: the opening handshake is strict, and each refusal is one answer with the right status.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::client::{Client, Raw, TEXT, frame, get, handshake, request};
use crate::support::{Gateway, PATIENCE, until};

/// Connections that wait for a request are given up soon, so that a test sees where an answer ends.
const CONFIG: &str = r#"
handshake_timeout = "1s"

[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
origins = ["https://app.example"]
subprotocols = ["known"]

[[route]]
name = "own"
path = "/own"
plugins = ["echo"]

[[route]]
name = "one"
path = "/one"
plugins = ["echo"]
limits = { sessions = 1 }
"#;

/// Sends a handshake with a change, and expects exactly one answer.
async fn answered(address: SocketAddr, path: &str, from: &str, to: &str) -> (u16, String) {
    let proper = handshake(address, path);
    assert!(proper.contains(from), "{proper:?} has no {from:?}");
    let answer = request(address, &proper.replace(from, to)).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "one answer: {answer}");
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.to_lowercase())
}

async fn with_header(address: SocketAddr, path: &str, header: &str) -> (u16, String) {
    answered(address, path, "\r\n\r\n", &format!("\r\n{header}\r\n\r\n")).await
}

#[tokio::test]
async fn foreign_origins_are_refused() {
    let gateway = Gateway::start(CONFIG).await;
    let address = gateway.address();
    for origin in ["https://evil.example", "http://app.example", "https://app.example.evil.example", "null"] {
        let (status, _) = with_header(address, "/echo", &format!("Origin: {origin}")).await;
        assert_eq!(status, 403, "{origin}");
    }
    let (status, _) = with_header(address, "/own", "Origin: https://app.example").await;
    assert_eq!(status, 403, "a route without a list is for pages of its own host");
    assert_eq!(gateway.metric("tidegate_handshakes_total", "status=\"403\"").await, 5.0);
    let listed = Client::try_connect(&gateway.ws_url("/echo"), &[("origin", "https://app.example")]).await;
    assert_eq!(listed.unwrap().ask("in").await, "in");
    let own = Client::try_connect(&gateway.ws_url("/own"), &[("origin", &gateway.url())]).await;
    assert_eq!(own.unwrap().ask("in").await, "in");
}

#[tokio::test]
async fn only_a_known_subprotocol_is_selected() {
    let gateway = Gateway::start(CONFIG).await;
    for (offered, selected) in [("strange", None), ("strange, known", Some("known")), ("known", Some("known"))] {
        let offer = format!("\r\nSec-WebSocket-Protocol: {offered}\r\n\r\n");
        let mut raw = Raw(TcpStream::connect(gateway.address()).await.unwrap());
        raw.send(handshake(gateway.address(), "/echo").replace("\r\n\r\n", &offer).as_bytes()).await;
        let head = raw.head().await.to_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        let line = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(line, selected, "offered {offered}");
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_told_so_once() {
    let gateway = Gateway::start(CONFIG).await;
    let address = gateway.address();
    let (status, answer) = answered(address, "/echo", "Upgrade: websocket\r\n", "").await;
    assert_eq!(status, 426);
    assert!(answer.contains("upgrade: websocket"), "{answer}");
    let (status, answer) = answered(address, "/echo", "Version: 13", "Version: 8").await;
    assert_eq!(status, 426);
    assert!(answer.contains("sec-websocket-version: 13"), "{answer}");
    let host = format!("Host: {address}\r\n");
    let twice = format!("{host}Host: other.example\r\n");
    let smuggled = format!("GET /own HTTP/1.1\r\n{host}\r\n");
    let body = format!("\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len());
    let chunked = format!("\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}");
    let both = format!("\r\nContent-Length: 5{chunked}");
    let lengths = format!("\r\nContent-Length: 0\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len());
    for (what, from, to) in [
        ("a key of another length", "dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        ("a key that is not base64", "dGhlIHNhbXBsZSBub25jZQ==", "!!!!!!!!!!!!!!!!!!!!!!=="),
        ("no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("no host", &*host, ""),
        ("two hosts", &host, &twice),
        ("another method", "GET ", "POST "),
        ("a body", "\r\n\r\n", &body),
        ("a chunked body", "\r\n\r\n", &chunked),
        ("two kinds of length", "\r\n\r\n", &both),
        ("two lengths", "\r\n\r\n", &lengths),
    ] {
        let (status, _) = answered(address, "/echo", from, to).await;
        assert_eq!(status, 400, "{what}");
    }
    // Where there is no route, no second answer is to be had either.
    assert_eq!(answered(address, "/nowhere", "\r\n\r\n", &chunked).await.0, 404);
    assert_eq!(gateway.metric("tidegate_handshakes_total", "status=\"101\"").await, 0.0);
    assert_eq!(gateway.metric("tidegate_sessions", "echo").await, 0.0);
}

#[tokio::test]
async fn nothing_is_at_an_unknown_path() {
    let gateway = Gateway::start(CONFIG).await;
    for path in ["/", "/nowhere", "/echo/deeper", "/ECHO", "/metrics"] {
        assert_eq!(get(gateway.address(), path).await.0, 404, "{path}");
        assert_eq!(Client::try_connect(&gateway.ws_url(path), &[]).await.err(), Some(404), "{path}");
    }
    assert_eq!(gateway.metric("tidegate_handshakes_total", "route=\"-\",status=\"404\"").await, 10.0);
}

#[tokio::test]
async fn a_full_route_asks_to_come_again() {
    let gateway = Gateway::start(CONFIG).await;
    let mut first = Client::connect(&gateway.ws_url("/one")).await;
    let (status, answer) = with_header(gateway.address(), "/one", "X-Nothing: 1").await;
    assert_eq!(status, 503);
    assert!(answer.contains("retry-after: "), "{answer}");
    assert_eq!(gateway.metric("tidegate_handshakes_total", "route=\"one\",status=\"503\"").await, 1.0);
    assert_eq!(first.ask("still in").await, "still in");
    let mut other = Client::connect(&gateway.ws_url("/echo")).await;
    assert_eq!(other.ask("another route has room").await, "another route has room");
    first.close().await;
    let url = gateway.ws_url("/one");
    let mut next = until("the place that was given back", || async { Client::try_connect(&url, &[]).await.ok() }).await;
    assert_eq!(next.ask("in").await, "in");
    assert_eq!(gateway.metric("tidegate_sessions", "route=\"one\"").await, 1.0);
}

#[tokio::test]
async fn headers_have_a_limit() {
    let gateway = Gateway::start(CONFIG).await;
    let address = gateway.address();
    let (status, _) = with_header(address, "/echo", &format!("X-Large: {}", "x".repeat(64 << 10))).await;
    assert_eq!(status, 431);
    let many: Vec<_> = (0..500).map(|number| format!("X-{number}: 1")).collect();
    assert_eq!(with_header(address, "/echo", &many.join("\r\n")).await.0, 431);
    let long = format!("/echo?{}", "x".repeat(64 << 10));
    let (status, _) = answered(address, &long, "\r\n\r\n", "\r\n\r\n").await;
    assert_eq!(status, 414);
    let mut client = Client::connect(&gateway.ws_url("/echo")).await;
    assert_eq!(client.ask("as ever").await, "as ever");
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_handshake_is_given_up() {
    let gateway = Gateway::start(CONFIG).await;
    let address = gateway.address();
    let whole = handshake(address, "/echo");
    let mut silent = Raw(TcpStream::connect(address).await.unwrap());
    let mut half = Raw(TcpStream::connect(address).await.unwrap());
    half.send(&whole.as_bytes()[..whole.len() / 2]).await;
    let mut healthy = Client::connect(&gateway.ws_url("/echo")).await;
    assert_eq!(healthy.ask("unhurt").await, "unhurt");
    assert!(silent.is_over().await, "a connection without a request stays open");
    let rest = until_end(&mut half).await;
    assert!(!rest.contains(" 101 "), "{rest}");
    assert_eq!(healthy.ask("still").await, "still");
    until("the connections' end", || async { (gateway.metric("tidegate_connections", "").await <= 2.0).then_some(()) })
        .await;
}

async fn until_end(raw: &mut Raw) -> String {
    let mut all = Vec::new();
    let read = raw.0.read_to_end(&mut all);
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("the connection stays open");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn frames_may_come_with_the_handshake() {
    let gateway = Gateway::start(CONFIG).await;
    let mut request = handshake(gateway.address(), "/echo").into_bytes();
    request.extend(frame(TEXT, b"at once"));
    let second = frame(TEXT, b"in two parts");
    request.extend(&second[..7]);
    let mut raw = Raw(TcpStream::connect(gateway.address()).await.unwrap());
    raw.send(&request).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 101"));
    assert_eq!(raw.frame().await, Some((TEXT, b"at once".to_vec())));
    raw.send(&second[7..]).await;
    assert_eq!(raw.frame().await, Some((TEXT, b"in two parts".to_vec())));
}
