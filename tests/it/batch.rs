//! Messages that were read together go to a plugin in one call, and nobody but the plugin can tell.

use crate::support::client::{CLOSE, PING, PONG, Raw, TEXT, frame};
use crate::support::guests::{built, hooks};
use crate::support::redis::Server;
use crate::support::{Gateway, until};

const CONFIG: &str = r#"
[[topic]]
pattern = "kept:*"
history = { size = 100, ttl = "1h" }

[[route]]
name = "one"
path = "/one"
plugins = ["hooks"]
limits = { message = "8KiB" }

[[route]]
name = "passes"
path = "/passes"
plugins = ["hooks"]
echo = true

[[route]]
name = "two"
path = "/two"
plugins = ["hooks", "echo"]

[plugin.hooks.grants]
publish = ["kept:*"]
subscribe = ["kept:*"]
"#;

async fn gateway(more: &str) -> Gateway {
    let echo = built().into_iter().find(|(name, _)| name == "echo").expect("cargo xtask plugins").1;
    let guests = [("hooks", hooks()), ("echo", std::fs::read(echo).unwrap())];
    Gateway::start_with(&format!("{more}{CONFIG}"), &guests).await
}

/// Frames of these texts, to be sent at once.
fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Vec<u8> {
    texts.into_iter().flat_map(|text| frame(TEXT, text.as_ref().as_bytes())).collect()
}

async fn text(client: &mut Raw) -> String {
    let (first, payload) = client.frame().await.expect("the end");
    assert_eq!(first, TEXT, "{payload:?}");
    String::from_utf8(payload).unwrap()
}

async fn calls(gateway: &Gateway, hook: &str) -> f64 {
    gateway.metric("tidegate_plugin_calls_total", &format!("hook=\"{hook}\",plugin=\"hooks\"")).await
}

async fn failures(gateway: &Gateway, hook: &str) -> f64 {
    gateway.metric("tidegate_plugin_call_failures_total", &format!("hook=\"{hook}\",plugin=\"hooks\"")).await
}

#[tokio::test]
async fn what_comes_together_is_answered_in_its_order() {
    let gateway = gateway("").await;
    let mut client = Raw::connect(gateway.address(), "/passes").await;
    let words: Vec<_> = (0..100).map(|at| format!("pass {at}")).collect();
    let mut read = texts(&words[..50]);
    read.extend(frame(PING, b"here"));
    read.extend(texts(&words[50..]));
    client.send(&read).await;
    let (mut came, mut pongs) = (Vec::new(), 0);
    while came.len() < 100 {
        match client.frame().await.expect("the end") {
            (PONG, payload) => {
                assert_eq!(payload, b"here");
                pongs += 1;
            }
            (_, payload) => came.push(String::from_utf8(payload).unwrap()),
        }
    }
    assert_eq!((came, pongs), (words, 1));
    // A turn's calls are counted when it ends, which is after its answers have left.
    let batches = until("all batches to be counted", || async {
        let (counted, told) = (calls(&gateway, "batch").await, gateway.metric("plugin_batches", "hooks").await);
        (counted == told).then_some(counted)
    })
    .await;
    let alone = calls(&gateway, "inbound").await;
    // The kernel may have split what was sent; but it came in few pieces.
    assert!((7.0..20.0).contains(&batches) && alone < 10.0, "{batches} batches, {alone} alone");
    assert_eq!(gateway.metric("tidegate_messages_received_total", "passes").await, 100.0);
    assert_eq!(gateway.metric("tidegate_messages_sent_total", "passes").await, 100.0);

    client.send(&texts(["pass alone"])).await;
    assert_eq!(text(&mut client).await, "pass alone");
    assert_eq!(calls(&gateway, "inbound").await, alone + 1.0, "one message is no batch");
}

