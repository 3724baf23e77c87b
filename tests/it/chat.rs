//! The chat plugin, by its protocol: rooms, presence, direct messages, history, and errors that are messages.

use serde_json::{Value, json};

use crate::support::Gateway;
use crate::support::client::Client;

const CONFIG: &str = r#"
[[topic]]
pattern = "room:*"
history = { size = 5, ttl = "1h" }
presence = true

[[route]]
name = "chat"
path = "/chat/{room}"
plugins = ["jwt-auth", "chat"]
topics = ["room:*"]

[plugin.jwt-auth.grants]
headers = ["authorization", "cookie"]

[plugin.jwt-auth.config]
secret = "0123456789abcdef0123456789abcdef"

[plugin.chat.grants]
publish = ["room:*"]
subscribe = ["room:*"]
users = true
"#;

/// Comes in, and returns what the welcome says.
async fn enter(gateway: &Gateway, user: &str, room: &str) -> (Client, Value) {
    let token = gateway.token(user);
    let mut client = Client::connect(&gateway.ws_url(&format!("/chat/{room}?token={token}"))).await;
    let welcome = client.json().await;
    assert_eq!(welcome["type"], "welcome", "the welcome comes first: {welcome}");
    (client, welcome)
}

async fn say(client: &mut Client, text: &str) {
    client.send_json(json!({ "type": "say", "text": text })).await;
}

/// Everything up to a message with this text, which is the last.
async fn read_to(client: &mut Client, text: &str) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        all.push(client.json().await);
        if all.last().is_some_and(|last| last["type"] == "message" && last["text"] == text) {
            return all;
        }
    }
}

fn of_types<'a>(all: &'a [Value], types: &[&str]) -> Vec<(&'a str, &'a str)> {
    let named = |value: &'a Value| (value["type"].as_str().unwrap(), value["user"].as_str().unwrap_or_default());
    all.iter().map(named).filter(|(kind, _)| types.contains(kind)).collect()
}

