//! Upstreams, which the test plays, and the plugin's own metrics.

use std::time::Duration;

use tidegate_sdk::testing::{Client, Forwarded, Gateway, Grants};
use tidegate_sdk::upstream::{self, Failure, Response};
use tidegate_sdk::{Context, Message, Plugin, Refusal, Result, Session, Verdict, metrics};

use crate::trap;

/// Asks `shop` for whatever the client says, and tells it the answer.
#[derive(Default)]
struct Counter;

impl Plugin for Counter {
    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        let text = message.as_text().context("text only")?;
        metrics::count(&metrics::series("said_total", &[("word", text)]), 1);
        match text {
            "note" => {
                upstream::forward(session, "shop", "a note")?.header("X-Kind", "note")?;
            }
            "bell" => {
                upstream::request(session, "bell", "t", "ring")?;
            }
            "slow" => {
                upstream::request(session, "shop", "slow", "slow")?.timeout(Duration::from_secs(2));
            }
            "headers" => {
                let mut request = upstream::request(session, "shop", "t", "many headers")?;
                for number in 0..33 {
                    request = request.header(&format!("x-{number}"), "value").context("32 are enough")?;
                }
            }
            "fail" => {
                upstream::forward(session, "shop", "never")?;
                metrics::gauge("failed", 1.5);
                return Err("on purpose".into());
            }
            "long tag" => {
                upstream::request(session, "shop", &"t".repeat(256), "x")?;
            }
            "odd header" => {
                upstream::forward(session, "shop", "x")?.header("x y", "z")?;
            }
            _ => {
                upstream::request(session, "shop", &format!("tag of {text}"), message)?;
            }
        }
        session.send("asked");
        Ok(Verdict::Stop)
    }

    fn reply(&self, session: Session, tag: &str, reply: Result<Response, Failure>) -> Result {
        let reply = reply.inspect_err(|_| session.send("the shop is closed"))?;
        metrics::observe("answer_bytes", reply.body.len() as f64);
        session.send(format!("{tag}: {} {}", reply.status, reply.is_success()));
        session.send(reply.body);
        Ok(())
    }
}

tidegate_sdk::export!(Counter: inbound, reply);

fn enter() -> (Gateway<Counter>, Client<Counter>) {
    let gateway = Gateway::new().upstream("shop");
    let client = gateway.connect().user("alice").open().unwrap();
    (gateway, client)
}

fn one(gateway: &Gateway<Counter>) -> Forwarded {
    let [one] = gateway.forwarded().try_into().unwrap();
    one
}

#[test]
fn a_request_is_answered_by_the_test() {
    let (gateway, alice) = enter();
    alice.says("tea").unwrap();
    let request = one(&gateway);
    assert_eq!((request.upstream.as_str(), request.session.as_str()), ("shop", alice.id()));
    assert_eq!((request.tag.as_deref(), &request.message), (Some("tag of tea"), &"tea".into()));
    gateway.reply(&request, Ok(Response::new(200, "one cup"))).unwrap();
    assert_eq!(alice.received(), ["asked", "tag of tea: 200 true", "one cup"]);
    assert_eq!(gateway.observations("answer_bytes"), [7.0]);
    let again = gateway.reply(&request, Ok(Response::new(200, "another"))).unwrap_err();
    assert!(again.message().contains("has its answer"));
}

#[test]
fn a_note_has_no_answer() {
    let (gateway, alice) = enter();
    alice.says("note").unwrap();
    let note = one(&gateway);
    assert_eq!((note.tag.as_deref(), note.timeout), (None, None));
    assert_eq!(note.headers, [("x-kind".to_owned(), "note".to_owned())]);
    assert!(trap(|| drop(gateway.reply(&note, Ok(Response::new(200, ""))))).contains("nobody waits"));
}

#[test]
fn a_failure_fails_the_event_and_nothing_of_it_is_done() {
    let (gateway, alice) = enter();
    alice.says("tea").unwrap();
    let error = gateway.reply(&one(&gateway), Err(Failure::Broken)).unwrap_err();
    assert!(error.message().starts_with("broken"));
    assert_eq!(gateway.failures()[0].hook, "reply");
    assert_eq!(alice.received(), ["asked"]);
    alice.says("fail").unwrap_err();
    assert_eq!(gateway.forwarded(), []);
    // Metrics are no effects.
    assert_eq!(gateway.gauge("failed"), Some(1.5));
}

#[test]
fn requests_run_out_and_end_with_their_session() {
    let (gateway, alice) = enter();
    alice.says("slow").unwrap();
    let slow = one(&gateway);
    assert_eq!(slow.timeout, Some(Duration::from_secs(2)));
    gateway.advance(Duration::from_millis(1999));
    assert_eq!(gateway.failures(), []);
    gateway.advance(Duration::from_millis(1));
    assert!(gateway.failures()[0].message.starts_with("timeout"));
    gateway.reply(&slow, Ok(Response::new(200, "too late"))).unwrap_err();

    alice.says("tea").unwrap();
    alice.leaves();
    gateway.reply(&one(&gateway), Ok(Response::new(200, "nobody is here"))).unwrap();
    assert_eq!(alice.received(), ["asked", "asked"]);
}

#[test]
fn refusals() {
    let (gateway, alice) = enter();
    let refused = |said: &str| alice.says(said).unwrap_err().message().to_owned();
    assert!(refused("bell").starts_with("unsupported"));
    assert!(refused("headers").starts_with("32 are enough: too many"));
    assert!(refused("long tag").starts_with("too large"));
    assert!(refused("odd header").starts_with("invalid"));
    gateway.upstream_away("shop", true);
    alice.says("tea").unwrap();
    let close = alice.closed().unwrap();
    assert_eq!((close.code, close.reason), (1013, Refusal::Unavailable.to_string()));
    assert_eq!(gateway.forwarded(), []);

    let denied = Gateway::<Counter>::new().upstream("shop").grants(Grants::none());
    let bob = denied.connect().open().unwrap();
    assert!(bob.says("tea").unwrap_err().message().starts_with("denied"));
}

#[test]
fn metrics_are_counted() {
    let (gateway, alice) = enter();
    for said in ["tea", "tea", "a \"cup\"\n", "fail"] {
        let _ = alice.says(said);
    }
    assert_eq!(gateway.counter(r#"said_total{word="tea"}"#), 2);
    assert_eq!(gateway.counter(r#"said_total{word="fail"}"#), 1);
    assert_eq!(gateway.counter("said_total{word=\"a \\\"cup\\\"\\n\"}"), 1);
    assert_eq!((gateway.counter("never"), gateway.gauge("never"), gateway.observations("never").len()), (0, None, 0));
    gateway.run(|| metrics::gauge("failed", 2.0));
    assert_eq!(gateway.gauge("failed"), Some(2.0));
    for series in ["", "1a", "a b", "a{", "a{b}", "a{b=\"c}", "a{b=\"c\"}x", "a{1=\"c\"}", "a{b=\"c\"d=\"e\"}"] {
        assert!(trap(|| gateway.run(|| metrics::count(series, 1))).contains("not a series"), "{series}");
    }
    assert!(trap(|| gateway.run(|| metrics::count("failed", 1))).contains("no counter"));
    gateway.run(|| (0..2000).for_each(|n| metrics::count(&format!("n{n}"), 1)));
    assert_eq!((gateway.counter("n900"), gateway.counter("n1999")), (1, 0));
    gateway.run(|| metrics::gauge("failed", 3.0));
    assert_eq!(gateway.gauge("failed"), Some(3.0));
}
