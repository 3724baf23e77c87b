//! Requests that two readers could understand differently: each has one answer, 400, and what hides behind it none.

use crate::support::client::{Client, handshake, request};
use crate::support::{Gateway, guests};

const CONFIG: &str = r#"
handshake_timeout = "1s"

[[route]]
name = "plain"
path = "/plain/{room}/{*rest}"
plugins = ["http"]

[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]

[[files]]
path = "/"
directory = "plugins"

[plugin.http]
config = { name = "plain" }
"#;

/// A handler, a WebSocket route, a file, and nothing at all.
const TARGETS: [&str; 4] = ["/plain/a/echo", "/echo", "/echo.wasm", "/nowhere"];

async fn start() -> Gateway {
    Gateway::start_with(CONFIG, &[("http", guests::http())]).await
}

#[tokio::test]
async fn each_shape_has_one_answer() {
    let gateway = start().await;
    let address = gateway.address();
    let mut other = Client::connect(&gateway.ws_url("/echo")).await;
    let hidden = format!("GET /plain/hidden/echo HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let chunks = format!("0\r\n\r\n{hidden}");
    let mut asked = 0.0;
    for target in TARGETS {
        let shape = |head: &str, rest: &str| format!("POST {target} HTTP/1.1\r\nHost: {address}\r\n{head}\r\n{rest}");
        let shapes = [
            ("a length and chunks", shape("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", &chunks)),
            ("chunks and a length", shape("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", &chunks)),
            ("two lengths", shape("Content-Length: 0\r\nContent-Length: 44\r\n", &hidden)),
            ("the same length twice", shape("Content-Length: 0\r\nContent-Length: 0\r\n", &hidden)),
            ("a list of lengths", shape("Content-Length: 0, 44\r\n", &hidden)),
            ("a length with a sign", shape("Content-Length: +0\r\n", &hidden)),
            ("a length that is none", shape("Content-Length: 0x2c\r\n", &hidden)),
            ("a length too long to count", shape("Content-Length: 18446744073709551660\r\n", &hidden)),
            ("an unknown coding", shape("Transfer-Encoding: xchunked\r\n", &chunks)),
            ("two codings", shape("Transfer-Encoding: chunked, identity\r\n", &chunks)),
            ("a coding twice", shape("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", &chunks)),
            ("a space before the colon", shape("Transfer-Encoding : chunked\r\n", &chunks)),
            ("a folded line", shape("X: y\r\n Transfer-Encoding: chunked\r\n", &chunks)),
            ("a line that ends in LF", shape("X: y\nTransfer-Encoding: chunked\r\n", &chunks)),
            ("a CR within a line", shape("X: y\rTransfer-Encoding: chunked\r\n", &chunks)),
            ("a NUL", shape("X: a\0b\r\n", &hidden)),
            ("two hosts", shape("Host: elsewhere\r\n", &hidden)),
            ("no host", format!("POST {target} HTTP/1.1\r\n\r\n{hidden}")),
            ("no host in a GET", format!("GET {target} HTTP/1.1\r\n\r\n{hidden}")),
            ("chunks in HTTP/1.0", format!("POST {target} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")),
            ("two spaces", format!("POST  {target} HTTP/1.1\r\nHost: {address}\r\n\r\n{hidden}")),
            ("no request", format!("{}\r\n\r\n{hidden}", "x".repeat(100))),
        ];
        for (what, text) in shapes {
            let answer = request(address, &text).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{what} at {target}: {answer:?}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what} at {target}: {answer:?}");
            asked += 1.0;
        }
        assert_eq!(other.ask("unhurt").await, "unhurt");
    }
    let refused = gateway.metric("tidegate_connections_refused_total", "reason=\"malformed\"").await;
    // A NUL is for the library under this to refuse.
    assert_eq!(refused, asked - TARGETS.len() as f64);
    assert_eq!(gateway.metric("tidegate_plugin_calls_total", "plugin=\"http\"").await, 0.0, "no handler has seen one");
}

#[tokio::test]
async fn nothing_follows_an_upgrade_that_is_refused() {
    let gateway = start().await;
    let address = gateway.address();
    let hidden = format!("GET /echo.wasm HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let proper = handshake(address, "/echo");
    for (status, from, to) in [
        (400, "dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        (426, "Version: 13", "Version: 8"),
        (404, "GET /echo ", "GET /nowhere "),
        (403, "Upgrade: websocket", "Upgrade: websocket\r\nOrigin: https://evil.example"),
        (426, "Upgrade: websocket", "Upgrade: h2c"),
        (400, "Connection: Upgrade", "Connection: Upgrade\r\nContent-Length: 5"),
    ] {
        let text = proper.replace(from, to) + &hidden;
        let answer = request(address, &text).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{to}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{to}: {answer:?}");
    }
    let answer = request(address, &format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n{hidden}")).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer:?}");
}

#[tokio::test]
async fn requests_that_are_as_they_should_be_follow_each_other() {
    let gateway = start().await;
    let address = gateway.address();
    let post = format!("POST /plain/a/echo HTTP/1.1\r\nHost: {address}\r\nContent-Length: 5\r\n\r\nhello");
    let get = format!("GET /plain/a/echo HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let answer = request(address, &format!("{post}{get}\r\n{post}{get}")).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 4, "{answer}");
    // One that is wrong ends the connection, behind the answers to those before it.
    let wrong = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: no\r\n\r\n";
    let answer = request(address, &format!("{get}{wrong}{get}")).await;
    assert!(answer.matches("HTTP/1.1 400").count() == 1 && answer.matches("HTTP/1.1 ").count() <= 2, "{answer}");
    let chunked = format!(
        "POST /plain/a/echo HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{get}"
    );
    let answer = request(address, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "chunks are the last thing on a connection: {answer}");
}
