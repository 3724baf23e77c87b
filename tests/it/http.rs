//! A plugin answers plain HTTP requests on its route: what it asks for is applied first, and nothing where it fails.

use serde_json::json;

use crate::support::client::Client;
use crate::support::guests::{self, wat};
use crate::support::http::{Answer, ask, send};
use crate::support::{Gateway, until};

/// The sessions of `rooms` subscribe to the topic that they name; its HTTP side publishes.
const ROOMS: &str = r#"
[[route]]
name = "rooms"
path = "/rooms/{room}/{*rest}"
plugins = ["topics", "http"]
http = { body = "64KiB" }

[plugin.topics.grants]
publish = ["*"]
subscribe = ["*"]

[plugin.http]
limits = { cpu = "100ms", output = "256KiB" }
config = { name = "rooms" }

[plugin.http.grants]
publish = ["room:*"]
kv = ["count"]
"#;

async fn start(config: &str) -> Gateway {
    Gateway::start_with(config, &[("http", guests::http()), ("topics", wat("topics", &[]))]).await
}

async fn post(gateway: &Gateway, path: &str, body: &str) -> Answer {
    ask(gateway.address(), "POST", path, &[], body).await
}

#[tokio::test]
async fn every_method_is_answered_with_what_the_request_says() {
    let gateway = start(ROOMS).await;
    let headers = [
        ("accept", "a/b"),
        ("Authorization", "Bearer secret"),
        ("Cookie", "a=b"),
        ("Tidegate-User", "mallory"),
        ("tidegate-attributes", "{\"role\":\"admin\"}"),
    ];
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"] {
        let body = if method == "GET" { "" } else { "a body" };
        let answer = ask(gateway.address(), method, "/rooms/b%20c/echo?x=1", &headers, body).await;
        assert_eq!((answer.status, &*answer.headers["x-handler"]), (200, "http"), "{}", answer.body);
        let expected = json!({
            "build": "build-one", "name": "rooms", "method": method, "path": "/rooms/b%20c/echo", "query": "x=1",
            "body": body, "length": body.len(), "host": null, "accept": "a/b", "authorization": null,
            "cookie": null, "user": null, "role": null,
            "parameter": "b c", "peer": "127.0.0.1",
        });
        assert_eq!(answer.json(), expected, "neither what nobody has granted nor forged headers");
    }
    let head = ask(gateway.address(), "HEAD", "/rooms/blue/echo", &[], "").await;
    assert_eq!((head.status, &*head.body), (200, ""));
    let status = |query: &'static str| {
        let address = gateway.address();
        async move { ask(address, "GET", &format!("/rooms/blue/status?{query}"), &[], "").await.status }
    };
    assert_eq!((status("404").await, status("503").await), (404, 503));
    assert_eq!((status("101").await, status("600").await), (500, 500), "no status that ends a request");
    assert_eq!(gateway.metric("tidegate_plugin_calls_total", "hook=\"http\"").await, 12.0);
    assert_eq!(gateway.metric("tidegate_handshakes_total", "route=\"rooms\",status=\"200\"").await, 8.0);
}

#[tokio::test]
async fn sessions_and_requests_live_on_one_route() {
    let gateway = start(ROOMS).await;
    let mut client = Client::connect(&gateway.ws_url("/rooms/blue/live")).await;
    assert_eq!(client.ask("room:blue").await, "S+P+");
    assert_eq!(client.text().await, "room:blue");
    for number in 0..20 {
        let said = format!("number {number}");
        assert_eq!(post(&gateway, "/rooms/blue/publish", &said).await.status, 202);
        // Published before the answer, so the next publication of anybody's comes after it.
        assert_eq!(client.text().await, said);
    }
    assert_eq!(gateway.metric("tidegate_publications_total", "").await, 21.0);
    let (status, body) = gateway.admin("/plugins").await;
    assert!(status == 200 && body.contains("\"http\""), "{body}");
    client.close().await;
}

