//! Who may connect, and how often: by address, by user, and all together. Those who are too many are told when to come again.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::support::client::{Client, Raw, TEXT, exchange, frame, handshake, request};
use crate::support::http2::Connection;
use crate::support::{Gateway, PATIENCE, until};

const ECHO: &str = r#"
[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
"#;

/// Status and Retry-After of a handshake on a connection of its own; None where it is closed without an answer.
async fn shake(address: SocketAddr, path: &str) -> Option<(u16, Option<u64>, Raw)> {
    let mut raw = Raw(TcpStream::connect(address).await.unwrap());
    raw.send(handshake(address, path).as_bytes()).await;
    let head = raw.try_head().await?.to_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let retry = head.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse().ok());
    Some((status, retry, raw))
}

async fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("tidegate_connections_refused_total", &format!("reason=\"{reason}\"")).await
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let gateway = Gateway::start(&format!("[connections]\nper_address = 3\n{ECHO}")).await;
    let mut first = Client::connect(&gateway.ws_url("/echo")).await;
    let second = Client::connect(&gateway.ws_url("/echo")).await;
    // One that never asks for anything is one too.
    let silent = TcpStream::connect(gateway.address()).await.unwrap();
    until("the silent one", || async { (gateway.metric("tidegate_connections", "public").await == 3.0).then_some(()) })
        .await;
    let (status, retry, mut raw) = shake(gateway.address(), "/echo").await.unwrap();
    assert_eq!(status, 503);
    assert!((2..=12).contains(&retry.unwrap()), "{retry:?}");
    assert!(
        raw.0.readable().await.is_ok() && until_over(&mut raw).await,
        "the connection of somebody refused is closed"
    );
    assert_eq!(refused(&gateway, "address").await, 1.0);
    assert_eq!(gateway.metric("tidegate_client_addresses", "").await, 1.0);
    assert_eq!(gateway.metric("tidegate_handshakes_total", "status=\"503\"").await, 0.0, "no route was asked");
    assert_eq!(first.ask("unhurt").await, "unhurt");
    drop(silent);
    second.close().await;
    let url = gateway.ws_url("/echo");
    let mut next = until("a place", || async { Client::try_connect(&url, &[]).await.ok() }).await;
    assert_eq!(next.ask("in").await, "in");
}

/// Reads what is left of the answer, to the end.
async fn until_over(raw: &mut Raw) -> bool {
    let mut rest = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut raw.0, &mut rest);
    tokio::time::timeout(crate::support::PATIENCE, reading).await.is_ok()
}

#[tokio::test]
async fn whom_the_proxy_protocol_names_has_so_many_connections() {
    let proxy = "[proxy]\nprotocol = true\ntrusted = [\"127.0.0.1\"]\n[connections]\nper_address = 2\n";
    let gateway = Gateway::start(&format!("{proxy}{ECHO}")).await;
    let address = gateway.address();
    let come = |from: &'static str| async move {
        let mut raw = Raw(TcpStream::connect(address).await.unwrap());
        raw.send(format!("PROXY TCP4 {from} 10.0.0.1 4711 443\r\n").as_bytes()).await;
        raw.send(handshake(address, "/echo").as_bytes()).await;
        let head = raw.head().await;
        (head.split(' ').nth(1).unwrap().to_owned(), raw)
    };
    let (first, held) = come("192.0.2.9").await;
    let (second, _also_held) = come("192.0.2.9").await;
    assert_eq!((first.as_str(), second.as_str()), ("101", "101"));
    assert_eq!(come("192.0.2.9").await.0, "503");
    assert_eq!(refused(&gateway, "address").await, 1.0);
    let (other, _held_too) = come("192.0.2.10").await;
    assert_eq!(other, "101", "all of them come by way of one address, which is the proxy's");
    assert_eq!(gateway.metric("tidegate_client_addresses", "").await, 2.0);
    drop(held);
    until("a place", || async { (come("192.0.2.9").await.0 == "101").then_some(()) }).await;
}

/// Behind a proxy that names clients in a header, requests are counted and not the proxy's connections.
const FORWARDED: &str = "[proxy]\ntrusted = [\"127.0.0.1\"]\n[connections]\nper_address = 2\n";

