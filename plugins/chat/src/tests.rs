//! The chat, as its clients see it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_sdk::testing::{Client, Connect, Gateway, Grants, Topic};
use tidegate_sdk::{Message, Result, Verdict};

use super::Chat;

fn chat() -> Gateway<Chat> {
    Gateway::new().topic("room:*", Topic { history: 3, ttl: None, presence: true })
}

fn knock(gateway: &Gateway<Chat>, user: &str, room: &str) -> Connect<Chat> {
    gateway.connect().route("chat").param("room", room).user(user)
}

/// Somebody who has come in and read the welcome.
fn enter(gateway: &Gateway<Chat>, user: &str) -> Result<Client<Chat>> {
    let client = knock(gateway, user, "blue").open()?;
    client.received();
    Ok(client)
}

/// What was heard, without what no test can know in advance.
fn heard(client: &Client<Chat>) -> Vec<Value> {
    let mut all = client.received_json();
    for id in all.iter_mut().filter_map(|message| message.get_mut("id")) {
        *id = json!("…");
    }
    all
}

fn error_code(client: &Client<Chat>) -> String {
    let heard = client.received_json();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0]["type"], "error");
    assert!(heard[0]["text"].as_str().is_some_and(|text| !text.is_empty()));
    heard[0]["code"].as_str().unwrap().to_owned()
}

#[test]
fn two_users_talk() -> Result {
    let gateway = chat();
    let alice = knock(&gateway, "alice", "blue").open()?;
    assert_eq!(
        alice.received_json(),
        [json!({ "type": "welcome", "user": "alice", "room": "blue", "members": ["alice"], "history": [] })]
    );

    let bob = knock(&gateway, "bob", "blue").open()?;
    assert_eq!(
        bob.received_json(),
        [json!({ "type": "welcome", "user": "bob", "room": "blue", "members": ["alice", "bob"], "history": [] })]
    );
    assert_eq!(alice.received_json(), [json!({ "type": "joined", "user": "bob" })]);

    assert_eq!(alice.says_json(&json!({ "type": "say", "text": "hello" }))?, Verdict::Stop);
    let hello = [json!({
        "type": "message", "id": "…", "user": "alice", "room": "blue", "text": "hello", "at": gateway.now(),
    })];
    assert_eq!(heard(&alice), hello);
    assert_eq!(heard(&bob), hello);

    bob.leaves();
    assert_eq!(alice.received_json(), [json!({ "type": "left", "user": "bob" })]);
    Ok(())
}

#[test]
fn rooms_are_apart() -> Result {
    let gateway = chat();
    let alice = enter(&gateway, "alice")?;
    let bob = knock(&gateway, "bob", "red").open()?;
    bob.received();
    alice.says_json(&json!({ "type": "say", "text": "hello" }))?;
    assert_eq!(bob.received().len(), 0);
    assert_eq!(alice.received().len(), 1);
    Ok(())
}

#[test]
fn those_who_join_read_the_last_messages_as_they_were() -> Result {
    let gateway = chat();
    let alice = enter(&gateway, "alice")?;
    for text in ["one", "two", "three", "four"] {
        alice.says_json(&json!({ "type": "say", "text": text }))?;
        alice.says_json(&json!({ "type": "typing" }))?;
        gateway.advance(Duration::from_millis(5));
    }
    let published = alice.received_json();
    gateway.publish("room:blue", "no JSON").unwrap();

    let bob = knock(&gateway, "bob", "blue").open()?;
    let heard = bob.received_json();
    // Three are kept, of which the last is no message of the chat. And nothing comes twice.
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0]["history"], json!(published[2..4]));
    Ok(())
}

#[test]
fn ids_differ() -> Result {
    let gateway = chat();
    let alice = enter(&gateway, "alice")?;
    alice.says_json(&json!({ "type": "say", "text": "same" }))?;
    alice.says_json(&json!({ "type": "say", "text": "same" }))?;
    let heard = alice.received_json();
    assert_ne!(heard[0]["id"], heard[1]["id"]);
    Ok(())
}

#[test]
fn tabs_of_a_user_count_once() -> Result {
    let gateway = chat();
    let alice = enter(&gateway, "alice")?;
    let first = enter(&gateway, "bob")?;
    let second = knock(&gateway, "bob", "blue").open()?;
    assert_eq!(second.received_json()[0]["members"], json!(["alice", "bob"]));
    assert_eq!(alice.received_json(), [json!({ "type": "joined", "user": "bob" })]);

    first.leaves();
    assert_eq!(alice.received().len(), 0);
    alice.says_json(&json!({ "type": "who" }))?;
    assert_eq!(alice.received_json(), [json!({ "type": "members", "members": ["alice", "bob"] })]);

    second.vanishes();
    assert_eq!(alice.received_json(), [json!({ "type": "left", "user": "bob" })]);
    alice.says_json(&json!({ "type": "who" }))?;
    assert_eq!(alice.received_json(), [json!({ "type": "members", "members": ["alice"] })]);
    Ok(())
}

#[test]
fn direct_messages_reach_both_users_and_nobody_else() -> Result {
    let gateway = chat();
    let (alice, tab) = (enter(&gateway, "alice")?, enter(&gateway, "alice")?);
    let (bob, carol) = (enter(&gateway, "bob")?, enter(&gateway, "carol")?);
    for client in [&alice, &tab, &bob] {
        client.received();
    }

    alice.says_json(&json!({ "type": "direct", "to": "bob", "text": "psst" }))?;
    let at = gateway.now();
    let copy = [json!({ "type": "direct", "user": "alice", "to": "bob", "text": "psst", "at": at })];
    assert_eq!(bob.received_json(), [json!({ "type": "direct", "user": "alice", "text": "psst", "at": at })]);
    assert_eq!(alice.received_json(), copy);
    assert_eq!(tab.received_json(), copy);
    assert_eq!(carol.received().len(), 0);
    assert_eq!(gateway.history("room:blue").len(), 0);
    Ok(())
}

