//! Scenarios with company: upstreams and servers that answer, other plugins of the chain, plain HTTP.

use crate::plugin_tools::{plugin, run, scenario, steps};
use crate::support::guests;

/// An upstream that gives no answer by itself.
const BACK: &str = r#"
[plugin]
name = "hooks"
grants = { upstreams = ["back"], users = true }

[route]
upstream = "back"

[[upstream]]
name = "back"
timeout = "2s"
breaker_failures = 2
breaker_pause = "5s"
response = "10B"
"#;

#[tokio::test]
async fn what_an_upstream_is_asked_is_open_until_a_step_answers_it() {
    let text = steps(
        r#"connect = "a"
effects = "any"

connect = "b"
effects = "any"

client = "a"
sends = ["ask one hello", "ask two hello"]
effects = [
  { request = "back", tag = "one", message = "hello", headers = { x-word = "yes" } },
  { send-if-refused = "refused" },
  { request = "back", tag = "two", message = "hello", headers = { x-word = "yes" } },
  { send-if-refused = "refused" },
]
asks = [{ upstream = "back", message = "hello", session = "${a}", headers = { x-word = "yes" } }]

client = "b"
sends = "ask three hello"
effects = "any"
asks = [{ upstream = "back", session = "${b}" }]

name = "the second of a session goes out when the first is answered"
upstream = "back"
replies = { status = 201, body = "made" }
hooks = ["reply"]
effects = [{ send = "one: 201 made" }]
receives = { a = ["one: 201 made"] }
asks = [{ upstream = "back", session = "${a}" }]

name = "not the oldest"
upstream = "back"
to = "a"
replies = { body = { hex = "00ff" } }
receives = { a = ["two: 200 (bytes)"] }

upstream = "back"
replies = { body = "far too long" }
receives = { b = ["three: TooLarge"] }

client = "a"
sends = "pass this"
asks = [{ upstream = "back", message = "pass this" }]

name = "nobody waits for this answer"
upstream = "back"
replies = 204
hooks = []"#,
    );
    let (code, out, error) = scenario(&guests::hooks(), &format!("{BACK}{text}"), &[]).await;
    assert_eq!(code, 0, "{out}{error}");
}

#[tokio::test]
async fn upstreams_fail_by_the_clock_of_the_scenario() {
    let text = steps(
        r#"connect = "a"
effects = "any"

client = "a"
sends = "ask one hello"
effects = "any"

advance = "1999ms"
receives = {}

advance = "1ms"
hooks = ["reply"]
receives = { a = ["one: Timeout"] }

client = "a"
sends = "ask two hello"
effects = "any"

upstream = "back"
replies = { failure = "unavailable" }
receives = { a = ["two: Unavailable"] }

name = "two failures in a row have opened the breaker"
client = "a"
sends = "ask three hello"
effects = "any"
receives = { a = ["refused"] }
refuses = "its breaker is open"
asks = []

advance = "5s"

client = "a"
sends = "ask four hello"
effects = "any"

upstream = "back"
replies = { failure = "broken" }
receives = { a = ["four: Broken"] }

upstream = "back"
replies = 200"#,
    );
    let (code, out, _) = scenario(&guests::hooks(), &format!("{BACK}{text}"), &[]).await;
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("s: 1 of 11 steps failed"), "{out}");
    assert!(out.contains("back replies: nothing that back was asked is open"), "{out}");
}

#[tokio::test]
async fn an_upstream_may_answer_by_itself() {
    let text = BACK.to_owned()
        + "replies = { status = 200, body = { json = { ok = 1 } } }\n"
        + &steps(
            r#"connect = "a"
effects = "any"

client = "a"
sends = ["ask one hello", "ask two hello"]
effects = "any"
receives = { a = ['one: 200 {"ok":1}', 'two: 200 {"ok":1}'] }"#,
        );
    let (code, out, error) = scenario(&guests::hooks(), &text, &[]).await;
    assert_eq!(code, 0, "{out}{error}");
}