#[tokio::test]
async fn whom_a_header_names_has_so_many_sessions() {
    let gateway = Gateway::start(&format!("{FORWARDED}{ECHO}")).await;
    let url = gateway.ws_url("/echo");
    let url = &url;
    let come = |from: &'static str| async move { Client::try_connect(url, &[("x-forwarded-for", from)]).await };
    let first = come("192.0.2.9").await.unwrap();
    let mut second = come("192.0.2.9").await.unwrap();
    assert_eq!(come("192.0.2.9").await.err(), Some(503));
    assert_eq!(
        come("10.9.9.9, 192.0.2.9").await.err(),
        Some(503),
        "what the client itself has written counts for nothing"
    );
    assert_eq!(refused(&gateway, "address").await, 2.0);
    let mut other = come("192.0.2.10").await.unwrap();
    assert_eq!(other.ask("in").await, "in");
    first.close().await;
    let mut next = until("a place", || async { come("192.0.2.9").await.ok() }).await;
    assert_eq!((next.ask("in").await, second.ask("unhurt").await), ("in".to_owned(), "unhurt".to_owned()));
}

#[tokio::test]
async fn whom_a_header_names_has_so_many_sessions_on_one_connection_of_http2() {
    let gateway = Gateway::start(&format!("{FORWARDED}[http2]\nmode = \"clear-text\"\n{ECHO}")).await;
    let mut connection = Connection::clear(gateway.address()).await;
    let version = ("sec-websocket-version", "13");
    let mut sessions = Vec::new();
    for (from, status) in [("192.0.2.9", 200), ("192.0.2.9", 200), ("192.0.2.9", 503), ("192.0.2.10", 200)] {
        let response = connection.connect("/echo", &[version, ("x-forwarded-for", from)]).await;
        assert_eq!(response.status(), status, "{from}");
        assert_eq!(response.headers().contains_key("retry-after"), status == 503);
        sessions.push(response);
    }
    assert_eq!(refused(&gateway, "address").await, 1.0);
    assert_eq!(gateway.metric("tidegate_connections", "public").await, 1.0);
    // A stream that ends is a place, though the connection stays.
    sessions.remove(0);
    until("two sessions", || async { (gateway.metric("tidegate_sessions", "echo").await == 2.0).then_some(()) }).await;
    let response = connection.connect("/echo", &[version, ("x-forwarded-for", "192.0.2.9")]).await;
    assert_eq!(response.status(), 200);
}

/// Without a header a connection of HTTP/2 is one connection of its address, however many sessions are on it.
#[tokio::test]
async fn an_address_has_so_many_connections_of_http2() {
    let limits = "[connections]\nper_address = 1\n[http2]\nmode = \"clear-text\"\n";
    let gateway = Gateway::start(&format!("{limits}{ECHO}")).await;
    let mut connection = Connection::clear(gateway.address()).await;
    let mut sockets = [connection.websocket("/echo").await, connection.websocket("/echo").await];
    let (status, _, _) = shake(gateway.address(), "/echo").await.unwrap();
    assert_eq!(status, 503);
    assert_eq!(refused(&gateway, "address").await, 1.0);
    for socket in &mut sockets {
        assert_eq!(exchange(socket, "unhurt").await, "unhurt");
    }
}

