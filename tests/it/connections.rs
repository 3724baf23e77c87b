//! Who may connect, and how often: by address, by user, and all together. Those who are too many are told when to come again.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::support::client::{Client, Raw, handshake, request};
use crate::support::{Gateway, until};

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
    let head = raw.head().await.to_lowercase();
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
    const CLIENTS: usize = 600;
    let config = format!("[connections]\ntotal_rate = 200\ntotal_burst = 200\n{ECHO}");
    let gateway = Gateway::start(&config).await;
    let mut other = Client::connect(&gateway.ws_url("/echo")).await;
    let address = gateway.address();
    let clients = (0..CLIENTS).map(|_| {
        tokio::spawn(async move {
            let mut times = 0;
            loop {
                let (status, retry, raw) = shake(address, "/echo").await.expect("an answer");
                times += 1;
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
    assert_eq!(gateway.metric("tidegate_sessions", "echo").await, (CLIENTS + 1) as f64);
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
    const ROUNDS: usize = 100;
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
    churn(ROUNDS / 4).await;
    at_base().await;
    let (files, memory) = (gateway.files(), gateway.resident());
    churn(ROUNDS).await;
    at_base().await;
    assert_eq!(other.ask("still").await, "still");
    // The admin connection that asks is one of them, or is not.
    assert!(gateway.files().abs_diff(files) <= 4, "from {files} to {} descriptors", gateway.files());
    let grown = gateway.resident().saturating_sub(memory);
    assert!(grown < 8 << 20, "{grown} bytes more after {} connections", ROUNDS * AT_ONCE);
    assert_eq!(gateway.metric("tidegate_client_addresses", "").await, 1.0);
}