#[tokio::test]
async fn one_that_fails_costs_the_others_nothing() {
    let gateway = gateway("").await;
    let mut client = Raw::connect(gateway.address(), "/one").await;
    for (bad, inbound, batch) in [("fail", 1.0, 1.0), ("panic", 2.0, 2.0), ("short", 2.0, 3.0)] {
        client.send(&texts(["peer", "header a", bad, "header b", "peer"])).await;
        let answers = if bad == "short" { 5 } else { 4 };
        let mut came = Vec::new();
        for _ in 0..answers {
            came.push(text(&mut client).await);
        }
        let whats = if bad == "short" { vec!["what?"] } else { vec![] };
        let expected: Vec<_> = ["127.0.0.1", "none"].into_iter().chain(whats).chain(["none", "127.0.0.1"]).collect();
        assert_eq!(came, expected, "beside {bad}");
        assert_eq!(failures(&gateway, "inbound").await, inbound, "beside {bad}");
        assert_eq!(failures(&gateway, "batch").await, batch, "beside {bad}");
    }
    gateway.log_line(&["messages could not be handled together", "asked to fail"]).await;
    gateway.log_line(&["messages could not be handled together", "answered 4 verdicts for 5 messages"]).await;
    assert_eq!(gateway.metric("tidegate_events_failed_total", "route=\"one\"").await, 2.0);
}

#[tokio::test]
async fn what_ends_a_session_comes_after_what_was_said_before() {
    let gateway = gateway("").await;
    let close = |code: u16| frame(CLOSE, &code.to_be_bytes());
    // A close, a frame that may not be, a message that is too long, a plugin's own end.
    let ends = [
        (close(1000), 1000),
        (vec![0xf1, 0x80, 0, 0, 0, 0], 1002),
        (frame(TEXT, &[b'x'; 9000]), 1009),
        (texts(["close"]), 4000),
    ];
    for (end, code) in ends {
        let mut client = Raw::connect(gateway.address(), "/one").await;
        let mut read = texts(["header a", "header b", "header c"]);
        read.extend(end);
        client.send(&read).await;
        for _ in 0..3 {
            assert_eq!(text(&mut client).await, "none", "before {code}");
        }
        assert_eq!(client.close_code().await, Some(code));
    }
    assert!(calls(&gateway, "batch").await >= 4.0);
}

#[tokio::test]
async fn publications_keep_their_order_with_and_without_redis() {
    let server = Server::start().await;
    for more in [String::new(), format!("[redis]\nurl = \"{}\"\n", server.url())] {
        let gateway = gateway(&more).await;
        until("the link to Redis", || async { (gateway.admin("/ready").await.0 == 200).then_some(()) }).await;
        let mut client = Raw::connect(gateway.address(), "/one").await;
        client.send(&texts(["join kept:1"])).await;
        assert_eq!(text(&mut client).await, "joining");
        assert!(text(&mut client).await.starts_with("subscribed kept:1 "));
        let mut words: Vec<_> = (0..40).map(|at| format!("publish kept:1 {at}")).collect();
        words.push("peer".to_owned());
        client.send(&texts(&words)).await;
        let mut came = Vec::new();
        for _ in 0..41 {
            came.push(text(&mut client).await);
        }
        came.retain(|word| word != "127.0.0.1");
        let expected: Vec<_> = (0..40).map(|at| format!("kept:1 {} {at}", at + 1)).collect();
        assert_eq!(came, expected);
        assert!(calls(&gateway, "batch").await >= 1.0);
    }
}

#[tokio::test]
async fn where_others_hear_the_messages_too_each_comes_alone() {
    let gateway = gateway("").await;
    let mut client = Raw::connect(gateway.address(), "/two").await;
    client.send(&texts(["pass one", "pass two", "pass three"])).await;
    for word in ["pass one", "pass two", "pass three"] {
        assert_eq!(text(&mut client).await, word);
    }
    // Nor while a recording is made, in which each message is to have its own line.
    let (status, page) = gateway.admin_post("/routes/passes/record", "").await;
    assert!(status < 300, "{page}");
    let mut client = Raw::connect(gateway.address(), "/passes").await;
    client.send(&texts(["pass one", "pass two"])).await;
    for word in ["pass one", "pass two"] {
        assert_eq!(text(&mut client).await, word);
    }
    assert_eq!((calls(&gateway, "batch").await, calls(&gateway, "inbound").await), (0.0, 5.0));
}
