//! Recordings of a route's plugin calls, and their replays: the same build comes to the same, another shows where not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::guests::{self, wat};
use crate::support::http::{Upstream, ask};
use crate::support::{Gateway, tidegate, until};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const CHAT: &str = r#"
[[topic]]
pattern = "room:*"
history = { size = 5, ttl = "1h" }
presence = true

[[route]]
name = "chat"
path = "/chat/{room}"
plugins = ["jwt-auth", "chat"]
topics = ["room:*"]
record = { on = true }

[plugin.jwt-auth.grants]
headers = ["authorization", "cookie"]

[plugin.jwt-auth.config]
secret = "0123456789abcdef0123456789abcdef"

[plugin.chat.grants]
publish = ["room:*"]
subscribe = ["room:*"]
users = true
"#;

/// A route of one plugin in text form, which is recorded from the beginning.
fn one(more: &str) -> String {
    format!(
        "[[route]]\nname = \"one\"\npath = \"/one\"\nplugins = [\"one\"]\nrecord = {{ on = true }}\n\
         [plugin.one.grants]\nkv = [\"\"]\n{more}\n"
    )
}

fn recording(gateway: &Gateway, route: &str) -> PathBuf {
    gateway.plugin_dir().parent().unwrap().join(format!("recordings/{route}.jsonl"))
}

/// Ends a route's recording and returns its file, whole.
async fn recorded(gateway: &Gateway, route: &str) -> PathBuf {
    let (status, page) = gateway.admin_post(&format!("/routes/{route}/record/stop"), "").await;
    assert_eq!(status, 200, "{page}");
    whole(&recording(gateway, route)).await
}

