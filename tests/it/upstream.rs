//! Upstreams: messages that plugins hand to backends, and their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::Gateway;
use crate::support::client::Client;
use crate::support::guests::hooks;

fn config(url: &str, more: &str) -> String {
    format!(
        "[[upstream]]\nname = \"back\"\nurl = \"{url}\"\ntimeout = \"1s\"\nbreaker_failures = 2\nbreaker_pause = \"200ms\"\n\
         response = \"1KiB\"\nheaders = {{ authorization = \"Bearer of the operator\" }}\n{more}\n\
         [[route]]\nname = \"r\"\npath = \"/r\"\nplugins = [\"hooks\"]\nupstream = \"back\"\n\
         [plugin.hooks.grants]\nupstreams = [\"back\"]\nusers = true\n"
    )
}

/// Answers each request by its body: "big", "bad" (500), "late" (never), anything else with itself. Tells what came.
async fn backend() -> (String, mpsc::UnboundedReceiver<String>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let (tell, told) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                loop {
                    let head_end = loop {
                        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                            break at + 4;
                        }
                        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                            return;
                        }
                    };
                    let head = String::from_utf8_lossy(&read[..head_end]).to_ascii_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
                    while read.len() < head_end + length {
                        stream.read_buf(&mut read).await.unwrap();
                    }
                    let body = String::from_utf8(read[head_end..head_end + length].to_vec()).unwrap();
                    read.drain(..head_end + length);
                    tell.send(format!("{head}{body}")).unwrap();
                    let (status, answer) = match body.as_str() {
                        "late" => std::future::pending().await,
                        "big" => (200, "x".repeat(5000)),
                        "bad" => (500, "broken".to_owned()),
                        _ => (200, body),
                    };
                    let answer = format!(
                        "HTTP/1.1 {status} Word\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{answer}",
                        answer.len()
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (url, told, connections)
}

#[tokio::test]
async fn answers_come_back_in_the_order_of_the_session() {
    let (url, mut told, connections) = backend().await;
    let gateway = Gateway::start_with(&config(&url, ""), &[("hooks", hooks())]).await;
    let mut client = Client::connect(&gateway.ws_url("/r")).await;
    for n in 0..20 {
        client.send(&format!("ask t{n} hello-{n}")).await;
    }
    for n in 0..20 {
        assert_eq!(client.text().await, format!("t{n}: 200 hello-{n}"));
    }
    let first = told.recv().await.unwrap();
    assert!(first.starts_with("post /events http/1.1\r\n"), "{first}");
    for header in ["x-word: yes", "authorization: bearer of the operator", "tidegate-session: "] {
        assert!(first.contains(header), "{header}: {first}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1, "connections are used again");
    assert_eq!(gateway.metric("tidegate_upstream_requests_total", "outcome=\"200\"").await, 20.0);
}

#[tokio::test]
async fn what_passes_the_chain_goes_to_the_routes_upstream() {
    let (url, mut told, _) = backend().await;
    let gateway = Gateway::start_with(&config(&url, ""), &[("hooks", hooks())]).await;
    let mut client = Client::connect(&gateway.ws_url("/r")).await;
    client.send("pass this").await;
    assert!(told.recv().await.unwrap().ends_with("\r\n\r\npass this"));
}

#[tokio::test]
async fn failures_have_names_and_open_the_breaker() {
    let (url, _told, _) = backend().await;
    let gateway = Gateway::start_with(&config(&url, ""), &[("hooks", hooks())]).await;
    let mut client = Client::connect(&gateway.ws_url("/r")).await;
    assert_eq!(client.ask("ask a big").await, "a: TooLarge");
    assert_eq!(client.ask("ask b bad").await, "b: 500 broken");
    assert_eq!(client.ask("ask c late").await, "c: Timeout");
    assert_eq!(client.ask("ask d hello").await, "refused", "two failures in a row have opened the breaker");
    // It is tried again after its pause; nothing tells when that is over but an attempt.
    let mut answer = client.ask("ask e hello").await;
    while answer == "refused" {
        answer = client.ask("ask e hello").await;
    }
    assert_eq!(answer, "e: 200 hello");
    assert_eq!(client.ask("ask f hello").await, "f: 200 hello");
    gateway.log_line(&["the upstream has failed too often", "back"]).await;
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_unavailable_and_a_full_queue_refuses() {
    let (url, mut told, _) = backend().await;
    let gateway = Gateway::start_with(&config(&url, "queue = 1\n"), &[("hooks", hooks())]).await;
    let mut client = Client::connect(&gateway.ws_url("/r")).await;
    client.send("ask a late").await;
    told.recv().await.unwrap();
    assert_eq!(client.ask("ask b hello").await, "refused");
    assert_eq!(client.text().await, "a: Timeout");
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", gone.local_addr().unwrap());
    drop(gone);
    let gateway = Gateway::start_with(&config(&url, ""), &[("hooks", hooks())]).await;
    let mut client = Client::connect(&gateway.ws_url("/r")).await;
    assert_eq!(client.ask("ask a hello").await, "a: Unavailable");
}