/// The kernel gives up a client to whom nothing can be sent any more, where no heartbeat would find out.
#[tokio::test]
async fn who_takes_nothing_for_too_long_has_vanished() {
    let config = r#"
[connections]
unacknowledged_timeout = "1s"

[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
slow_consumer = "drop-newest"
heartbeat = { interval = "10m", timeout = "10m" }
limits = { outbox = "64KiB" }
"#;
    let gateway = Gateway::start(config).await;
    let mut other = Client::connect(&gateway.ws_url("/echo")).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let stream = socket.connect(gateway.address()).await.unwrap();
    let mut gone = Raw::begin(stream, &handshake(gateway.address(), "/echo")).await;
    // Answers that it never reads, until the gateway reads no more of it either.
    let message = frame(TEXT, &[b'x'; 32 << 10]);
    let sending = async { while gone.0.write_all(&message).await.is_ok() {} };
    timeout(PATIENCE, sending).await.expect("the connection stays, and nothing moves on it");
    until("the end of the session", || async {
        (gateway.metric("tidegate_sessions", "echo").await == 1.0).then_some(())
    })
    .await;
    // Nobody was told anything: it was the network's end, and the timeout is no limit of how long somebody may be idle.
    assert_eq!(gateway.metric("tidegate_closes_total", "by=\"network\"").await, 1.0);
    assert_eq!(other.ask("unhurt").await, "unhurt");
}

#[tokio::test]
async fn an_address_connects_only_so_often_unless_it_is_exempt() {
    let limits = "[connections]\nrate = 1\nburst = 3\n";
    let gateway = Gateway::start(&format!("{limits}{ECHO}")).await;
    let mut held = Vec::new();
    let mut first_refusal = 0;
    for number in 0..50 {
        match shake(gateway.address(), "/echo").await.unwrap() {
            (101, _, raw) => held.push(raw),
            (status, retry, _) => {
                assert_eq!(status, 503);
                assert!(retry.is_some());
                first_refusal = number;
                break;
            }
        }
    }
    assert!(held.len() >= 3 && first_refusal >= 3, "the burst is let in: {}", held.len());
    assert_eq!(refused(&gateway, "address-rate").await, 1.0);
    // What is exempt counts from the moment that the configuration says so.
    gateway.reconfigure(&format!("{limits}exempt = [\"127.0.0.0/8\"]\n{ECHO}"), "applied").await;
    for _ in 0..20 {
        assert_eq!(shake(gateway.address(), "/echo").await.unwrap().0, 101);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_reconnects_is_paced_and_all_come_back() {
    reconnect(600, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak: ten thousand clients; cargo xtask test --soak"]
async fn ten_thousand_reconnects_are_paced_and_all_come_back() {
    reconnect(10_000, 500).await;
}

/// So many clients at once, with so many new connections a second. Those who are in say nothing until all are.
async fn reconnect(count: usize, rate: u32) {
    let config = format!(
        "max_connections = 11000\n[connections]\ntotal_rate = {rate}\ntotal_burst = {rate}\n{ECHO}\
         limits = {{ sessions = 11000 }}\nheartbeat = {{ interval = \"10m\", timeout = \"10m\" }}\n"
    );
    let gateway = Gateway::start(&config).await;
    let mut other = Client::connect(&gateway.ws_url("/echo")).await;
    let address = gateway.address();
    let clients = (0..count).map(|_| {
        tokio::spawn(async move {
            let mut times = 0;
            loop {
                times += 1;
                let Some((status, retry, raw)) = shake(address, "/echo").await else {
                    // More were refused at this moment than are told so.
                    sleep(Duration::from_secs(2)).await;
                    continue;
                };
                if status == 101 {
                    return (raw, times);
                }
                assert_eq!(status, 503);
                // What the protocol asks for.
                sleep(Duration::from_secs(retry.expect("a time to come again"))).await;
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut back = Vec::new();
    for client in clients {
        assert_eq!(other.ask("meanwhile").await, "meanwhile");
        back.push(tokio::time::timeout(Duration::from_secs(60), client).await.expect("all come back").unwrap());
    }
    assert_eq!(gateway.metric("tidegate_sessions", "echo").await, (count + 1) as f64);
    let again = back.iter().filter(|(_, times)| *times > 1).count();
    assert!(again > 0 && refused(&gateway, "rate").await >= again as f64, "{again} had to come again");
    let most = back.iter().map(|(_, times)| *times).max().unwrap();
    assert!(most <= 6, "somebody had to ask {most} times: the times that they are told are not spread");
}

#[tokio::test]
async fn a_user_has_so_many_sessions() {
    let gateway = Gateway::start(
        r#"
[[route]]
name = "mine"
path = "/mine"
plugins = ["jwt-auth", "echo"]
limits = { sessions_per_user = 2 }

[plugin.jwt-auth.config]
secret = "0123456789abcdef0123456789abcdef"
"#,
    )
    .await;
    let url = |user: &str| gateway.ws_url(&format!("/mine?token={}", gateway.token(user)));
    let alice = url("alice");
    let first = Client::connect(&alice).await;
    let mut second = Client::connect(&alice).await;
    assert_eq!(Client::try_connect(&alice, &[]).await.err(), Some(503));
    let token = gateway.token("alice");
    let (status, retry, _) = shake(gateway.address(), &format!("/mine?token={token}")).await.unwrap();
    assert!(status == 503 && retry.is_some());
    assert_eq!(gateway.metric("tidegate_handshakes_total", "status=\"503\"").await, 2.0);
    let mut bob = Client::connect(&url("bob")).await;
    assert_eq!(bob.ask("another user").await, "another user");
    assert_eq!(second.ask("unhurt").await, "unhurt");
    first.close().await;
    let mut third = until("the place", || async { Client::try_connect(&alice, &[]).await.ok() }).await;
    assert_eq!(third.ask("in").await, "in");
}

#[tokio::test]
async fn who_says_nothing_is_given_up_before_who_is_slow() {
    let config = format!("handshake_timeout = \"10m\"\n[connections]\nfirst_byte_timeout = \"500ms\"\n{ECHO}");
    let gateway = Gateway::start(&config).await;
    let mut begun = Raw(TcpStream::connect(gateway.address()).await.unwrap());
    let whole = handshake(gateway.address(), "/echo");
    begun.send(&whole.as_bytes()[..10]).await;
    let mut silent = Raw(TcpStream::connect(gateway.address()).await.unwrap());
    assert!(silent.is_over().await);
    assert_eq!(refused(&gateway, "first-byte").await, 1.0);
    begun.send(&whole.as_bytes()[10..]).await;
    assert!(begun.head().await.starts_with("HTTP/1.1 101"));
}

#[tokio::test]
async fn a_request_has_the_size_that_is_set() {
    let gateway =
        Gateway::start(&format!("[connections]\nuri = \"1KiB\"\nheaders = 20\nheader_size = \"2KiB\"\n{ECHO}")).await;
    let address = gateway.address();
    let get =
        |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    let long = format!("/{}", "x".repeat(1024));
    let cases = [
        (414, get(&long, "")),
        (404, get(&long[..1024], "")),
        (414, get(&format!("/{}", "x".repeat(64 << 10)), "")),
        (414, get(&format!("/{}", "x".repeat(1 << 20)), "")),
        (431, get("/", &format!("A: {}\r\n", "x".repeat(2 << 10)))),
        (431, get("/", &format!("A: {}\r\n", "x".repeat(1 << 20)))),
        (431, get("/", &"A: b\r\n".repeat(19))),
        (404, get("/", &"A: b\r\n".repeat(18))),
    ];
    for (status, text) in &cases {
        let answer = request(address, text).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{} bytes: {answer}", text.len());
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    assert_eq!(refused(&gateway, "uri").await, 3.0);
    assert_eq!(refused(&gateway, "headers").await, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_and_goes_leaves_nothing_behind() {
    come_and_go(100).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak: tens of thousands of connections; cargo xtask test --soak"]
async fn who_comes_and_goes_for_long_leaves_nothing_behind() {
    come_and_go(600).await;
}

async fn come_and_go(most: usize) {
    const AT_ONCE: usize = 40;
    let gateway = Gateway::start(&format!("[connections]\nper_address = 1000\n{ECHO}")).await;
    let mut other = Client::connect(&gateway.ws_url("/echo")).await;
    let address = gateway.address();
    let churn = async |rounds: usize| {
        for round in 0..rounds {
            let clients = (0..AT_ONCE).map(|number| {
                tokio::spawn(async move {
                    match (round + number) % 4 {
                        // Without a word, in the middle of a handshake, without a goodbye, and as it should be.
                        0 => drop(TcpStream::connect(address).await.unwrap()),
                        1 => Raw(TcpStream::connect(address).await.unwrap()).send(b"GET /echo HT").await,
                        2 => drop(Raw::connect(address, "/echo").await),
                        _ => Client::connect(&format!("ws://{address}/echo")).await.close().await,
                    }
                })
            });
            for client in clients.collect::<Vec<_>>() {
                client.await.unwrap();
            }
        }
    };
    let at_base = async || {
        until("the end of all sessions", || async {
            let left =
                gateway.metric("tidegate_sessions", "").await + gateway.metric("tidegate_connections", "public").await;
            (left == 2.0).then_some(())
        })
        .await;
    };
    // The first ones fill caches and pools.
    churn(25).await;
    at_base().await;
    let (files, memory) = (gateway.files(), gateway.resident());
    churn(most).await;
    at_base().await;
    assert_eq!(other.ask("still").await, "still");
    // The admin connection that asks is one of them, or is not.
    assert!(gateway.files().abs_diff(files) <= 4, "from {files} to {} descriptors", gateway.files());
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < 8 << 20, "{grown} bytes more after {} connections", most * AT_ONCE);
    assert_eq!(gateway.metric("tidegate_client_addresses", "").await, 1.0);
}
