//! Long-poll: the same sessions by one request after the other, on whichever node it arrives.

use tokio::time::timeout;

use crate::support::client::Client;
use crate::support::guests::{RELAY_MAY, relay};
use crate::support::http::ask;
use crate::support::nodes::{config, ready, say};
use crate::support::redis::{Server, is_installed};
use crate::support::requests::{Events, Polls, post};
use crate::support::{Gateway, PATIENCE, until};

const CONFIG: &str = r#"
[[topic]]
pattern = "log:*"
history = { size = 100, ttl = "1h" }

[[route]]
name = "relay"
path = "/relay"
plugins = ["relay"]
transports = ["websocket", "long-poll"]

[[route]]
name = "short"
path = "/short"
plugins = ["echo"]
transports = ["long-poll"]
heartbeat = { interval = "100ms", timeout = "300ms" }

[[route]]
name = "small"
path = "/small"
plugins = ["echo"]
transports = ["long-poll"]
limits = { outbox = "16KiB" }
"#;

async fn gateway() -> Gateway {
    Gateway::start_with(&format!("{CONFIG}{RELAY_MAY}"), &[("relay", relay())]).await
}

#[tokio::test]
async fn a_session_goes_on_from_poll_to_poll() {
    let gateway = gateway().await;
    let address = gateway.address();
    let mut polls = Polls::open(address, "/relay?user=ann", &[]).await;
    let id = polls.text(address).await;
    assert!(polls.token.starts_with(&id));
    polls.say(address, "join log:x").await;
    assert!(polls.text(address).await.starts_with("subscribed log:x "));
    let mut socket = Client::connect(&gateway.ws_url("/relay")).await;
    socket.text().await;
    // Between polls, and all at once: nothing is lost and nothing is out of order.
    for number in 1..=50 {
        say(&mut socket, "log:x", &number.to_string()).await;
    }
    for number in 1..=50 {
        assert_eq!(polls.text(address).await, format!("log:x {number} {number}"));
    }
    // Into a poll that waits.
    let waiting = tokio::spawn(async move {
        let text = polls.text(address).await;
        (polls, text)
    });
    assert_eq!(socket.ask("tell ann hello").await, "ok hello");
    let (mut polls, text) = waiting.await.unwrap();
    assert_eq!(text, "hello");
    socket.send(&format!("end {id}")).await;
    assert_eq!(polls.closed(address).await, 4004);
    until("the end of the session", || async { (polls.poll(address, polls.next).await.status == 404).then_some(()) })
        .await;
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again_until_it_is_acknowledged() {
    let gateway = gateway().await;
    let address = gateway.address();
    let mut polls = Polls::open(address, "/relay", &[]).await;
    polls.text(address).await;
    polls.say(address, "say log:x one").await;
    let first = polls.poll(address, polls.next).await.json();
    let again = polls.poll(address, polls.next).await.json();
    assert_eq!(first, again, "the client has not said that it got it");
    assert_eq!(first["messages"][0]["text"], "ok one");
    polls.next = first["next"].as_u64().unwrap();
    polls.say(address, "say log:x two").await;
    assert_eq!(polls.text(address).await, "ok two", "and then never again");
    // Of two polls at a time the later one ends the other.
    let mut both = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (path, token) = (format!("{}?after={}", polls.path, polls.next), polls.token.clone());
        both.spawn(async move { ask(address, "GET", &path, &[("Tidegate-Session", &token)], "").await.status });
    }
    assert_eq!(both.join_next().await.unwrap().unwrap(), 409);
    polls.say(address, "say log:x three").await;
    assert_eq!(both.join_next().await.unwrap().unwrap(), 200);
}

#[tokio::test]
async fn who_polls_no_more_is_gone_and_who_polls_quietly_stays() {
    let gateway = gateway().await;
    let address = gateway.address();
    let gone = Polls::open(address, "/short", &[]).await;
    let mut stays = Polls::open(address, "/short", &[]).await;
    let one_left = async {
        while gateway.metric("tidegate_sessions", "short").await > 1.0 {
            let answer = stays.poll(address, stays.next).await;
            assert_eq!((answer.status, &answer.json()["messages"]), (200, &serde_json::json!([])));
        }
    };
    timeout(PATIENCE, one_left).await.expect("the session is kept for ever");
    assert_eq!(gone.poll(address, gone.next).await.status, 404);
    stays.say(address, "hello").await;
    assert_eq!(stays.text(address).await, "hello");
    assert_eq!(ask(address, "DELETE", "/short", &[("Tidegate-Session", &stays.token)], "").await.status, 204);
    assert_eq!(stays.closed(address).await, 1001);
}

#[tokio::test]
async fn who_does_not_fetch_what_it_caused_causes_no_more() {
    let gateway = gateway().await;
    let address = gateway.address();
    let mut polls = Polls::open(address, "/small", &[]).await;
    let body = "x".repeat(1024);
    let mut taken = 0;
    while post(address, "/small", &polls.token, &body).await.status == 204 {
        taken += 1;
        assert!(taken < 64, "nothing bounds what waits for the client");
    }
    for _ in 0..taken {
        assert_eq!(polls.text(address).await, body);
    }
    polls.say(address, "and on").await;
    assert_eq!(polls.text(address).await, "and on");
}