#[tokio::test]
async fn a_chain_tells_whose_effects_are_whose() {
    const ANN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4iLCJpYXQiOjE4OTM0NTYwMDAsImV4cCI6MTg5MzQ1\
                       OTYwMCwicm9sZSI6Imhvc3QifQ.tGf3RGA6TTxgGv7l69PmWSgpYL0bXWthHiwyDwNgrXo";
    let head = format!(
        r#"
[plugin]
name = "chat"
grants = {{ publish = ["room:*"], subscribe = ["room:*"], users = true }}

[plugins.jwt-auth]
file = "{}"
config = {{ secret = "0123456789abcdef0123456789abcdef", attributes = ["role"] }}
grants = {{ headers = ["authorization"] }}

[route]
path = "/chat/{{room}}"
plugins = ["jwt-auth", "chat"]
topics = ["room:*"]

[[topic]]
pattern = "room:*"
presence = true
"#,
        plugin("jwt-auth")
    );
    let text = steps(
        &r#"name = "what the others ask for needs not be said"
connect = "nobody"
path = "/chat/blue"
refused = 401

connect = "ann"
path = "/chat/blue"
headers = { authorization = "Bearer ANN" }
admitted = "ann"
hooks = [{ hook = "authenticate", plugin = "jwt-auth" }, { hook = "opened", plugin = "jwt-auth" }, "opened", "presence"]
answers = [{ admit = "ann", plugin = "jwt-auth" }]
effects = [
  { set-attribute = "role", value = "host", plugin = "jwt-auth" },
  { set-expiry = "2030-01-01T01:00:00Z", plugin = "jwt-auth" },
  { send = '{"type": "welcome", "user": "ann", "...": 0}' },
  { subscribe = "room:blue", "..." = 0 },
  { publish = "room:blue", "..." = 0 },
]

client = "ann"
sends = '{"type": "say", "text": "hello"}'
hooks = ["inbound"]
effects = "any"
receives = { ann = ['{"type": "message", "user": "ann", "text": "hello", "...": 0}'] }

advance = "1h"
receives = { ann = [{ close = 3000 }] }
effects = "any""#
            .replace("ANN", ANN),
    );
    let chat = std::fs::read(plugin("chat")).unwrap();
    let (code, out, error) = scenario(&chat, &format!("{head}{text}"), &[]).await;
    assert_eq!(code, 0, "{out}{error}");
}

#[tokio::test]
async fn others_of_a_chain_may_fail_a_step_too() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("scenarios")).unwrap();
    std::fs::write(directory.path().join("teller.wasm"), guests::wat("teller", &[])).unwrap();
    let text = |more: &str| {
        "[route]\nplugins = [\"teller\", \"plugin\"]\n[plugins.teller]\nfile = \"../teller.wasm\"\n".to_owned()
            + &steps(&format!("connect = \"a\"\n\nclient = \"a\"\nsends = \"x\"\n{more}"))
    };
    let echo = plugin("echo");
    let test = ["plugin", "test", &echo, "scenarios/s.toml", "--verbose"];
    std::fs::write(directory.path().join("scenarios/s.toml"), text("logs = []")).unwrap();
    let (code, out, _) = run(directory.path(), &test).await;
    let denied = "{ denied = \"kv n:heard\", plugin = \"teller\" }";
    assert!(code == 1 && out.contains("s: 1 of 2 steps failed"), "{out}");
    assert!(out.contains(&format!("      + {denied}\n")), "{out}");
    assert!(out.contains("logs = [{ level = \"info\", message = \"heard\", plugin = \"teller\" }]"), "{out}");
    std::fs::write(directory.path().join("scenarios/s.toml"), text(&format!("denied = [{denied}]"))).unwrap();
    let (code, out, error) = run(directory.path(), &test).await;
    assert_eq!(code, 0, "{out}{error}");
    let (code, _, error) = scenario(&guests::wat("teller", &[]), "[plugins.other]\nfile = \"none.wasm\"", &[]).await;
    assert!(code == 64 && error.starts_with("tidegate: s.toml:1: the plugin `other`: there is no file"), "{error}");
}

/// Plain HTTP, and a server that the plugin may ask.
const HTTP: &str = r#"
[plugin]
name = "http"
grants = { publish = ["room:*"], users = true, http = ["api.example.org", "slow.example.org"] }

[route]
path = "/rooms/{room}/{*rest}"

[[server]]
url = "https://api.example.org/users/${_}"
replies = { body = { json = { name = "ann" } } }
"#;

