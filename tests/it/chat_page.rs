//! The chat example as people use it: its page in a browser, two users, a plugin replaced between two messages.

use std::fs;

use fantoccini::Client;
use serde_json::{Value, json};

use crate::support::browser::{Page, with_browser};
use crate::support::{Gateway, guests};

#[tokio::test(flavor = "multi_thread")]
async fn two_users_chat_while_the_plugin_is_replaced() {
    let gateway = Gateway::start(&example()).await;
    with_browser("chat_page", |client| two_users(client, gateway)).await;
}

async fn two_users(client: Client, gateway: Gateway) {
    let alice = enter(&client, &gateway, "alice").await;
    let bob = enter(&client, &gateway, "bob").await;
    assert!(!bob.address().await.contains("token"), "the token must not stay in the address bar");
    alice.until(MEMBERS, json!(["alice", "bob"])).await;
    bob.until(MEMBERS, json!(["bob", "alice"])).await;

    // Markup in a message is text on the page.
    say(&alice, "<i>hello</i> bob").await;
    for page in [&alice, &bob] {
        page.until(ROOM, json!([["alice", "<i>hello</i> bob"]])).await;
    }

    bob.click("#members li[data-user=alice] button").await;
    say(&bob, "only for you").await;
    alice.until(DIRECT, json!([["bob", "only for you"]])).await;
    bob.until(DIRECT, json!([["bob", "only for you"]])).await;
    bob.click("#direct-end").await;

    // A second tab of alice: one member, two pages that hear the same.
    let tab = enter(&client, &gateway, "alice").await;
    tab.until(ROOM, json!([["alice", "<i>hello</i> bob"]])).await;
    bob.until(MEMBERS, json!(["bob", "alice"])).await;

    replace_chat(&gateway);
    let mut expected = vec![json!(["alice", "<i>hello</i> bob"])];
    let replaced = loop {
        let text = format!("message {}", expected.len());
        say(&alice, &text).await;
        alice.until(&format!("{ROOM}.length"), json!(expected.len() + 1)).await;
        let shown = alice.value(&format!("{ROOM}.at(-1)")).await;
        expected.push(shown.clone());
        if shown == json!(["alice", format!("{text} (v2)")]) {
            break true;
        }
        assert_eq!(shown, json!(["alice", text]), "neither the old plugin's words nor the new one's");
        if expected.len() > 200 {
            break false;
        }
    };
    assert!(replaced, "200 messages later, the page still shows the old plugin's behaviour");

    say(&bob, "and me").await;
    expected.push(json!(["bob", "and me (v2)"]));
    for page in [&alice, &bob, &tab] {
        page.until(ROOM, Value::Array(expected.clone())).await;
        page.until("document.body.dataset.connects", json!("1")).await;
        page.until(STATE, json!("connected")).await;
    }

    // Session storage keeps alice signed in, and the history what was said.
    alice.reload().await;
    alice.until(&format!("{ROOM}.at(-1)"), json!(["bob", "and me (v2)"])).await;
    alice.until("document.getElementById('me').textContent", json!("alice")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_leads_back_to_the_form_with_the_reason() {
    let gateway = Gateway::start(&example()).await;
    with_browser("chat_page", |client| async move {
        let page = Page::open(&client, &format!("{}/#token=not-a-token&room=lobby", gateway.url())).await;
        page.until("document.getElementById('login-error').hidden", json!(false)).await;
        let said = page.value("document.getElementById('login-error').textContent").await;
        assert!(said.as_str().unwrap().contains("refused the token"), "{said}");
        page.until(STATE, json!("closed")).await;

        page.write("#token", &gateway.token("carol")).await;
        page.click("#enter").await;
        page.until(MEMBERS, json!(["carol"])).await;
    })
    .await;
}

const STATE: &str = "document.getElementById('status').dataset.state";
const MEMBERS: &str = "[...document.querySelectorAll('#members li')].map(item => item.dataset.user)";
const ROOM: &str = "[...document.querySelectorAll('#messages .message:not(.direct)')]\
    .map(message => [message.dataset.user, message.querySelector('.text').textContent])";
const DIRECT: &str = "[...document.querySelectorAll('#messages .message.direct')]\
    .map(message => [message.dataset.user, message.querySelector('.text').textContent])";

async fn enter(client: &Client, gateway: &Gateway, user: &str) -> Page {
    let page = Page::open(client, &format!("{}/#token={}&room=lobby", gateway.url(), gateway.token(user))).await;
    page.until(STATE, json!("connected")).await;
    page.until("document.getElementById('me').textContent", json!(user)).await;
    page
}

async fn say(page: &Page, text: &str) {
    page.write("#text", text).await;
    page.click("#send").await;
}

/// By a rename, as a deployment does it: the gateway never sees half of a file.
fn replace_chat(gateway: &Gateway) {
    let new = gateway.plugin_dir().join("chat.wasm.new");
    fs::copy(guests::chat_v2(), &new).unwrap();
    fs::rename(&new, gateway.plugin_dir().join("chat.wasm")).unwrap();
}

/// The example's own configuration; addresses and the plugin directory are the test gateway's, and paths are absolute.
fn example() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/chat");
    let text = fs::read_to_string(format!("{folder}/tidegate.toml")).unwrap();
    let mut lines = Vec::new();
    for line in text.lines() {
        if !["listen =", "admin =", "plugin_directory ="].iter().any(|key| line.starts_with(key)) {
            lines.push(line);
        }
    }
    let text = lines.join("\n");
    let absolute = text
        .replace("directory = \"web\"", &format!("directory = \"{folder}/web\""))
        .replace("\"dev-secret.txt\"", &format!("\"{folder}/dev-secret.txt\""));
    assert_eq!(absolute.matches(folder).count(), 2, "the example no longer names its files as this test expects");
    absolute
}