#[tokio::test]
async fn a_handler_that_fails_has_done_nothing() {
    let gateway = start(ROOMS).await;
    let mut client = Client::connect(&gateway.ws_url("/rooms/blue/live")).await;
    assert_eq!(client.ask("room:blue").await, "S+P+");
    assert_eq!(client.text().await, "room:blue");
    for (path, why) in [("publish-and-trap", "trap"), ("publish-and-fail", "error"), ("publish-and-spin", "cpu")] {
        let answer = post(&gateway, &format!("/rooms/blue/{path}"), "never").await;
        assert_eq!((answer.status, &*answer.body), (500, "internal error"), "{path}: the client is told no more");
        let labels = format!("hook=\"http\",plugin=\"http\",why=\"{why}\"");
        assert_eq!(gateway.metric("tidegate_plugin_call_failures_total", &labels).await, 1.0, "{path}");
    }
    gateway.log_line(&["the request could not be handled", "the handler is not content", "\"hook\":\"http\""]).await;
    assert_eq!(gateway.metric("tidegate_events_failed_total", "event=\"http\",route=\"rooms\"").await, 3.0);
    assert_eq!(post(&gateway, "/rooms/blue/publish", "at last").await.status, 202);
    assert_eq!(client.text().await, "at last");
    assert_eq!(gateway.metric("tidegate_publications_total", "").await, 2.0);
}

#[tokio::test]
async fn what_cannot_be_applied_is_answered_503() {
    let config = format!(
        "history_memory = 1024\n{ROOMS}\n[[topic]]\npattern = \"room:*\"\nhistory = {{ size = 10, ttl = \"1m\" }}\n"
    );
    let gateway = start(&config).await;
    let answers = [
        post(&gateway, "/rooms/blue/publish", &"a".repeat(2000)).await,
        post(&gateway, "/rooms/red/publish", "b").await,
    ];
    assert_eq!((answers[0].status, answers[1].status), (503, 202), "the first has no room in the history");
    assert_eq!(answers[0].body, "not accepted now; try again later");
    assert!(answers[0].headers.contains_key("retry-after"));
    assert_eq!(gateway.metric("tidegate_effects_refused_total", "").await, 1.0);
    assert_eq!(gateway.metric("tidegate_publications_refused_total", "").await, 1.0);
    assert_eq!(gateway.metric("tidegate_events_failed_total", "").await, 0.0, "no plugin has failed");
}

#[tokio::test]
async fn bodies_have_limits_in_both_directions() {
    let gateway = start(ROOMS).await;
    assert_eq!(post(&gateway, "/rooms/blue/echo", &"a".repeat(64 << 10)).await.json()["length"], 64 << 10);
    assert_eq!(post(&gateway, "/rooms/blue/echo", &"a".repeat((64 << 10) + 1)).await.status, 413);
    let chunk = format!("{:x}\r\n{}\r\n", 40 << 10, "a".repeat(40 << 10));
    let head = format!(
        "POST /rooms/blue/echo HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        gateway.address()
    );
    assert_eq!(send(gateway.address(), &format!("{head}{chunk}0\r\n\r\n")).await.json()["length"], 40 << 10);
    assert_eq!(send(gateway.address(), &format!("{head}{chunk}{chunk}0\r\n\r\n")).await.status, 413);
    assert_eq!(
        gateway.metric("tidegate_plugin_calls_total", "hook=\"http\"").await,
        2.0,
        "the plugin sees no such request"
    );

    let large = |bytes: usize| {
        let address = gateway.address();
        async move { ask(address, "GET", &format!("/rooms/blue/large?{bytes}"), &[], "").await }
    };
    assert_eq!(large(256 << 10).await.body.len(), 256 << 10);
    assert_eq!(large((256 << 10) + 1).await.status, 500, "over the plugin's `output`");
    assert_eq!(gateway.metric("tidegate_plugin_call_failures_total", "why=\"output\"").await, 1.0);
}

