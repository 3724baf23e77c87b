//! The test double keeps the gateway's promises.
#![allow(clippy::unwrap_used, clippy::panic)]

mod deliveries;
mod puppet;
mod upstreams;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use puppet::Puppet;
use serde_json::json;
use tidegate_sdk::testing::{Client, Gateway, Grants, Topic};
use tidegate_sdk::{Close, Closer, Decision, Hook, Plugin, Refusal, Result, Session};
use tidegate_sdk::{config, history, log, topics};

fn gateway() -> Gateway<Puppet> {
    Gateway::new().config(json!({ "greeting": "hello" }))
}

fn enter(gateway: &Gateway<Puppet>, user: &str) -> Client<Puppet> {
    let client = gateway.connect().user(user).open().unwrap();
    assert_eq!(client.received(), ["hello"]);
    client
}

pub(crate) fn trap(act: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(act)).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap().to_string())
}

fn texts(gateway: &Gateway<Puppet>) -> Vec<String> {
    gateway.logs().into_iter().map(|line| line.message).collect()
}

#[test]
fn names_its_hooks() {
    use tidegate_sdk::Exported;
    assert_eq!(Puppet::HOOKS.len(), 8);
    assert_eq!(Puppet::HOOKS[0], Hook::Init);
}

#[test]
fn a_failed_init_is_no_gateway() {
    let error = Gateway::<Puppet>::new().start().unwrap_err();
    assert_eq!(error.message(), "init: config `greeting`");
}

#[test]
fn authenticate_admits_passes_and_refuses() {
    let gateway = gateway();
    let knock = |user: &str| gateway.connect().query("as", user).subprotocol("chat").authenticate();

    let admitted = knock("alice");
    assert_eq!((admitted.status, admitted.user.as_deref()), (101, Some("alice")));
    assert_eq!(admitted.subprotocol.as_deref(), Some("chat"));
    assert_eq!(admitted.headers, [("x-greeting".to_owned(), "hello".to_owned())]);
    assert_eq!(admitted.attributes["role"], "guest");
    assert_eq!((admitted.expiry, admitted.body), (Some(gateway.now() + 60_000), None));

    let refused = knock("refuse");
    assert_eq!(refused.decision, Ok(Decision::Refuse(418)));
    assert_eq!((refused.status, refused.attributes.len()), (418, 0));
    assert_eq!(refused.body.unwrap().1, b"no");

    assert_eq!(gateway.connect().authenticate().status, 401);
    assert_eq!(knock("empty").status, 403);
    let failed = knock("error");
    assert_eq!((failed.status, failed.headers.len()), (500, 0));
    assert_eq!(gateway.failures()[0].message, "broken");
    // It offers no subprotocol, so selecting one is refused, and the hook fails on that.
    assert_eq!(gateway.connect().query("as", "alice").authenticate().status, 500);
    assert!(gateway.connect().open().unwrap_err().message().contains("401"));
}

#[test]
fn sessions_expire() {
    let gateway = gateway();
    let alice = gateway.connect().query("as", "alice").subprotocol("chat").open().unwrap();
    gateway.advance(Duration::from_secs(59));
    assert_eq!(alice.closed(), None);
    gateway.advance(Duration::from_secs(1));
    let close = alice.closed().unwrap();
    assert_eq!((close.code, close.by), (3000, Closer::Gateway));
}

#[test]
fn a_failed_hook_has_done_nothing() {
    let gateway = gateway();
    let alice = enter(&gateway, "alice");
    assert_eq!(alice.says("fail").unwrap_err().message(), "on purpose");
    assert_eq!(alice.received().len(), 0);
    assert_eq!(alice.attribute("never"), None);
    assert_eq!(gateway.published(), []);
    assert_eq!(gateway.failures()[0].hook, "inbound");
    alice.says("publish still here").unwrap();
    assert_eq!(alice.received(), ["still here"]);
}