#[tokio::test]
async fn plain_requests_are_answered_and_their_effects_compared() {
    let text = steps(
        r#"connect = "ann"
path = "/rooms/blue/live"
user = "ann"

request = "POST /rooms/blue/tell?ann"
body = "psst"
responds = 204
hooks = ["http"]
effects = [{ send-to-user = "ann", message = "psst" }]
receives = { ann = ["psst"] }

request = "POST /rooms/blue/publish"
body = { hex = "6869" }
effects = [{ publish = "room:blue", message = "hi" }]

name = "who asks, as the scenario says"
request = "GET /rooms/blue/echo?x=1"
headers = { accept = "a/b" }
user = "bob"
attributes = { role = "host" }
peer = "10.0.0.9"
responds = { status = 200, headers = { x-handler = "http" }, body = '{"method": "GET", "query": "x=1", "accept": "a/b", "user": "bob", "role": "host", "parameter": "blue", "peer": "10.0.0.9", "...": 0}' }

name = "a failure applies nothing"
request = "POST /rooms/blue/publish-and-fail"
body = "hi"
responds = 500
fails = "the handler is not content"

request = "GET /rooms/blue/status?404"
responds = { status = 404, body = "" }

request = "GET /elsewhere"
responds = 404
hooks = []"#,
    );
    let (code, out, error) = scenario(&guests::http(), &format!("{HTTP}{text}"), &[]).await;
    assert_eq!(code, 0, "{out}{error}");
}

#[tokio::test]
async fn servers_that_a_plugin_asks_answer_as_the_scenario_says() {
    let text = steps(
        r#"request = "GET /rooms/blue/fetch?https://api.example.org/users/7"
responds = { status = 200, body = '{"name": "ann"}' }
asks = ["GET https://api.example.org/users/7"]

request = "GET /rooms/blue/fetch?https://api.example.org/users/7"
servers = [{ url = "https://api.example.org/users/7", replies = { failure = "timeout" } }]
responds = 504

request = "GET /rooms/blue/fetch?https://api.example.org/users/7"
servers = [{ url = "https://api.example.org/${_}", method = "POST", replies = 503 }]
responds = 200

request = "POST /rooms/blue/fetch?https://api.example.org/users/7"
body = "new"
servers = [{ url = "https://api.example.org/${_}", method = "POST", replies = { status = 201, body = "made" } }]
responds = { status = 201, body = "made" }
asks = [{ request = "POST https://api.example.org/users/7", body = "new" }]

request = "GET /rooms/blue/fetch?http://other.example.org/"
responds = 403
denied = ["http other.example.org"]
asks = []

request = "GET /rooms/blue/fetch?https://slow.example.org/"
responds = 502

request = "GET /rooms/blue/fetch?https://slow.example.org/"
servers = [{ url = "https://slow.example.org", replies = 500 }]"#,
    );
    let (code, out, _) = scenario(&guests::http(), &format!("{HTTP}{text}"), &["--verbose"]).await;
    assert!(code == 1 && out.contains("s: 2 of 7 steps failed"), "{out}");
    let cure = "+ GET https://slow.example.org/: add [[server]] with `url = \"https://slow.example.org/\"`";
    assert!(out.contains("nobody was there to answer") && out.contains(cure), "{out}");
    assert!(out.contains("- no error\n      + responds = { status = 500"), "{out}");
    assert!(out.contains("asks = [{ request = \"GET https://api.example.org/users/7\" }]"), "{out}");
}

#[tokio::test]
async fn a_ticket_by_plain_http_opens_the_door_of_a_session() {
    let head = r#"
[plugin]
config = { passwords = { ann = "secret" } }
grants = { kv = ["ticket:"] }

[route]
path = "/{page}"
http = { authenticate = false }
"#;
    let text = steps(
        r#"request = "POST /ticket"
body = { json = { name = "ann", password = "guessed" } }
responds = 401

request = "POST /ticket"
body = { json = { name = "ann", password = "secret" } }
responds = { status = 200, headers = { cache-control = "no-store" }, body = '{"ticket": "${ticket}"}' }
kv = [{ set = "ticket:${ticket}", value = "ann", ttl = "30s" }]

connect = "ann"
path = "/echo?ticket=${ticket}"
admitted = "ann"

advance = "30s"

connect = "late"
path = "/echo?ticket=${ticket}"
refused = 401"#,
    );
    let (code, out, error) = scenario(&guests::tickets(), &format!("{head}{text}"), &[]).await;
    assert_eq!(code, 0, "{out}{error}");
}