#[tokio::test]
async fn a_body_that_does_not_come_holds_no_instance() {
    let config = ROOMS.replace("body = \"64KiB\"", "body_timeout = \"200ms\"");
    let gateway = start(&config.replace("cpu = ", "instances = 1, cpu = ")).await;
    let head = format!("POST /rooms/blue/echo HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\n\r\n", gateway.address());
    let slow = tokio::spawn({
        let address = gateway.address();
        async move { send(address, &head).await.status }
    });
    assert_eq!(post(&gateway, "/rooms/blue/echo", "x").await.status, 200);
    assert_eq!(slow.await.unwrap(), 408);
}

const GUARDED: &str = r#"
[[route]]
name = "guarded"
path = "/guarded/{*rest}"
plugins = ["jwt-auth", "http"]

[[route]]
name = "open"
path = "/open/{*rest}"
plugins = ["jwt-auth", "http"]
http = { authenticate = false }
origins = ["https://app.example"]

[plugin.jwt-auth.config]
secret = "0123456789abcdef0123456789abcdef"

[plugin.jwt-auth.grants]
headers = ["authorization", "cookie"]

[plugin.http.grants]
headers = ["authorization"]
"#;

#[tokio::test]
async fn authenticate_decides_on_requests_too_unless_the_route_says_otherwise() {
    let gateway = start(GUARDED).await;
    let address = gateway.address();
    assert_eq!(ask(address, "GET", "/guarded/echo", &[], "").await.status, 401);
    assert_eq!(ask(address, "GET", "/guarded/echo", &[("authorization", "Bearer nonsense")], "").await.status, 401);
    assert_eq!(gateway.metric("tidegate_plugin_calls_total", "hook=\"http\"").await, 0.0);
    let token = format!("Bearer {}", gateway.token("alice"));
    let headers = [("authorization", token.as_str()), ("tidegate-user", "mallory")];
    let echoed = ask(address, "GET", "/guarded/echo", &headers, "").await.json();
    assert_eq!((&echoed["user"], &echoed["authorization"]), (&json!("alice"), &json!(token)));
    let preflight = [("origin", &*gateway.url()), ("access-control-request-method", "POST")];
    assert_eq!(ask(address, "OPTIONS", "/guarded/echo", &preflight, "").await.status, 200, "it cannot carry a token");
    assert_eq!(ask(address, "OPTIONS", "/guarded/echo", &[], "").await.status, 401);

    let answer = ask(address, "GET", "/open/echo", &headers, "").await;
    assert_eq!((answer.status, &answer.json()["user"]), (200, &json!(null)), "nobody was asked");
    assert_eq!(ask(address, "GET", "/open/echo", &[("origin", "https://app.example")], "").await.status, 200);
    assert_eq!(ask(address, "POST", "/open/echo", &[("origin", "https://evil.example")], "x").await.status, 403);
    assert_eq!(ask(address, "POST", "/guarded/echo", &[("origin", "https://evil.example")], "x").await.status, 403);
}

const TICKETS: &str = r#"
[[route]]
name = "ticket"
path = "/ticket"
plugins = ["tickets"]
http = { authenticate = false }

[[route]]
name = "echo"
path = "/echo"
plugins = ["tickets", "echo"]

[plugin.tickets.config]
passwords = { alice = "correct horse" }

[plugin.tickets.grants]
kv = ["ticket:"]
"#;