#[test]
fn what_comes_together_is_one_event_unless_it_fails() {
    let gateway = gateway();
    let alice = enter(&gateway, "alice");
    let verdicts = alice.says_together(["publish one", "publish two"]);
    assert!(verdicts.iter().all(Result::is_ok), "{verdicts:?}");
    assert_eq!(alice.received(), ["one", "two"]);

    let verdicts = alice.says_together(["publish three", "fail", "publish four"]);
    assert_eq!(verdicts.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(alice.received(), ["three", "four"]);
    let failed: Vec<_> = gateway.failures().into_iter().map(|failure| failure.hook).collect();
    assert_eq!(failed, ["batch", "inbound"]);
    // A refused effect takes later ones with it, of later messages too.
    gateway.broker_away(true);
    alice.says_together(["excused one", "excused two"]);
    assert_eq!(alice.received(), ["sorry", "sorry"]);
    gateway.broker_away(false);
    assert_eq!(alice.says_together(["publish alone"]).len(), 1);
    assert_eq!(alice.received(), ["alone"]);
}

#[test]
fn a_refused_publish_takes_what_comes_after_it() {
    let gateway = gateway();
    let (alice, bob) = (enter(&gateway, "alice"), enter(&gateway, "bob"));
    gateway.broker_away(true);
    bob.says("excused hello").unwrap();
    assert_eq!(bob.received(), ["sorry"]);
    assert_eq!(bob.closed(), None);
    alice.says("acknowledged hello").unwrap();
    assert_eq!(alice.received().len(), 0);
    assert_eq!(alice.closed().unwrap().code, 1013);
    gateway.broker_away(false);
    bob.says("excused hello").unwrap();
    assert_eq!(bob.received(), ["hello", "done"]);
}

#[test]
fn the_publication_hook_replaces_drops_and_refuses() {
    let gateway = gateway();
    let alice = enter(&gateway, "alice");
    alice.says("excused shout").unwrap();
    alice.says("excused drop").unwrap();
    alice.says("excused refuse").unwrap();
    assert_eq!(alice.received(), ["SHOUT", "done", "done", "sorry"]);
    assert_eq!(gateway.publish("all", "refuse"), Err(Refusal::Denied));
    assert_eq!(gateway.publish("all", "shout"), Ok(()));
    assert_eq!(alice.received(), ["SHOUT"]);
}

#[test]
fn publications_are_excluded_kept_and_made_once() {
    let gateway = gateway();
    let (alice, bob) = (enter(&gateway, "alice"), enter(&gateway, "bob"));
    alice.says("others psst").unwrap();
    assert_eq!((alice.received().len(), bob.received()), (0, vec!["psst".into()]));
    assert_eq!(gateway.history("all").len(), 0);
    alice.says("once 1").unwrap();
    alice.says("once 2").unwrap();
    gateway.advance(Duration::from_secs(301));
    alice.says("once 3").unwrap();
    assert_eq!(gateway.history("all"), ["1", "3"]);
    assert_eq!(gateway.published().iter().filter(|published| published.kept).count(), 2);
}

#[test]
fn the_acknowledgement_is_first_and_nothing_is_missed() {
    let gateway = gateway();
    let alice = enter(&gateway, "alice");
    gateway.publish("news", "old").unwrap();
    alice.says("join news").unwrap();
    // Published in the same event, before the subscription, after the history was read: recovered.
    assert_eq!(alice.received(), ["acknowledged", "too early", "delivered"]);
}

#[test]
fn histories_are_bounded_in_number_and_time() {
    let rule = Topic { history: 2, ttl: Some(Duration::from_secs(10)), presence: true };
    let gateway = gateway().topic("al*", rule).topic("*", Topic { history: 0, ..Topic::default() });
    gateway.publish("all", "1").unwrap();
    gateway.publish("all", "2").unwrap();
    gateway.advance(Duration::from_secs(6));
    gateway.publish("all", "3").unwrap();
    assert_eq!(gateway.history("all"), ["2", "3"]);
    gateway.advance(Duration::from_secs(6));
    assert_eq!(gateway.history("all"), ["3"]);
    let refused = gateway.run(|| history::last("news", 1).unwrap_err());
    assert_eq!(refused, Refusal::Unsupported);
    let since = history::Position { epoch: 1, offset: 1 };
    assert!(!gateway.run(|| history::after("all", since, 10).unwrap().complete));
    let since = history::Position { epoch: 1, offset: 2 };
    gateway.run(|| {
        let page = history::after("all", since, 10).unwrap();
        assert!(page.complete);
        assert_eq!(page.publications[0].message(), "3");
        assert_eq!(page.position.offset, 3);
    });
}

#[test]
fn presence_counts_sessions_of_users() {
    let gateway = gateway();
    let (one, two) = (enter(&gateway, "alice"), enter(&gateway, "alice"));
    one.says("who").unwrap();
    assert_eq!(one.received(), ["Counts { sessions: 2, users: 1 }"]);
    one.leaves();
    two.vanishes();
    assert_eq!(
        texts(&gateway),
        [
            r#"Joined Some("alice") 1"#,
            r#"Joined Some("alice") 2"#,
            r#"alice left ["all"]"#,
            r#"Left Some("alice") 1"#,
            r#"alice left ["all"]"#,
            r#"Left Some("alice") 0"#,
        ]
    );
    assert_eq!(gateway.members("all"), []);
    assert_eq!(two.closed().unwrap().code, 1006);
    assert!(two.says("who").is_err());
}

#[test]
fn users_and_sessions_are_reached() {
    let gateway = gateway();
    let (alice, bob, tab) = (enter(&gateway, "alice"), enter(&gateway, "bob"), enter(&gateway, "bob"));
    alice.says("whisper psst").unwrap();
    assert_eq!((bob.received(), tab.received()), (vec!["psst".into()], vec!["psst".into()]));
    alice.says(format!("kick {}", tab.id())).unwrap();
    assert_eq!(tab.closed(), Some(Close { code: 4000, reason: "out".into(), by: Closer::Plugin }));
    assert_eq!(bob.closed(), None);
    alice.says("rename bob").unwrap();
    bob.says("whisper both").unwrap();
    assert_eq!((alice.received(), bob.received()), (vec!["both".into()], vec!["both".into()]));
}

#[test]
fn a_users_sessions_are_limited_and_the_newest_or_the_oldest_stay() {
    let gateway = gateway();
    let tabs: Vec<_> = (0..3).map(|_| enter(&gateway, "ann")).collect();
    let bob = enter(&gateway, "bob");
    bob.says("newest 1").unwrap();
    tabs[0].says("newest 2").unwrap();
    tabs[1].says("newest 2").unwrap();
    assert!(tabs.iter().all(|tab| tab.closed().is_none()), "the third has not asked");
    tabs[2].says("newest 2").unwrap();
    assert_eq!(tabs[0].closed().map(|close| close.code), Some(4002));
    let late = enter(&gateway, "ann");
    late.says("oldest 2").unwrap();
    assert_eq!(late.closed().map(|close| close.code), Some(4003));
    assert!(tabs[1].closed().is_none() && tabs[2].closed().is_none() && bob.closed().is_none());
    for wrong in ["newest 0", "oldest 101"] {
        assert!(bob.says(wrong).unwrap_err().message().starts_with("invalid"), "{wrong}");
    }
}

#[test]
fn timers_run_out_once_move_and_are_cancelled() {
    let gateway = gateway();
    let alice = enter(&gateway, "alice");
    alice.says("timer a").unwrap();
    alice.says("timer b").unwrap();
    gateway.advance(Duration::from_secs(5));
    alice.says("timer a").unwrap();
    alice.says("timer c").unwrap();
    alice.says("cancel c").unwrap();
    assert_eq!(alice.timers().len(), 2);
    gateway.advance(Duration::from_secs(60));
    assert_eq!(alice.received(), ["b at 10", "a at 15"]);
    for n in 0..16 {
        alice.says(format!("timer {n}")).unwrap();
    }
    assert!(alice.says("timer 17").unwrap_err().message().starts_with("too many"));
}

#[test]
fn keys_expire_and_compare() {
    let gateway = gateway();
    let alice = enter(&gateway, "alice");
    for said in ["count", "count", "swap a", "swap b"] {
        alice.says(said).unwrap();
    }
    gateway.advance(Duration::from_secs(5));
    alice.says("count").unwrap();
    assert_eq!(alice.received(), ["1", "2", "true", "false", "1"]);
    assert_eq!(gateway.key("swap").unwrap(), b"a");
}

#[test]
fn grants_are_asked() {
    let grants = Grants { subscribe: vec!["*".into()], ..Grants::none() };
    let gateway = gateway().grants(grants);
    let alice = enter(&gateway, "alice");
    for said in ["publish a", "whisper a", "kick a", "count"] {
        assert!(alice.says(said).unwrap_err().message().starts_with("denied"), "{said}");
    }
}

#[test]
fn headers_without_a_grant_are_not_there() {
    #[derive(Default)]
    struct Headers;
    impl Plugin for Headers {
        fn opened(&self, session: Session) -> Result {
            let names: Vec<String> = session.headers().into_iter().map(|(name, _)| name).collect();
            session.send(format!("{names:?} {:?} {:?}", session.header("X-Tenant"), session.cookie("token")));
            Ok(())
        }
    }
    tidegate_sdk::export!(Headers: session);
    let seen = |headers: &[&str]| {
        let headers = headers.iter().map(|&name| name.to_owned()).collect();
        let gateway = Gateway::<Headers>::new().grants(Grants { headers, ..Grants::none() });
        let client = gateway.connect().header("X-Tenant", "blue").cookie("token", "abc").open().unwrap();
        client.received()[0].as_text().unwrap().to_owned()
    };
    assert_eq!(seen(&[]), "[] None None");
    assert_eq!(seen(&["X-Tenant"]), r#"["x-tenant"] Some("blue") None"#);
    assert_eq!(seen(&["cookie"]), r#"["cookie"] None Some("abc")"#);
    assert_eq!(seen(&["*"]), r#"["x-tenant", "cookie"] Some("blue") Some("abc")"#);
}

#[test]
fn handles_are_good_for_one_call() {
    let gateway = gateway();
    let alice = enter(&gateway, "alice");
    alice.says("keep").unwrap();
    assert!(trap(|| drop(alice.says("use"))).contains("good for one call"));
    // The gateway lives on after a trap.
    alice.says("publish on").unwrap();
    assert_eq!(alice.received(), ["on"]);
    assert!(trap(|| drop(config::get("x"))).contains("outside of a hook"));
    assert!(trap(|| drop(alice.says("close 1005"))).contains("1005"));
    assert!(trap(|| gateway.run(|| drop(topics::publish("all", "x")))).contains("may not"));
}

#[test]
fn headers_are_forgotten_unless_kept() {
    let gateway = gateway();
    let plain = gateway.connect().user("alice").header("x-kept", "1").open().unwrap();
    let kept = gateway.connect().user("alice").header("x-kept", "1").keep_header("X-Kept").open().unwrap();
    plain.says("header").unwrap();
    kept.says("header").unwrap();
    assert_eq!(
        (plain.received(), kept.received()),
        (vec!["hello".into(), "".into()], vec!["hello".into(), "1".into()])
    );
}

#[test]
fn a_close_comes_after_what_was_sent() {
    let gateway = gateway();
    let alice = enter(&gateway, "alice");
    alice.says("close 4001").unwrap();
    assert_eq!(alice.closed().unwrap().code, 4001);
    let line = &gateway.logs()[1];
    assert_eq!((line.level, line.fields[0].1.as_str()), (log::Level::Info, "4001"));
}

#[test]
fn requests_are_read() {
    #[derive(Default)]
    struct Reader;
    impl Plugin for Reader {
        fn opened(&self, session: Session) -> Result {
            assert_eq!(session.cookie("b").as_deref(), Some("2"));
            assert_eq!(session.header("Cookie").as_deref(), Some("a=1; b=2"));
            assert_eq!(session.raw_query(), "q=%C3%A4%20b");
            session.send(format!("{} {} {}", session.method(), session.path(), session.peer_address()));
            Ok(())
        }
    }
    tidegate_sdk::export!(Reader: session);
    let gateway = Gateway::<Reader>::new();
    let reader = gateway.connect().cookie("a", "1").cookie("b", "2").query("q", "ä b").path("/x").peer("10.0.0.1");
    assert_eq!(reader.open().unwrap().received(), ["GET /x 10.0.0.1"]);
}

#[test]
fn a_random_plugin_can_be_tested_twice() {
    let sequence = || {
        let gateway = gateway();
        let alice = enter(&gateway, "alice");
        alice.says("random").unwrap();
        alice.says("random").unwrap();
        alice.received()
    };
    let first = sequence();
    assert_eq!(first, sequence());
    assert_ne!(first[0], first[1]);
    assert_eq!(first[0].len(), 9);
}

#[test]
fn attributes_are_bounded() {
    let gateway = gateway();
    let alice = enter(&gateway, "alice");
    alice.says(format!("attribute {}", "x".repeat(4096))).unwrap();
    assert_eq!(alice.attribute("a").unwrap().len(), 4096);
    assert!(alice.says(format!("attribute {}", "x".repeat(4097))).unwrap_err().message().starts_with("too large"));
}
