//! Presence of several nodes: seen everywhere, told once and in one order, also when a node dies, freezes or leaves, and
//! when Redis forgets. Rows 20, 23 and 24 of the table of faults, as far as they concern presence.

use std::time::{Duration, Instant};

use redis::Value;

use crate::support::client::Client;
use crate::support::nodes::{come, connect, join, node, ready};
use crate::support::redis::{Server, is_installed};
use crate::support::{Gateway, until};

/// A user who is seen on `seen:x`.
async fn here(gateway: &Gateway, user: &str, info: &str) -> Client {
    let (mut client, _) = come(gateway, &format!("refuse?user={user}")).await;
    let told = client.ask(&format!("here seen:x {info}")).await;
    assert!(told.starts_with("subscribed seen:x"), "{told}");
    client
}

async fn leave(client: &mut Client) {
    assert_eq!(client.ask("leave seen:x").await, "left");
}

/// The next one who came or left, without the offset before it, once that is checked.
async fn seen(client: &mut Client, offset: &mut u64) -> String {
    *offset += 1;
    let text = client.text().await;
    let told = text.strip_prefix(&format!("log:seen {offset} ")).unwrap_or_else(|| panic!("{offset}: {text}"));
    told.to_owned()
}

async fn who(client: &mut Client, expected: &str) {
    let last = std::cell::RefCell::new(String::new());
    let client = tokio::sync::Mutex::new(client);
    let matches = || async {
        let answer = client.lock().await.ask("who seen:x").await;
        let same = answer == expected;
        *last.borrow_mut() = answer;
        same.then_some(())
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), until("the members", matches)).await;
    assert!(waited.is_ok(), "{} instead of {expected}", last.borrow());
}

#[tokio::test]
async fn members_are_seen_on_every_node_and_their_changes_are_told_once_in_one_order() {
    if !is_installed("presence across nodes") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut log_a, _) = join(&a, "log:seen").await;
    let (mut log_b, _) = join(&b, "log:seen").await;
    let mut expected = Vec::new();
    for round in 0..20 {
        // The second tab comes when the first one is known, and goes last: exactly one of each is the user's.
        let mut first = here(&a, "ann", "a").await;
        let mut second = here(&b, "ann", "b").await;
        let mut bob = here(if round % 2 == 0 { &a } else { &b }, "bob", "c").await;
        assert_eq!(first.ask("who seen:x").await, "3 2 ann,ann,bob");
        assert_eq!(second.ask("who seen:x").await, "3 2 ann,ann,bob");
        leave(&mut first).await;
        who(&mut bob, "2 2 ann,bob").await;
        leave(&mut second).await;
        who(&mut first, "1 1 bob").await;
        leave(&mut bob).await;
        who(&mut first, "0 0 ").await;
        expected.extend(["+ann-a-1", "+ann-b-2", "+bob-c-1", "-ann-a-1", "-ann-b-0", "-bob-c-0"]);
    }
    for log in [&mut log_a, &mut log_b] {
        let mut offset = 0;
        for change in &expected {
            assert_eq!(seen(log, &mut offset).await, *change);
        }
    }
    for gateway in [&a, &b] {
        assert_eq!(gateway.metric("tidegate_presence_behind", "").await, 0.0);
    }
}

#[tokio::test]
async fn the_members_of_a_node_that_is_killed_leave_once_each_within_the_lease() {
    if !is_installed("presence of a node that is killed") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut log, _) = join(&b, "log:seen").await;
    let mut bob = here(&b, "bob", "b").await;
    let mut tabs = Vec::new();
    for number in 0..10 {
        tabs.push(here(&a, &format!("user{}", number / 2), "a").await);
    }
    tabs.push(here(&b, "user4", "b").await);
    assert_eq!(bob.ask("who seen:x").await.split(' ').take(2).collect::<Vec<_>>(), ["12", "6"]);
    let mut offset = 0;
    for _ in 0..12 {
        assert!(seen(&mut log, &mut offset).await.starts_with('+'));
    }
    let killed = Instant::now();
    drop(a);
    let (mut left, mut again) = (Vec::new(), Vec::new());
    while left.len() < 10 {
        let change = seen(&mut log, &mut offset).await;
        if change.starts_with('+') { &mut again } else { &mut left }.push(change);
    }
    // What the dead node was telling when it died is told again (docs/decisions/0019-presence.md).
    assert!(again.len() <= 1, "{again:?}");
    // The lease, a quarter of it until the next node looks, and what a busy machine takes.
    assert!(killed.elapsed() < Duration::from_secs(2 + 1 + 5), "{:?}", killed.elapsed());
    left.sort();
    let expected = (0..4).flat_map(|user| [format!("-user{user}-a-0"), format!("-user{user}-a-1")]);
    let mut expected: Vec<_> = expected.chain(["-user4-a-1".to_owned(), "-user4-a-2".to_owned()]).collect();
    expected.sort();
    assert_eq!(left, expected);
    assert_eq!(bob.ask("who seen:x").await, "2 2 bob,user4");
    b.log_line(&["its members have left"]).await;
    // And no word after it but this.
    leave(&mut bob).await;
    assert_eq!(seen(&mut log, &mut offset).await, "-bob-b-0");
}