#[tokio::test]
async fn the_guides_tickets_open_a_session() {
    let gateway = Gateway::start_with(TICKETS, &[("tickets", guests::tickets())]).await;
    assert_eq!(post(&gateway, "/ticket", "not json").await.status, 400);
    assert_eq!(post(&gateway, "/ticket", r#"{"name":"alice","password":"guess"}"#).await.status, 401);
    let answer = post(&gateway, "/ticket", r#"{"name":"alice","password":"correct horse"}"#).await;
    assert_eq!((answer.status, &*answer.headers["cache-control"]), (200, "no-store"));
    let ticket = answer.json()["ticket"].as_str().unwrap().to_owned();
    let url = |ticket: &str| gateway.ws_url(&format!("/echo?ticket={ticket}"));
    assert_eq!(Client::try_connect(&url("guess"), &[]).await.err(), Some(401));
    let mut client = Client::connect(&url(&ticket)).await;
    assert_eq!(client.ask("hello").await, "hello");
    client.close().await;
}

#[tokio::test]
async fn a_store_is_there_and_a_missing_grant_is_told() {
    let gateway = start(ROOMS).await;
    for expected in ["1", "2", "3"] {
        assert_eq!(ask(gateway.address(), "GET", "/rooms/blue/count", &[], "").await.body, expected);
    }
    // `users` is not granted: the handler passes the refusal on as its error.
    assert_eq!(post(&gateway, "/rooms/blue/tell?alice", "hello").await.status, 500);
    assert_eq!(gateway.metric("tidegate_plugin_denied_total", "grant=\"users\",plugin=\"http\"").await, 1.0);
}

#[tokio::test]
async fn a_new_file_answers_the_next_requests_and_none_is_lost() {
    let gateway = start(ROOMS).await;
    let old = guests::http();
    let at = old.windows(9).position(|bytes| bytes == b"build-one").expect("the guest names its build");
    let mut new = old.clone();
    new[at..at + 9].copy_from_slice(b"build-two");
    let build = async || ask(gateway.address(), "GET", "/rooms/blue/echo", &[], "").await.json()["build"].clone();
    assert_eq!(build().await, "build-one");
    gateway.replace("http", &new);
    until("the new build to answer", || async {
        let build = build().await;
        assert!(build == "build-one" || build == "build-two");
        (build == "build-two").then_some(())
    })
    .await;
    assert_eq!(gateway.metric("tidegate_plugin_generation", "plugin=\"http\"").await, 2.0);
    assert_eq!(gateway.metric("tidegate_plugin_call_failures_total", "").await, 0.0);
}

/// Exports the handler of the first version of the standard, and answers nothing.
const SILENT: &str = r#"
(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (core module $module (func (export "handle") (param i32 i32)))
  (core instance $instance (instantiate $module))
  (type $handle (func (param "request" (own $request)) (param "response-out" (own $outparam))))
  (func $lifted (type $handle) (canon lift (core func $instance "handle")))
  (component $handler
    (import "request" (type $request (sub resource)))
    (import "outparam" (type $outparam (sub resource)))
    (import "handle" (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))))
    (export $out-request "incoming-request" (type $request))
    (export $out-outparam "response-outparam" (type $outparam))
    (export "handle" (func $handle)
      (func (param "request" (own $out-request)) (param "response-out" (own $out-outparam)))))
  (instance $handler-instance (instantiate $handler
    (with "request" (type $request))
    (with "outparam" (type $outparam))
    (with "handle" (func $lifted))))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler-instance)))
"#;

#[tokio::test]
async fn any_version_of_the_standard_is_found_and_silence_is_no_answer() {
    let config = "[[route]]\nname = \"silent\"\npath = \"/silent\"\nplugins = [\"silent\"]\n";
    let gateway = Gateway::start_with(config, &[("silent", wat::parse_str(SILENT).unwrap())]).await;
    for _ in 0..300 {
        assert_eq!(ask(gateway.address(), "GET", "/silent", &[], "").await.status, 500);
    }
    gateway.log_line(&["the handler has returned without a response"]).await;
    // Whatever it kept of requests that it did not look at, there is always an instance that can go on.
    let failures = gateway.metric("tidegate_plugin_call_failures_total", "why=\"error\"").await;
    assert_eq!(failures, 300.0);
    // A WebSocket finds no hook that would refuse it.
    Client::connect(&gateway.ws_url("/silent")).await.close().await;
}
