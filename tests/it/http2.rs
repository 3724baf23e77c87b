//! HTTP/2: sessions as streams of one connection (RFC 8441), and what a hostile client may not do with it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{Client, Raw, exchange, next};
use crate::support::http2::Connection;
use crate::support::tls::{Authority, TLS13, Tls};
use crate::support::{Gateway, PATIENCE, until};

const ROUTES: &str = r#"
[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]

[[route]]
name = "events"
path = "/events"
plugins = ["echo"]
transports = ["websocket", "sse"]
"#;
const CLEAR: &str = "[http2]\nmode = \"clear-text\"\n";

async fn over_tls(config: &str) -> (Gateway, Tls) {
    let authority = Authority::new();
    let tls = "[tls]\ncertificates = [{ cert = \"first.pem\", key = \"first.key\" }]\n";
    let directory = Gateway::prepare(&format!("{config}{tls}{ROUTES}"), &[]);
    authority.sign(&["localhost"]).write(directory.path(), "first");
    (Gateway::run(directory).await, Tls::with(&authority, TLS13, &["h2", "http/1.1"], None))
}

#[tokio::test]
async fn sessions_share_a_connection() {
    let (gateway, tls) = over_tls("").await;
    let stream = tls.connect(gateway.address(), "localhost").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut connection = Connection::over(stream).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(connection.websocket("/echo").await);
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        let text = format!("socket {number}");
        assert_eq!(exchange(socket, &text).await, text);
    }
    let long = "tide ".repeat(12_000);
    assert_eq!(exchange(&mut sockets[0], &long).await, long);
    assert_eq!(gateway.metric("tidegate_connections", "listener=\"public\"").await, 1.0);
    assert_eq!(gateway.metric("tidegate_http2_connections", "").await, 1.0);
    assert_eq!(gateway.metric("tidegate_sessions", "echo").await, 5.0);

    // One says goodbye, and is told so; one just goes; the others stay.
    let mut leaving = sockets.remove(0);
    leaving.close(None).await.unwrap();
    assert!(matches!(next(&mut leaving).await, Some(Message::Close(_))));
    assert!(next(&mut leaving).await.is_none());
    drop(leaving);
    drop(sockets.remove(0));
    until("two are gone", || async { (gateway.metric("tidegate_sessions", "echo").await == 3.0).then_some(()) }).await;
    for socket in &mut sockets {
        assert_eq!(exchange(socket, "still here").await, "still here");
    }
    drop(sockets);
    drop(connection);
    until("all are gone", || async {
        let connections = gateway.metric("tidegate_http2_connections", "").await;
        (connections + gateway.metric("tidegate_sessions", "echo").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn http_1_is_there_for_those_who_ask_for_it() {
    let (gateway, _) = over_tls("[http2]\nmode = \"off\"\n").await;
    let plain = Gateway::start(ROUTES).await;
    let address = plain.address();
    // In clear text HTTP/2 is spoken only where that is said.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 ") || answer.is_empty(), "{answer:?}");
    assert_eq!(plain.metric("tidegate_http2_connections", "").await, 0.0);
    assert_eq!(gateway.metric("tidegate_http2_connections", "").await, 0.0);
}

#[tokio::test]
async fn what_is_asked_for_wrongly_is_refused() {
    let gateway = Gateway::start(&format!("{CLEAR}{ROUTES}")).await;
    let mut connection = Connection::clear(gateway.address()).await;
    let version = ("sec-websocket-version", "13");
    assert_eq!(connection.connect("/echo", &[]).await.status(), 400);
    let origin = ("origin", "https://evil.example");
    assert_eq!(connection.connect("/echo", &[version, origin]).await.status(), 403);
    assert_eq!(connection.connect("/nothing", &[version]).await.status(), 404);
    let own = ("origin", "https://localhost");
    assert_eq!(connection.connect("/echo", &[version, own]).await.status(), 200);
    let long = "x".repeat(40 << 10);
    let large = connection.ask(Request::get("https://localhost/echo").header("x-long", long)).await;
    assert_eq!(large.status(), 431);
    let mut many = Request::get("https://localhost/echo");
    for number in 0..150 {
        many = many.header(format!("x-{number}"), "1");
    }
    assert_eq!(connection.ask(many).await.status(), 431);
    let mut socket = connection.websocket("/echo").await;
    assert_eq!(exchange(&mut socket, "tide").await, "tide");
    // HTTP/1.1 is spoken on the same address.
    let mut other = Client::connect(&gateway.ws_url("/echo")).await;
    assert_eq!(other.ask("tide").await, "tide");
}

#[tokio::test]
async fn an_event_stream_goes_over_http2() {
    let gateway = Gateway::start(&format!("{CLEAR}{ROUTES}")).await;
    let mut connection = Connection::clear(gateway.address()).await;
    let asked = Request::get("https://localhost/events").header("accept", "text/event-stream");
    let response = connection.ask(asked).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let first = timeout(PATIENCE, body.frame()).await.expect("nothing comes").unwrap().unwrap();
    assert!(first.into_data().is_ok_and(|data| !data.is_empty()));
    until("it is counted", || async { (gateway.metric("tidegate_sessions", "events").await == 1.0).then_some(()) })
        .await;
    drop(body);
    until("it is gone", || async { (gateway.metric("tidegate_sessions", "events").await == 0.0).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_one_stream_reads_the_others() {
    let gateway = Gateway::start(&format!("{CLEAR}{ROUTES}")).await;
    let mut connection = Connection::clear(gateway.address()).await;
    let (mut write, _never_read) = connection.websocket("/echo").await.split();
    let mut other = connection.websocket("/echo").await;
    // The echoes fill this stream's window, then the outbox; then the gateway reads no more of it, and its own window is full.
    let stalled = tokio::spawn(async move {
        let text = "stalled ".repeat(1_000);
        while write.send(Message::text(text.as_str())).await.is_ok() {}
    });
    let read = || gateway.metric("tidegate_message_bytes_received_total", "echo");
    let mut before = 0.0;
    loop {
        // Only a pause can tell that something has stopped.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = read().await;
        if now > 0.0 && now == before {
            break;
        }
        before = now;
    }
    for number in 0..50 {
        let text = format!("question {number}");
        assert_eq!(exchange(&mut other, &text).await, text);
    }
    stalled.abort();
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_the_connection() {
    let gateway = Gateway::start(&format!("{CLEAR}{ROUTES}")).await;
    let mut neighbour = Connection::clear(gateway.address()).await;
    let mut socket = neighbour.websocket("/echo").await;
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // GET http://localhost/ in HPACK.
    let head = [&[0x82, 0x86, 0x84, 0x41, 9][..], b"localhost"].concat();
    for stream in (1..4_000u32).step_by(2) {
        flood.extend([0, 0, head.len() as u8, 1, 5]);
        flood.extend(stream.to_be_bytes());
        flood.extend(&head);
        flood.extend([0, 0, 4, 3, 0]);
        flood.extend(stream.to_be_bytes());
        flood.extend(8u32.to_be_bytes());
    }
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    tokio::spawn(async move {
        let _ = write.write_all(&flood).await;
        // Held open: it is the gateway that ends it.
        std::future::pending::<()>().await;
    });
    let mut came = Vec::new();
    let _ = timeout(PATIENCE, read.read_to_end(&mut came)).await.expect("the connection goes on");
    // GOAWAY with ENHANCE_YOUR_CALM, unless the gateway's reset has overtaken it.
    let calm = came.windows(4).any(|window| window == 11u32.to_be_bytes());
    assert!(calm || came.len() < 4_000, "{} bytes", came.len());
    assert_eq!(exchange(&mut socket, "tide").await, "tide");
}

#[tokio::test]
async fn a_silent_client_is_closed() {
    let (gateway, tls) = over_tls("handshake_timeout = \"300ms\"\n").await;
    let mut silent = tls.connect(gateway.address(), "localhost").await.unwrap();
    let mut half = tls.connect(gateway.address(), "localhost").await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM").await.unwrap();
    let mut never_asks = tls.connect(gateway.address(), "localhost").await.unwrap();
    never_asks.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    for stream in [&mut silent, &mut half, &mut never_asks] {
        let mut came = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut came)).await.expect("it is not closed");
    }
    // In clear text as well, before it is known which HTTP it is.
    let clear = Gateway::start(&format!("handshake_timeout = \"300ms\"\n{CLEAR}{ROUTES}")).await;
    for begin in ["", "P", "PRI * HT", "GET / HT"] {
        let mut raw = Raw(TcpStream::connect(clear.address()).await.unwrap());
        raw.send(begin.as_bytes()).await;
        let mut came = Vec::new();
        let _ = timeout(PATIENCE, raw.0.read_to_end(&mut came)).await.expect("it is not closed");
    }
}

#[tokio::test]
async fn a_connection_without_sessions_is_told_to_go() {
    let config = "[http2]\nmode = \"clear-text\"\nidle_timeout = \"200ms\"\n";
    let gateway = Gateway::start(&format!("handshake_timeout = \"200ms\"\n{config}{ROUTES}")).await;
    let mut idle = Connection::clear(gateway.address()).await;
    let mut used = Connection::clear(gateway.address()).await;
    let mut socket = used.websocket("/echo").await;
    timeout(PATIENCE, &mut idle.driver).await.expect("it goes on").unwrap().unwrap();
    assert_eq!(exchange(&mut socket, "tide").await, "tide", "who has a session stays");
}

#[tokio::test]
async fn the_drain_says_goodbye_on_every_stream() {
    let mut gateway = Gateway::start(&format!("{CLEAR}{ROUTES}")).await;
    let mut connection = Connection::clear(gateway.address()).await;
    let mut sockets = [connection.websocket("/echo").await, connection.websocket("/echo").await];
    for socket in &mut sockets {
        assert_eq!(exchange(socket, "tide").await, "tide");
    }
    gateway.terminate();
    for socket in &mut sockets {
        match next(socket).await {
            Some(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1012),
            other => panic!("a close was expected, not {other:?}"),
        }
        assert!(next(socket).await.is_none());
    }
    drop(sockets);
    timeout(PATIENCE, &mut connection.driver).await.expect("the connection goes on").unwrap().unwrap();
    assert!(gateway.ended().await.success());
}