#[tokio::test]
async fn a_node_that_leaves_takes_its_members_along_at_once() {
    if !is_installed("presence of a node that leaves") {
        return;
    }
    let server = Server::start().await;
    let (mut a, b) = (node(&server).await, node(&server).await);
    let (mut log, _) = join(&b, "log:seen").await;
    let mut bob = here(&b, "bob", "b").await;
    let _ann = here(&a, "ann", "a").await;
    a.terminate();
    assert!(a.ended().await.success());
    assert_eq!(bob.ask("who seen:x").await, "1 1 bob", "when it has ended they are gone");
    let mut offset = 0;
    for change in ["+bob-b-1", "+ann-a-1", "-ann-a-0"] {
        assert_eq!(seen(&mut log, &mut offset).await, change);
    }
    assert!(!b.logged(&["its members have left"]), "nothing of it had to be cleared away");
}

#[tokio::test]
async fn a_node_that_was_frozen_comes_back_with_those_who_are_still_there() {
    if !is_installed("presence of a node that freezes") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let (mut log, _) = join(&b, "log:seen").await;
    let mut bob = here(&b, "bob", "b").await;
    let mut ann = here(&a, "ann", "a").await;
    let gone = here(&a, "eve", "a").await;
    // What a node was telling when it froze is told again.
    let told =
        || async { matches!(server.ask(&["EXISTS", "tidegate:{seen:x}:p:teller"]).await, Value::Int(0)).then_some(()) };
    until("all to be told", told).await;
    a.freeze();
    who(&mut bob, "1 1 bob").await;
    drop(gone);
    a.thaw();
    a.log_line(&["says again who is on its topics"]).await;
    who(&mut bob, "2 2 ann,bob").await;
    assert_eq!(ann.ask("who seen:x").await, "2 2 ann,bob");
    leave(&mut ann).await;
    who(&mut bob, "1 1 bob").await;
    let mut offset = 0;
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "-ann-a-0")
        || told.iter().filter(|told| *told == "-ann-a-0").count() < 2
    {
        told.push(seen(&mut log, &mut offset).await);
    }
    let of =
        |user: &str| told.iter().filter(|told| told[1..].starts_with(user)).map(|told| &told[..1]).collect::<String>();
    assert_eq!(of("bob"), "+");
    assert_eq!(of("ann"), "+-+-", "she left with the node, and came back with it");
    assert!(["+-", "+-+-"].contains(&&*of("eve")), "{told:?}");
}

#[tokio::test]
async fn presence_is_rebuilt_when_redis_comes_back_empty_and_nobody_is_told_twice() {
    if !is_installed("presence in a Redis that was flushed") {
        return;
    }
    let mut server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    let mut bob = here(&b, "bob", "b").await;
    let mut ann = here(&a, "ann", "a").await;
    let mut eve = here(&a, "eve", "a").await;
    // Those on the topic hear of the gap when Redis has forgotten it: others ask.
    let (mut on_a, mut on_b) = (connect(&a, "refuse").await, connect(&b, "refuse").await);
    assert_eq!(bob.ask("who seen:x").await, "3 3 ann,bob,eve");
    server.ask(&["FLUSHALL"]).await;
    who(&mut on_b, "3 3 ann,bob,eve").await;
    server.kill().await;
    assert_eq!(on_a.ask("who seen:x").await, "nobody knows: true");
    eve.send("leave seen:x").await;
    while eve.text().await != "left" {}
    server.restart().await;
    ready(&a).await;
    ready(&b).await;
    who(&mut on_a, "2 2 ann,bob").await;
    who(&mut on_b, "2 2 ann,bob").await;
    ann.send("leave seen:x").await;
    while ann.text().await != "left" {}
    // The history is new too: what it holds was told after Redis came back.
    who(&mut on_b, "1 1 bob").await;
    let told = on_b.ask("join log:seen").await;
    assert!(told.ends_with(" 2"), "eve and ann have left, and that was all: {told}");
}