/// Waits for a recording's last line.
async fn whole(file: &Path) -> PathBuf {
    until("the recording's last line", || async {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().last()?.starts_with("{\"end\"").then_some(())
    })
    .await;
    file.to_owned()
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn calls(file: &Path) -> Vec<Value> {
    lines(file).into_iter().filter_map(|line| line.get("call").cloned()).collect()
}

/// Exit code, and what was printed on stdout and on stderr.
async fn replay(file: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = tidegate(file.parent().unwrap()).arg("replay").arg(file).args(arguments).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn plugin(name: &str) -> String {
    let built = guests::built().into_iter().find(|(known, _)| known == name);
    built.unwrap_or_else(|| panic!("{name} is missing: cargo xtask plugins")).1.display().to_string()
}

/// Two users, what they say, a password among it, and their tokens.
async fn chat(gateway: &Gateway) -> Vec<String> {
    let tokens = vec![gateway.token("ann"), gateway.token("bob")];
    let mut ann = Client::connect(&gateway.ws_url(&format!("/chat/blue?token={}", tokens[0]))).await;
    ann.json_of_type("welcome").await;
    let bearer = format!("Bearer {}", tokens[1]);
    let mut bob = Client::try_connect(&gateway.ws_url("/chat/blue"), &[("authorization", &bearer)]).await.ok().unwrap();
    bob.json_of_type("welcome").await;
    for text in ["hello", "it is raining"] {
        ann.send_json(json!({ "type": "say", "text": text })).await;
        bob.json_of_type("message").await;
    }
    ann.send_json(json!({ "type": "say", "text": "mine", "password": "hunter22-hunter22" })).await;
    bob.json_of_type("message").await;
    bob.send_json(json!({ "type": "direct", "to": "ann", "text": "psst" })).await;
    ann.json_of_type("direct").await;
    bob.send_json(json!({ "type": "who" })).await;
    bob.json_of_type("members").await;
    bob.close().await;
    ann.json_of_type("left").await;
    tokens
}

#[tokio::test]
async fn the_build_that_was_recorded_comes_to_the_same_and_another_shows_where_not() {
    let gateway = Gateway::start(CHAT).await;
    let tokens = chat(&gateway).await;
    let file = recorded(&gateway, "chat").await;
    let text = fs::read_to_string(&file).unwrap();
    for secret in tokens.iter().map(String::as_str).chain(["hunter22", SECRET]) {
        assert!(!text.contains(secret), "{secret} is in the recording");
    }
    assert!(text.contains("REDACTED") && text.contains("it is raining"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let head = &lines(&file)[0]["tidegate-recording"];
    assert_eq!((&head["version"], &head["route"]), (&json!(1), &json!("chat")));

    let (code, told, error) = replay(&file, &["--plugin", &plugin("chat")]).await;
    assert_eq!((code, &*error), (0, ""), "{told}");
    let counted = calls(&file).iter().filter(|call| call["plugin"] == "chat").count();
    assert!(counted >= 10 && told.contains(&format!("{counted} calls: {counted} the same, 0 different")), "{told}");

    let v2 = format!("chat={}", guests::chat_v2().display());
    let (code, told, error) = replay(&file, &["--plugin", &v2]).await;
    assert_eq!(code, 1, "{told}{error}");
    assert!(told.contains("message.text: \"it is raining\" became \"it is raining (v2)\""), "{told}");
    assert!(told.contains("2 different, 1 not comparable"), "what a redacted password means is not known: {told}");
    let inbound = calls(&file).iter().position(|call| call["hook"] == "inbound").unwrap();
    let line = lines(&file).iter().position(|line| line["call"] == calls(&file)[inbound]).unwrap() + 1;
    assert!(told.contains(&format!("chat.jsonl:{line} inbound of chat, session ")), "{told}");
    let (code, told, _) = replay(&file, &["--plugin", &v2, "--hook", "opened", "--hook", "presence"]).await;
    assert_eq!(code, 0, "it differs in `inbound` alone: {told}");
    let (code, told, _) = replay(&file, &["--plugin", &v2, "--json"]).await;
    let json: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, json.len()), (1, 4), "{told}");
    assert_eq!(json[0]["line"], line);
    assert_eq!((&json[3]["summary"]["different"], &json[3]["summary"]["not_comparable"]), (&json!(2), &json!(1)));

    // With the build that was recorded beside it, nothing is left in doubt.
    let (code, told, _) = replay(&file, &["--plugin", &v2, "--baseline", &format!("chat={}", plugin("chat"))]).await;
    assert!(code == 1 && told.contains("3 different, 0 not comparable"), "{told}");
}

#[tokio::test]
async fn a_decision_on_a_token_is_not_comparable_but_with_the_build_that_made_it() {
    let gateway = Gateway::start(CHAT).await;
    chat(&gateway).await;
    let file = recorded(&gateway, "chat").await;
    let auth = plugin("jwt-auth");
    let (code, told, error) = replay(&file, &["--plugin", &auth, "--hook", "authenticate"]).await;
    assert_eq!(code, 2, "{told}{error}");
    assert!(error.contains("nothing could be compared: in all of the 2 calls it matters what was redacted"), "{error}");
    assert!(told.contains("secrets of jwt-auth's settings are not in the recording"), "{told}");
    let (code, told, error) = replay(&file, &["--plugin", &auth, "--baseline", &auth]).await;
    assert_eq!((code, &*error), (0, ""), "{told}");
    assert!(told.contains("2 calls were compared with what the baseline makes of them"), "{told}");
    let config = gateway.plugin_dir().parent().unwrap().join("tidegate.toml").display().to_string();
    let both = ["--plugin", &auth, "--plugin", &plugin("chat"), "--config", &config, "-v"];
    let (code, told, error) = replay(&file, &both).await;
    assert_eq!(code, 0, "{told}{error}");
    assert!(told.contains("not comparable: it was given something that was redacted"), "{told}");
    assert!(!told.contains("secrets of jwt-auth"), "they come from the configuration: {told}");
}

#[tokio::test]
async fn the_tour_in_every_language_comes_to_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/plugins/languages");
    let tours: Vec<_> = ["rust", "c", "assemblyscript", "javascript"]
        .into_iter()
        .filter_map(|language| {
            let file = folder.join(format!("tour-{language}.wasm"));
            fs::read(&file).ok().map(|bytes| (language, file, bytes))
        })
        .collect();
    assert!(tours.iter().any(|(language, ..)| *language == "rust"), "the tour in Rust is missing: cargo xtask plugins");
    let mut config = String::from("[[topic]]\npattern = \"tour:*\"\npresence = true\n");
    for (language, ..) in &tours {
        config += &format!(
            "[[route]]\nname = \"{language}\"\npath = \"/{language}\"\nplugins = [\"{language}\"]\nrecord = {{ on = true }}\n\
             [plugin.{language}]\nconfig = {{ greeting = \"hello\", longest = 4005 }}\n\
             limits = {{ memory = \"6MiB\" }}\ngrants = {{ publish = [\"tour:*\"], subscribe = [\"tour:*\"] }}\n"
        );
    }
    let guests: Vec<_> = tours.iter().map(|(language, _, bytes)| (*language, bytes.clone())).collect();
    let gateway = Gateway::start_with(&config, &guests).await;
    for (language, build, _) in &tours {
        let mut client = Client::connect(&gateway.ws_url(&format!("/{language}?name=ann"))).await;
        client.text().await;
        for words in ["join tour:1", "say tour:1 it's  a héron 🐚", "count", "leave tour:1"] {
            client.ask(words).await;
        }
        for words in ["fail", "crash"] {
            client.send(words).await;
        }
        client.ask("count").await;
        client.close().await;
        until("the session's end", || async {
            (gateway.metric("tidegate_sessions", &format!("route=\"{language}\"")).await == 0.0).then_some(())
        })
        .await;
        let file = recorded(&gateway, language).await;
        let (code, told, error) = replay(&file, &["--plugin", &build.display().to_string()]).await;
        assert_eq!((code, &*error), (0, ""), "{language}: {told}");
        let failed: Vec<_> =
            calls(&file).iter().filter_map(|call| call["failed"]["why"].as_str().map(str::to_owned)).collect();
        assert_eq!(failed.len(), 2, "{language}: {failed:?}");
        // A rewrite in another language is a build like others. Where JavaScript throws, others trap.
        let rust = format!("{language}={}", tours[0].1.display());
        let (code, told, _) = replay(&file, &["--plugin", &rust]).await;
        assert_eq!(code, i32::from(*language == "javascript"), "{language}: {told}");
    }
}

#[tokio::test]
async fn what_a_plugin_hears_from_the_store_is_heard_again_and_what_it_writes_is_compared() {
    let counter = |by: &str| wat("counter", &[("(i64.const 1) (i64.const 0) (i32.const 128)", by)]);
    let own = "(i64.const 1) (i64.const 0) (i32.const 128)";
    let gateway = Gateway::start_with(&one(""), &[("one", counter(own))]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    for count in 1..=3 {
        assert_eq!(client.ask("_").await, count.to_string());
    }
    let file = recorded(&gateway, "one").await;
    let asked: Vec<_> = calls(&file).iter().map(|call| call["asked"].clone()).collect();
    assert_eq!(asked[2], json!([{ "ask": "kv.increment", "key": "n", "by": 1, "ttl": 0, "is": 3 }]));
    let build = |name: &str, bytes: Vec<u8>| {
        let path = file.with_file_name(format!("{name}.wasm"));
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let same = build("same", counter(own));
    for _ in 0..2 {
        let (code, told, error) = replay(&file, &["--plugin", &same]).await;
        assert_eq!((code, &*error), (0, ""), "{told}");
        assert!(told.contains("3 calls: 3 the same"), "{told}");
    }
    // The same answer serves where only the time to live is another; that it is written is a difference.
    let other = build("other", counter("(i64.const 1) (i64.const 9) (i32.const 128)"));
    let (code, told, _) = replay(&file, &["--plugin", &other]).await;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("  + at once { ask = \"kv.increment\", by = 1, key = \"n\", ttl = 9 }"), "{told}");
    assert!(told.contains("ttl: 0 became 9") && !told.contains("fails"), "{told}");
    let more = build("more", counter("(i64.const 2) (i64.const 0) (i32.const 128)"));
    let (code, told, _) = replay(&file, &["--plugin", &more, "--limit", "1"]).await;
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("to which the recording has no answer") && told.contains("1 calls: "), "{told}");
    assert!(told.contains("--limit: nothing after line 3 was replayed"), "{told}");
    let (code, told, _) = replay(&file, &["--plugin", &build("mark", wat("mark", &[]))]).await;
    assert!(code == 1 && told.contains("  - at once { ask = \"kv.increment\""), "{told}");
}

#[tokio::test]
async fn deliveries_subscriptions_and_answers_of_upstreams_are_calls_like_others() {
    let upstream = Upstream::start(1).await;
    let config = format!(
        "[[upstream]]\nname = \"back\"\nurl = \"{}\"\n\
         [[topic]]\npattern = \"kept:*\"\nhistory = {{ size = 3, ttl = \"1h\" }}\n\
         [[route]]\nname = \"by-hand\"\npath = \"/by-hand\"\nplugins = [\"hooks\"]\noutbound = true\ntopics = [\"kept:*\"]\n\
         record = {{ on = true }}\n\
         [plugin.hooks.grants]\npublish = [\"*\"]\nsubscribe = [\"*\"]\nusers = true\nupstreams = [\"back\"]\n",
        upstream.url("/hello")
    );
    let gateway = Gateway::start_with(&config, &[("hooks", guests::hooks())]).await;
    let mut client = Client::connect(&gateway.ws_url("/by-hand?user=ann")).await;
    client.send("join kept:1").await;
    assert_eq!(client.text().await, "joining");
    assert!(client.text().await.starts_with("subscribed kept:1"));
    client.send("publish kept:1 hello").await;
    assert!(client.text().await.contains("hello"));
    client.send("ask tag words").await;
    client.text().await;
    client.close().await;
    let file = recorded(&gateway, "by-hand").await;
    let hooks: std::collections::BTreeSet<_> =
        calls(&file).iter().map(|call| call["hook"].as_str().unwrap().to_owned()).collect();
    for hook in ["opened", "inbound", "outbound", "broadcast", "subscription", "reply"] {
        assert!(hooks.contains(hook), "{hook} is not in {hooks:?}");
    }
    let build = gateway.plugin_dir().join("hooks.wasm").display().to_string();
    let (code, told, error) = replay(&file, &["--plugin", &build]).await;
    assert_eq!((code, &*error), (0, ""), "{told}");
}

#[tokio::test]
async fn plain_http_and_answers_of_other_servers_are_recorded_without_their_secrets() {
    let upstream = Upstream::start(1).await;
    let config = format!(
        "[[route]]\nname = \"out\"\npath = \"/out/{{*rest}}\"\nplugins = [\"http\"]\nrecord = {{ on = true }}\n\
         [plugin.http.grants]\nhttp = [\"{}\"]\nheaders = [\"*\"]\nkv = [\"count\"]\n",
        upstream.address
    );
    let gateway = Gateway::start_with(&config, &[("http", guests::http())]).await;
    let url = upstream.url("/echo");
    let body = "{\"token\":\"correct-horse\",\"n\":1}";
    let headers = [("authorization", "Bearer battery-staple"), ("accept", "a/b")];
    let echoed = ask(gateway.address(), "POST", &format!("/out/fetch?{url}"), &headers, body).await;
    assert!(echoed.status == 200 && echoed.body.contains("correct-horse"), "{}", echoed.body);
    assert_eq!(ask(gateway.address(), "GET", "/out/echo?token=xyzzy-plugh&x=1", &headers, "").await.status, 200);
    let file = recorded(&gateway, "out").await;
    let text = fs::read_to_string(&file).unwrap();
    for secret in ["correct-horse", "battery-staple", "xyzzy-plugh"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let asked = &calls(&file)[0]["asked"];
    let request = asked.as_array().unwrap().iter().find(|question| question["ask"] == "http.request").unwrap();
    assert_eq!((&request["url"], &request["is"]["status"]), (&json!(url), &json!(200)), "{request}");
    // Nobody is there to be asked any more.
    drop(upstream);
    let build = gateway.plugin_dir().join("http.wasm").display().to_string();
    let (code, told, error) = replay(&file, &["--plugin", &build, "-v"]).await;
    assert_eq!((code, &*error), (0, ""), "{told}");
    assert!(told.contains("2 calls: 2 the same, 0 different, 0 not comparable"), "{told}");
    assert!(told.contains("were given something that was redacted"), "{told}");
}

#[tokio::test]
async fn a_full_file_ends_the_recording_and_nothing_else() {
    let config = one("").replace("on = true", "on = true, bytes = \"8KiB\"");
    let gateway = Gateway::start_with(&config, &[("one", wat("mark", &[]))]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    for _ in 0..100 {
        assert_eq!(client.ask("_").await, "A");
    }
    let file = whole(&recording(&gateway, "one")).await;
    assert!(fs::metadata(&file).unwrap().len() <= 8 << 10);
    let end = lines(&file).last().unwrap()["end"].clone();
    let recorded = calls(&file).len();
    assert_eq!((&end["why"], &end["calls"]), (&json!("full"), &json!(recorded)));
    assert!((5..100).contains(&recorded), "{recorded}");
    gateway.log_line(&["the recording has ended", "\"why\":\"full\""]).await;
    until("the end", || async { (gateway.metric("tidegate_recordings", "one").await == 0.0).then_some(()) }).await;
    assert_eq!(gateway.metric("tidegate_recorded_calls_total", "one").await, recorded as f64);
    let build = gateway.plugin_dir().join("one.wasm").display().to_string();
    let (code, told, _) = replay(&file, &["--plugin", &build]).await;
    assert!(code == 0 && told.contains(&format!("{recorded} calls: {recorded} the same")), "{told}");
    let page: Value = serde_json::from_str(&gateway.admin("/recordings").await.1).unwrap();
    assert_eq!((&page[0]["on"], &page[0]["ended"]), (&json!(false), &json!("full")));
}

#[tokio::test]
async fn a_place_that_cannot_be_written_touches_no_traffic() {
    let config = format!("record_directory = \"tidegate.toml/recordings\"\n{}", one(""));
    let gateway = Gateway::start_with(&config, &[("one", wat("mark", &[]))]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    assert_eq!(client.ask("_").await, "A");
    gateway.log_line(&["the route is not recorded", "tidegate.toml/recordings/one.jsonl cannot be written"]).await;
    assert_eq!(gateway.metric("tidegate_recording_errors_total", "one").await, 1.0);
    let (status, why) = gateway.admin_post("/routes/one/record", "").await;
    assert!(
        status == 500 && why.contains("the recording cannot begin: ") && why.contains("cannot be written"),
        "{why}"
    );
    assert_eq!(gateway.metric("tidegate_recording_errors_total", "one").await, 2.0);
    let page: Value = serde_json::from_str(&gateway.admin("/recordings").await.1).unwrap();
    assert!(page[0]["trouble"].as_str().unwrap().contains("cannot be written"), "{page}");
    assert_eq!(client.ask("_").await, "A");
}

#[tokio::test]
async fn operators_switch_it_while_messages_flow() {
    let config = one("").replace("record = { on = true }\n", "");
    let gateway = Gateway::start_with(&config, &[("one", wat("mark", &[]))]).await;
    let url = gateway.ws_url("/one");
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let talking = tokio::spawn(async move {
        let mut client = Client::connect(&url).await;
        let mut said = 0_u32;
        while !*stopped.borrow_and_update() {
            said += 1;
            let text = format!("_{said}");
            assert_eq!(client.ask(&text).await, format!("A{said}"), "nothing is lost or reordered");
        }
        said
    });
    let file = recording(&gateway, "one");
    for round in 0..3 {
        let (status, page) = gateway.admin_post("/routes/one/record?for=1h&bytes=32MiB", "").await;
        let page: Value = serde_json::from_str(&page).unwrap();
        assert_eq!((status, &page["on"], &page["limit"]), (200, &json!(true), &json!(32 << 20)), "{page}");
        assert_eq!(gateway.admin_post("/routes/one/record", "").await.0, 409, "it is on already");
        until("calls in the file", || async { (lines_so_far(&file) > 20).then_some(()) }).await;
        recorded(&gateway, "one").await;
        assert_eq!(gateway.admin_post("/routes/one/record/stop", "").await.0, 409, "it is off already");
        let numbers: Vec<u32> =
            calls(&file).iter().map(|call| call["given"]["message"].as_str().unwrap()[1..].parse().unwrap()).collect();
        let in_a_row = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
        assert!(in_a_row && numbers.len() >= 20, "round {round}: {numbers:?}");
    }
    assert!(file.with_file_name("one.jsonl.old").exists(), "the one before is kept");
    stop.send_replace(true);
    assert!(talking.await.unwrap() > 60);
    assert_eq!(gateway.metric("tidegate_recording_dropped_total", "").await, 0.0);
    let build = gateway.plugin_dir().join("one.wasm").display().to_string();
    assert_eq!(replay(&file, &["--plugin", &build]).await.0, 0);

    assert_eq!(gateway.admin_post("/routes/two/record", "").await.0, 404);
    assert_eq!(gateway.admin_post("/routes/one/record?for=long", "").await.0, 400);
    assert_eq!(gateway.admin_post("/routes/one/record?fro=1m", "").await.0, 400);
    assert_eq!(gateway.admin_post("/routes/one/record", "Origin: http://elsewhere\r\n").await.0, 403);
    let (status, _) = gateway.admin_post("/routes/one/record?for=1ms", "").await;
    assert_eq!(status, 200);
    assert_eq!(lines(&whole(&file).await).last().unwrap()["end"]["why"], "time");
}

/// Whole lines that are there by now.
fn lines_so_far(file: &Path) -> usize {
    fs::read_to_string(file).unwrap_or_default().matches('\n').count()
}

#[tokio::test]
async fn a_new_configuration_begins_changes_and_ends_it_and_sessions_stay() {
    let off = one("").replace("on = true", "on = false");
    let gateway = Gateway::start_with(&off, &[("one", wat("mark", &[]))]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    let file = recording(&gateway, "one");
    assert_eq!(client.ask("_before").await, "Abefore");
    assert!(!file.exists());

    gateway.reconfigure(&one(""), "applied").await;
    let said = r#"_{"pin":"987654","token":"0123456789"}"#;
    client.ask(said).await;
    // The same table again changes nothing about the recording.
    gateway.reconfigure(&one("[plugin.one.limits]\neffects = 9"), "applied").await;
    client.ask("_still").await;
    let pins = one("").replace("on = true", "on = true, redact = { fields = [\"PIN\"] }");
    gateway.reconfigure(&pins, "applied").await;
    client.ask(said).await;
    gateway.reconfigure(&off, "applied").await;
    client.ask("_after").await;
    let (first, second) = (file.with_file_name("one.jsonl.old"), whole(&file).await);
    let messages = |file: &Path| {
        calls(file).iter().map(|call| call["given"]["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(messages(&first), [r#"_{"pin":"987654","token":"REDACTED"}"#, "_still"]);
    assert_eq!(messages(&second), [r#"_{"pin":"REDACTED","token":"REDACTED"}"#]);
    let generations = lines(&first).iter().filter(|line| line.get("generation").is_some()).count();
    assert_eq!(generations, 2, "other limits are another generation");
    let build = gateway.plugin_dir().join("one.wasm").display().to_string();
    for file in [first, second] {
        let (code, told, error) = replay(&file, &["--plugin", &build]).await;
        assert_eq!((code, &*error), (0, ""), "{told}");
    }
}

#[tokio::test]
async fn a_share_is_whole_sessions() {
    let config = one("").replace("on = true", "on = true, share = 30");
    let gateway = Gateway::start_with(&config, &[("one", wat("mark", &[]))]).await;
    const SESSIONS: usize = 60;
    for _ in 0..SESSIONS {
        let mut client = Client::connect(&gateway.ws_url("/one")).await;
        client.ask("_1").await;
        client.ask("_2").await;
    }
    let file = recorded(&gateway, "one").await;
    let mut sessions = std::collections::BTreeMap::new();
    for call in calls(&file) {
        *sessions.entry(call["session"]["id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    assert!((1..SESSIONS * 2 / 3).contains(&sessions.len()), "{}", sessions.len());
    assert!(sessions.values().all(|calls| *calls == 2), "{sessions:?}");
}

#[tokio::test]
async fn a_recording_that_ends_with_the_gateway_is_whole() {
    let mut gateway = Gateway::start_with(&one(""), &[("one", wat("mark", &[]))]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    client.ask("_").await;
    client.close().await;
    gateway.terminate();
    assert!(gateway.ended().await.success());
    assert_eq!(lines(&recording(&gateway, "one")).last().unwrap()["end"]["why"], "shutdown");
}

#[tokio::test]
async fn what_is_no_recording_or_only_a_part_of_one_is_said_to_be() {
    let gateway = Gateway::start_with(&one(""), &[("one", wat("counter", &[]))]).await;
    let mut client = Client::connect(&gateway.ws_url("/one")).await;
    for _ in 0..3 {
        client.ask("_").await;
    }
    let file = recorded(&gateway, "one").await;
    let text = fs::read_to_string(&file).unwrap();
    let build = gateway.plugin_dir().join("one.wasm").display().to_string();
    let bad = file.with_file_name("bad.jsonl");
    let session = calls(&file)[0]["session"]["id"].as_str().unwrap().to_owned();
    let (first, rest) = text.split_once('\n').unwrap();
    let long = "x".repeat(17 << 20);
    for (content, expected) in [
        ("", "bad.jsonl is no recording: it is empty"),
        ("hello\n", "is no recording: its first line does not say `tidegate-recording`"),
        ("\u{0}\u{1}\n", "is no recording"),
        (first, "is no recording: its first line does not end"),
        (&text.replace("\"version\":1", "\"version\":7"), "has the form 7, and this gateway reads 1"),
        (&text[..text.len() - 3], ":6: the file ends in the middle of this line"),
        (&format!("{first}\n"), "no plugin was called while this was recorded"),
        (&format!("{text}{text}"), ":7: another recording begins here"),
        (&format!("{first}\n{{\"what\":1}}\n{rest}"), ":2: no line of a recording: unknown variant"),
        (&format!("{first}\n{long}\n"), ":2: a line with more than"),
        (&text.replace("\"hook\":\"inbound\"", "\"hook\":\"teleport\""), ":3: there is no hook \"teleport\""),
        (&text.replace(&session, "nobody"), ":3: \"nobody\" is no session's id"),
        (&text.replace("\"given\":{\"message\":\"_\"}", "\"given\":{}"), ":3: `given`: `message` is no message"),
        (&text.replace("\"generation\":1", "\"generation\":9"), "no line before has told of generation 9 of one"),
    ] {
        fs::write(&bad, content).unwrap();
        let (code, told, error) = replay(&bad, &["--plugin", &build]).await;
        assert_eq!(code, 2, "{expected}: {told}{error}");
        assert!(error.contains(expected) && error.matches('\n').count() == 1, "{expected}: {error}");
    }
    // What there is of it can be asked for.
    fs::write(&bad, &text[..text.len() - 3]).unwrap();
    let (code, told, _) = replay(&bad, &["--plugin", &build, "--partial"]).await;
    assert!(code == 0 && told.contains("3 calls: 3 the same") && told.contains("no last line"), "{told}");

    let nothing = file.with_file_name("nothing.jsonl").display().to_string();
    for (arguments, expected) in [
        (vec!["--plugin", &nothing], "nothing.jsonl cannot be tried: the file cannot be read"),
        (vec!["--plugin", "two=x.wasm"], "has no calls of the plugin two: it has those of one"),
        (vec!["--plugin", &build, "--hook", "timer"], "no call was replayed"),
        (vec!["--plugin", &build, "--config", "missing.toml"], "missing.toml: cannot be read"),
    ] {
        let (code, told, error) = replay(&file, &arguments).await;
        assert!(code == 2 && error.contains(expected), "{arguments:?}: {code} {told}{error}");
    }
    assert_eq!(replay(&file, &["--plugin", &build, "--hook", "teleport"]).await.0, 64);
    assert_eq!(replay(&file, &[]).await.0, 64);
}

#[tokio::test]
async fn no_change_of_a_recording_makes_the_replay_panic() {
    let gateway = Gateway::start(CHAT).await;
    chat(&gateway).await;
    let file = recorded(&gateway, "chat").await;
    let bytes = fs::read(&file).unwrap();
    let build = plugin("chat");
    // Numbers of a linear congruential generator (Knuth, MMIX), the same in every run.
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut codes = std::collections::BTreeMap::new();
    for round in 0..40 {
        let mut changed = bytes.clone();
        for _ in 0..=next(4) {
            let at = next(changed.len());
            match next(5) {
                0 => changed[at] = b"{}[]\",:0-9aZ\n\\"[next(14)],
                1 => changed[at] ^= 1 << next(8),
                2 => drop(changed.drain(at..(at + next(40)).min(changed.len()))),
                3 => changed.insert(at, b'9'),
                _ => {
                    let other = next(changed.len());
                    let part = changed[other..(other + next(60)).min(changed.len())].to_vec();
                    changed.splice(at..at, part);
                }
            }
        }
        let mutated = file.with_file_name("mutated.jsonl");
        fs::write(&mutated, &changed).unwrap();
        let (code, told, error) = replay(&mutated, &["--plugin", &format!("chat={build}")]).await;
        assert!((0..=2).contains(&code), "round {round}: {code}\n{told}{error}");
        assert!(!error.contains("panicked"), "round {round}: {error}");
        *codes.entry(code).or_insert(0) += 1;
    }
    assert!(codes.len() > 1, "every change came to the same: {codes:?}");
}