#[tokio::test]
async fn any_node_takes_the_requests_of_any_session() {
    if !is_installed("long-poll over several nodes") {
        return;
    }
    let server = Server::start().await;
    let config = config(&server.url(), "")
        .replace("path = \"/refuse\"", "path = \"/refuse\"\ntransports = [\"websocket\", \"sse\", \"long-poll\"]");
    let (a, b) = (
        Gateway::start_with(&config, &[("relay", relay())]).await,
        Gateway::start_with(&config, &[("relay", relay())]).await,
    );
    ready(&a).await;
    ready(&b).await;
    let (on_a, on_b) = (a.address(), b.address());
    let mut polls = Polls::open(on_a, "/refuse?user=ann", &[]).await;
    polls.text(on_b).await;
    polls.say(on_b, "join log:x").await;
    assert!(polls.text(on_a).await.starts_with("subscribed log:x "));
    let mut socket = Client::connect(&b.ws_url("/refuse")).await;
    socket.text().await;
    for number in 1..=20 {
        say(&mut socket, "log:x", &number.to_string()).await;
        let node = if number % 2 == 0 { on_a } else { on_b };
        assert_eq!(polls.text(node).await, format!("log:x {number} {number}"));
    }
    // A client of an event stream posts by way of the other node, as a balancer without memory would have it.
    let mut events = Events::open(on_a, "/refuse", "").await;
    events.data().await;
    let answer = post(on_b, "/refuse", &events.token, "say log:x far").await;
    assert_eq!(answer.status, 204, "{}", answer.body);
    assert_eq!(events.data().await, "ok far");
    assert_eq!(post(on_b, "/refuse", &polls.token.replace('.', ".0"), "x").await.status, 404);

    // Its node dies: the other says so, and a new session there goes on where this one stood.
    assert_eq!(polls.text(on_b).await, "log:x 21 far");
    let id = polls.last_id.clone().unwrap();
    drop(a);
    until("word of its end", || async { (polls.poll(on_b, polls.next).await.status == 404).then_some(()) }).await;
    say(&mut socket, "log:x", "after").await;
    let mut polls = Polls::open(on_b, "/refuse", &[("Last-Event-ID", &id)]).await;
    polls.text(on_b).await;
    polls.say(on_b, "join log:x").await;
    assert!(polls.text(on_b).await.starts_with("recovered log:x "));
    assert_eq!(polls.text(on_b).await, "log:x 22 after");
}

/// Requests with a token that somebody made up are not asked about at other nodes, but for a few a second.
#[tokio::test]
async fn tokens_that_are_made_up_cost_other_nodes_nothing() {
    if !is_installed("tokens that are made up") {
        return;
    }
    const FORGED: usize = 500;
    let server = Server::start().await;
    let config = config(&server.url(), "")
        .replace("path = \"/refuse\"", "path = \"/refuse\"\ntransports = [\"websocket\", \"sse\", \"long-poll\"]");
    let (a, b) = (
        Gateway::start_with(&config, &[("relay", relay())]).await,
        Gateway::start_with(&config, &[("relay", relay())]).await,
    );
    ready(&a).await;
    ready(&b).await;
    let (on_a, on_b) = (a.address(), b.address());
    let mut polls = Polls::open(on_a, "/refuse?user=ann", &[]).await;
    polls.text(on_b).await;
    // The session and its node are real; of the secret the attacker has all but one digit.
    let last = if polls.token.ends_with('0') { '1' } else { '0' };
    let forged = format!("{}{last}", &polls.token[..polls.token.len() - 1]);
    let started = std::time::Instant::now();
    let mut statuses = Vec::new();
    for _ in 0..FORGED {
        statuses.push(post(on_b, "/refuse", &forged, "x").await.status);
    }
    let most = 21 + 20 * started.elapsed().as_millis() as usize / 1_000;
    let asked = statuses.iter().filter(|status| **status == 404).count();
    assert!((20..=most).contains(&asked), "{asked} of {FORGED} were asked about, {most} may be");
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), FORGED - asked);
    let counted = |result: &'static str| {
        let gateway = &b;
        async move { gateway.metric("tidegate_unproven_tokens_total", &format!("result=\"{result}\"")).await as usize }
    };
    assert_eq!((counted("asked").await, counted("refused").await), (asked, FORGED - asked));
    // Whoever has a token of their own does not notice, also where the node is one that came later.
    let c = Gateway::start_with(&config, &[("relay", relay())]).await;
    ready(&c).await;
    for node in [on_b, c.address(), on_a] {
        polls.say(node, "say log:x hello").await;
        assert_eq!(polls.text(node).await, "ok hello");
    }
    assert_eq!(counted("asked").await, asked, "an honest token has to be asked about");
    assert_eq!(c.metric("tidegate_unproven_tokens_total", "").await, 0.0);

    // A Redis that has lost everything is told the key again by those who know it, and a new node knows the same tokens.
    server.ask(&["FLUSHALL"]).await;
    until("the key is back", || async {
        (server.ask(&["EXISTS", "tidegate:seal"]).await == redis::Value::Int(1)).then_some(())
    })
    .await;
    let d = Gateway::start_with(&config, &[("relay", relay())]).await;
    ready(&d).await;
    polls.say(d.address(), "say log:x again").await;
    assert_eq!(polls.text(d.address()).await, "ok again");
    assert_eq!(d.metric("tidegate_unproven_tokens_total", "").await, 0.0);
}