fn sorted(members: &Value) -> Vec<&str> {
    let mut names: Vec<_> = members.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn two_users_chat() {
    let gateway = Gateway::start(CONFIG).await;
    let (mut alice, welcome) = enter(&gateway, "alice", "blue").await;
    assert_eq!((&welcome["user"], &welcome["room"]), (&json!("alice"), &json!("blue")));
    assert_eq!(welcome["history"], json!([]));
    assert_eq!(sorted(&welcome["members"]), ["alice"]);
    let (mut bob, welcome) = enter(&gateway, "bob", "blue").await;
    assert_eq!(sorted(&welcome["members"]), ["alice", "bob"]);
    assert_eq!(alice.json_of_type("joined").await["user"], "bob");

    say(&mut alice, "hello, \"bob\" \u{1f44b}").await;
    let heard = bob.json_of_type("message").await;
    assert_eq!(heard["text"], "hello, \"bob\" \u{1f44b}");
    assert_eq!((&heard["user"], &heard["room"]), (&json!("alice"), &json!("blue")));
    assert!(heard["at"].as_u64().is_some_and(|at| at > 1_600_000_000_000), "{heard}");
    assert_eq!(alice.json_of_type("message").await, heard, "the sender sees what the others see");
    say(&mut bob, "hello, alice").await;
    let answer = alice.json_of_type("message").await;
    assert_eq!((&answer["user"], &answer["text"]), (&json!("bob"), &json!("hello, alice")));
    assert_ne!(answer["id"], heard["id"]);

    // Another room is another world.
    let (mut carol, welcome) = enter(&gateway, "carol", "green").await;
    assert_eq!((sorted(&welcome["members"]), &welcome["history"]), (vec!["carol"], &json!([])));
    say(&mut carol, "echo?").await;
    read_to(&mut carol, "echo?").await;
    say(&mut alice, "still blue").await;
    let seen = read_to(&mut bob, "still blue").await;
    assert!(seen.iter().all(|one| one["text"] != "echo?"), "{seen:?}");

    assert_eq!(gateway.metric("tidegate_sessions", "chat").await, 3.0);
    assert_eq!(gateway.metric("tidegate_publications_refused_total", "").await, 0.0);
    assert_eq!(gateway.metric("tidegate_events_failed_total", "").await, 0.0);
}

#[tokio::test]
async fn several_tabs_are_one_member() {
    let gateway = Gateway::start(CONFIG).await;
    let (mut bob, _) = enter(&gateway, "bob", "blue").await;
    let (tab1, _) = enter(&gateway, "alice", "blue").await;
    let (mut tab2, welcome) = enter(&gateway, "alice", "blue").await;
    assert_eq!(sorted(&welcome["members"]), ["alice", "bob"]);

    tab1.close().await;
    // What is told of a topic is told in order: with carol's joining, all before it has been told.
    let (mut carol, welcome) = enter(&gateway, "carol", "blue").await;
    assert_eq!(sorted(&welcome["members"]), ["alice", "bob", "carol"]);
    carol.send_json(json!({ "type": "who" })).await;
    assert_eq!(sorted(&carol.json_of_type("members").await["members"]), ["alice", "bob", "carol"]);
    say(&mut tab2, "one tab left").await;
    read_to(&mut carol, "one tab left").await;

    tab2.close().await;
    let (mut dave, welcome) = enter(&gateway, "dave", "blue").await;
    assert_eq!(sorted(&welcome["members"]), ["bob", "carol", "dave"]);
    let mut told = Vec::new();
    while told.last() != Some(&("joined".to_owned(), "dave".to_owned())) {
        let one = bob.json().await;
        let (kind, user) = (one["type"].as_str().unwrap(), one["user"].as_str().unwrap_or_default());
        if matches!(kind, "joined" | "left") && user != "bob" {
            told.push((kind.to_owned(), user.to_owned()));
        }
    }
    let expected = [("joined", "alice"), ("joined", "carol"), ("left", "alice"), ("joined", "dave")];
    assert_eq!(told, expected.map(|(kind, user)| (kind.to_owned(), user.to_owned())));
    dave.send_json(json!({ "type": "who" })).await;
    assert_eq!(sorted(&dave.json_of_type("members").await["members"]), ["bob", "carol", "dave"]);
    assert_eq!(gateway.metric("tidegate_sessions", "chat").await, 3.0);
    assert_eq!(gateway.metric("tidegate_presence_changes_dropped_total", "").await, 0.0);
}

#[tokio::test]
async fn who_joins_reads_the_last_messages() {
    let gateway = Gateway::start(CONFIG).await;
    let (mut alice, _) = enter(&gateway, "alice", "blue").await;
    let mut said = Vec::new();
    for number in 0..8 {
        say(&mut alice, &format!("message {number}")).await;
        said.push(alice.json_of_type("message").await);
    }
    alice.close().await;
    let (_, welcome) = enter(&gateway, "bob", "blue").await;
    let history: Vec<_> = welcome["history"].as_array().unwrap().iter().collect();
    assert_eq!(history.len(), 5, "{welcome}");
    for (kept, said) in history.iter().zip(&said[3..]) {
        for key in ["id", "user", "text", "at"] {
            assert_eq!(kept[key], said[key], "{key}: what is kept is what was said");
        }
    }
    assert_eq!(sorted(&welcome["members"]), ["bob"], "who has left is no member");
}

#[tokio::test]
async fn a_direct_message_reaches_every_tab_of_one_user() {
    let gateway = Gateway::start(CONFIG).await;
    let (mut tab1, _) = enter(&gateway, "alice", "blue").await;
    let (mut tab2, _) = enter(&gateway, "alice", "green").await;
    let (mut bob, _) = enter(&gateway, "bob", "blue").await;
    let (mut carol, _) = enter(&gateway, "carol", "blue").await;
    bob.send_json(json!({ "type": "direct", "to": "alice", "text": "only for you" })).await;
    for tab in [&mut tab1, &mut tab2] {
        let direct = tab.json_of_type("direct").await;
        assert_eq!((&direct["user"], &direct["text"]), (&json!("bob"), &json!("only for you")));
        assert!(direct["at"].is_u64(), "{direct}");
    }
    say(&mut bob, "for all").await;
    let seen = read_to(&mut carol, "for all").await;
    assert!(seen.iter().all(|one| one["type"] != "direct"), "carol reads what is not for her: {seen:?}");
}

#[tokio::test]
async fn typing_is_told_to_the_others() {
    let gateway = Gateway::start(CONFIG).await;
    let (mut alice, _) = enter(&gateway, "alice", "blue").await;
    let (mut bob, _) = enter(&gateway, "bob", "blue").await;
    alice.send_json(json!({ "type": "typing" })).await;
    say(&mut alice, "typed").await;
    assert_eq!(
        of_types(&read_to(&mut bob, "typed").await, &["typing", "message"]),
        [("typing", "alice"), ("message", "alice")]
    );
    assert_eq!(of_types(&read_to(&mut alice, "typed").await, &["typing", "message"]), [("message", "alice")]);
    // A notice is not history.
    let (_, welcome) = enter(&gateway, "carol", "blue").await;
    assert_eq!(of_types(welcome["history"].as_array().unwrap(), &["typing", "message"]), [("message", "alice")]);
}

#[tokio::test]
async fn mistakes_are_answered_and_change_nothing() {
    let gateway = Gateway::start(CONFIG).await;
    let (mut alice, _) = enter(&gateway, "alice", "blue").await;
    let (mut bob, _) = enter(&gateway, "bob", "blue").await;
    let mistakes = [
        ("no json".to_owned(), "bad_json"),
        ("[]".to_owned(), "bad_json"),
        ("{}".to_owned(), "unknown_type"),
        (json!({ "type": "shout", "text": "x" }).to_string(), "unknown_type"),
        (json!({ "type": "say" }).to_string(), "missing_text"),
        (json!({ "type": "say", "text": 3 }).to_string(), "bad_field"),
        (json!({ "type": "say", "text": " " }).to_string(), "empty_text"),
        (json!({ "type": "say", "text": "x".repeat(4001) }).to_string(), "too_long"),
        (json!({ "type": "direct", "text": "to nobody" }).to_string(), "missing_to"),
        (json!({ "type": "direct", "to": "mallory", "text": "x" }).to_string(), "unknown_user"),
    ];
    for (mistake, code) in mistakes {
        alice.send(&mistake).await;
        let error = alice.json_of_type("error").await;
        assert_eq!(error["code"], code, "{mistake}: {error}");
        assert!(error["text"].as_str().is_some_and(|text| text.ends_with('.')), "{mistake}: {error}");
    }
    alice.send_binary(&[0, 159, 146, 150]).await;
    assert_eq!(alice.json_of_type("error").await["code"], "text_only");
    say(&mut alice, "none the worse").await;
    let seen = read_to(&mut bob, "none the worse").await;
    assert_eq!(of_types(&seen, &["error", "message", "direct"]), [("message", "alice")]);
    assert_eq!(
        gateway.metric("tidegate_events_failed_total", "").await,
        0.0,
        "a client's mistake is no plugin's failure"
    );
}