#[test]
fn direct_messages_to_oneself_come_once() -> Result {
    let gateway = chat();
    let alice = enter(&gateway, "alice")?;
    alice.says_json(&json!({ "type": "direct", "to": "alice", "text": "note" }))?;
    assert_eq!(alice.received().len(), 1);
    Ok(())
}

#[test]
fn typing_is_told_to_the_others_and_not_kept() -> Result {
    let gateway = chat();
    let (alice, bob) = (enter(&gateway, "alice")?, enter(&gateway, "bob")?);
    alice.received();
    alice.says_json(&json!({ "type": "typing" }))?;
    assert_eq!(alice.received().len(), 0);
    assert_eq!(bob.received_json(), [json!({ "type": "typing", "user": "alice" })]);
    assert_eq!(gateway.history("room:blue").len(), 0);
    Ok(())
}

#[test]
fn what_cannot_be_understood_is_answered() -> Result {
    let gateway = chat().config(json!({ "max_text": 5 }));
    let alice = enter(&gateway, "alice")?;
    let cases = [
        ("{", "bad_json"),
        ("", "bad_json"),
        ("[]", "bad_json"),
        (r#"["say", "bob", "hello"]"#, "bad_json"),
        ("{}", "unknown_type"),
        (r#"{"type":"shout","text":"a"}"#, "unknown_type"),
        (r#"{"type":"say","text":7}"#, "bad_field"),
        (r#"{"type":"say"}"#, "missing_text"),
        (r#"{"type":"say","text":""}"#, "empty_text"),
        (r#"{"type":"say","text":" \n"}"#, "empty_text"),
        (r#"{"type":"say","text":"123456"}"#, "too_long"),
        (r#"{"type":"direct","text":"a"}"#, "missing_to"),
        (r#"{"type":"direct","to":"alice"}"#, "missing_text"),
        (r#"{"type":"direct","to":"nobody","text":"a"}"#, "unknown_user"),
    ];
    for (said, code) in cases {
        alice.says(said)?;
        assert_eq!(error_code(&alice), code, "{said}");
    }
    alice.says(vec![1, 2, 3])?;
    assert_eq!(error_code(&alice), "text_only");
    assert!(gateway.published().iter().all(|published| !published.kept), "only that alice has joined");

    // Characters count, not bytes.
    alice.says_json(&json!({ "type": "say", "text": "äöüßé" }))?;
    assert_eq!(heard(&alice)[0]["text"], "äöüßé");
    Ok(())
}

#[test]
fn a_publish_that_the_broker_refuses_is_told() -> Result {
    let gateway = chat();
    let alice = enter(&gateway, "alice")?;
    gateway.broker_away(true);
    alice.says_json(&json!({ "type": "say", "text": "hello" }))?;
    assert_eq!(error_code(&alice), "unavailable");
    alice.says_json(&json!({ "type": "direct", "to": "alice", "text": "hello" }))?;
    assert_eq!(error_code(&alice), "unavailable");
    alice.says_json(&json!({ "type": "who" }))?;
    assert_eq!(error_code(&alice), "unavailable");
    assert_eq!(alice.closed(), None);
    assert_eq!(gateway.failures(), []);
    Ok(())
}

#[test]
fn nobody_in_particular_is_shown_out() -> Result {
    let gateway = chat();
    let client = gateway.connect().param("room", "blue").anonymous().open()?;
    assert_eq!(client.closed().map(|close| close.code), Some(1008));
    assert_eq!(client.received(), Vec::<Message>::new());
    assert_eq!(gateway.members("room:blue"), []);
    Ok(())
}

#[test]
fn a_room_whose_name_is_no_topic_is_not_entered() -> Result {
    let client = knock(&chat(), "alice", &"x".repeat(300)).open()?;
    assert_eq!(client.closed().map(|close| close.code), Some(1008));
    Ok(())
}

#[test]
fn without_history_there_is_none_to_read() -> Result {
    let gateway = Gateway::<Chat>::new().topic("*", Topic { history: 0, ttl: None, presence: true });
    let alice = knock(&gateway, "alice", "blue").open()?;
    assert_eq!(alice.received_json()[0]["history"], json!([]));
    Ok(())
}

#[test]
fn the_operator_is_told_what_is_missing() {
    let error = |gateway: &Gateway<Chat>| knock(gateway, "alice", "blue").open().unwrap_err();
    assert!(error(&chat().grants(Grants::none())).message().contains("the history: room:blue: denied"));
    let topic = Topic { history: 1, ttl: None, presence: false };
    let message = error(&Gateway::new().topic("*", topic));
    assert!(message.message().contains("the presence: room:blue: unsupported"), "{message:?}");
    assert!(chat().connect().user("alice").open().unwrap_err().message().contains("`{room}`"));
    assert!(chat().config(json!({ "max_txt": 1 })).start().unwrap_err().message().contains("max_txt"));
}

#[test]
fn a_room_that_cannot_be_read_now_asks_to_come_back() -> Result {
    let gateway = chat();
    gateway.start()?;
    gateway.broker_away(true);
    let alice = knock(&gateway, "alice", "blue").open()?;
    assert_eq!(alice.closed().map(|close| close.code), Some(1013));
    Ok(())
}
