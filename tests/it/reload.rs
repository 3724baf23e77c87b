//! Plugins replaced while clients stay: new behaviour is seen, nothing is lost, and a bad file changes nothing.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Client;
use crate::support::guests::wat;
use crate::support::{Gateway, PATIENCE, until};

const CONFIG: &str = r#"
[[route]]
name = "mark"
path = "/mark"
plugins = ["mark"]
"#;
/// Messages of a client that may be on their way at a time.
const PIPELINE: usize = 16;

/// The guest that puts this letter in the place of each message's first byte.
fn mark(letter: u8) -> Vec<u8> {
    wat("mark", &[("65 (; the mark ;)", &letter.to_string())])
}

async fn trouble(gateway: &Gateway, plugin: &str) -> Option<String> {
    let (_, text) = gateway.admin("/plugins").await;
    let plugins: Value = serde_json::from_str(&text).unwrap();
    let known = plugins.as_array().unwrap().iter().find(|known| known["name"] == plugin).expect("the plugin is listed");
    known["trouble"].as_str().map(str::to_owned)
}

async fn reloads(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("tidegate_plugin_reloads_total", &format!("result=\"{result}\"")).await
}

/// Pipelines numbered messages until it is told to stop. Returns how many there were, and which marks came back.
async fn pipeline(client: Client, stop: Arc<AtomicBool>) -> (usize, Vec<u8>) {
    let (mut sink, mut stream) = client.into_inner().split();
    let window = Arc::new(Semaphore::new(PIPELINE));
    let room = window.clone();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            room.acquire().await.unwrap().forget();
            sink.send(Message::text(format!("_{sent}"))).await.expect("the session was lost");
            sent += 1;
        }
        sink.send(Message::Close(None)).await.unwrap();
        sent
    });
    let (mut received, mut marks) = (0, Vec::new());
    loop {
        let message = tokio::time::timeout(PATIENCE, stream.next()).await.expect("an answer is missing");
        match message.expect("the stream ends without a close").unwrap() {
            Message::Text(text) => {
                assert_eq!(text[1..], received.to_string(), "lost, twice or out of order");
                if marks.last() != Some(&text.as_bytes()[0]) {
                    marks.push(text.as_bytes()[0]);
                }
                received += 1;
                window.add_permits(1);
            }
            Message::Close(_) => break,
            other => panic!("{other:?} came"),
        }
    }
    assert_eq!(sending.await.unwrap(), received, "each message is answered");
    (received, marks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_replaced_under_load_loses_nothing() {
    const CLIENTS: usize = 4;
    let gateway = Gateway::start_with(CONFIG, &[("mark", mark(b'A'))]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = Client::connect(&gateway.ws_url("/mark")).await;
        clients.push(tokio::spawn(pipeline(client, stop.clone())));
    }
    let letters: Vec<u8> = (b'A'..=b'U').collect();
    for (generation, letter) in (2..).zip(&letters[1..]) {
        gateway.replace("mark", &mark(*letter));
        gateway.generation("mark", generation).await;
        // Somebody must see it before it is replaced in its turn.
        let mut probe = Client::connect(&gateway.ws_url("/mark")).await;
        assert_eq!(probe.ask("_").await.as_bytes(), [*letter]);
    }
    assert_eq!(gateway.metric("tidegate_closes_total", "code=\"1011\"").await, 0.0);
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let (messages, marks) = client.await.unwrap();
        assert!(messages > 20 * PIPELINE, "{messages} messages are no load");
        assert!(marks.is_sorted(), "an event ran on an old generation after a new one: {marks:?}");
        assert_eq!(marks.iter().collect::<BTreeSet<_>>().len(), marks.len());
        assert_eq!(marks.last(), Some(&b'U'));
    }
    assert_eq!(reloads(&gateway, "swapped").await, 20.0);
    assert_eq!(reloads(&gateway, "refused").await, 0.0);
    assert_eq!(gateway.metric("tidegate_plugin_call_failures_total", "").await, 0.0);
    assert_eq!(gateway.metric("tidegate_events_failed_total", "").await, 0.0);
    // Old generations have gone with their instances: there are no more than calls at a time.
    assert!(gateway.metric("tidegate_plugin_instances", "mark").await <= (CLIENTS + 1) as f64);
}

#[tokio::test]
async fn a_broken_file_leaves_the_old_one_serving() {
    let gateway = Gateway::start_with(CONFIG, &[("mark", mark(b'A'))]).await;
    let mut client = Client::connect(&gateway.ws_url("/mark")).await;
    let whole = mark(b'B');
    let text = |text: &str| wat::parse_str(text).unwrap();
    let memory = r#"(memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))"#;
    let inbound = r#"(func (export "tidegate:plugin/on-inbound@0.1.0#handle")"#;
    let broken = [
        ("garbage", b"PK\x03\x04 this is an archive".to_vec(), "not a WebAssembly file"),
        ("half of a file", whole[..whole.len() / 2].to_vec(), "not a valid WebAssembly module"),
        ("nothing", Vec::new(), "not a WebAssembly file"),
        ("no hooks", text("(module)"), "it has no hook"),
        (
            "an unknown import",
            text(&format!(
                r#"(module (import "tidegate:plugin/teleport@0.1.0" "beam" (func)) {memory}
                   {inbound} (param i64 i32 i32 i32) (result i32) (i32.const 64)))"#
            )),
            "teleport",
        ),
        (
            "a wrong signature",
            text(&format!("(module {memory} {inbound} (param i32) (result i32) (i32.const 64)))")),
            "does not fit the interface",
        ),
        ("an init that fails", wat("refuses", &[]), "the licence has run out"),
        ("another processor's code", b"\x7fELF\x02\x01\x01".to_vec(), "not a WebAssembly file"),
    ];
    for (count, (what, bytes, why)) in broken.iter().enumerate() {
        gateway.replace("mark", bytes);
        until(&format!("{why:?} as the trouble with {what}"), || async {
            let refused = reloads(&gateway, "refused").await == (count + 1) as f64;
            trouble(&gateway, "mark").await.filter(|said| refused && said.contains(why))
        })
        .await;
        gateway.log_line(&["the new file cannot serve", "mark.wasm", why]).await;
        assert_eq!(client.ask("_").await, "A", "{what}");
    }
    assert_eq!(reloads(&gateway, "swapped").await, 0.0);
    assert_eq!(gateway.metric("tidegate_plugin_generation", "mark").await, 1.0);
    gateway.replace("mark", &whole);
    gateway.generation("mark", 2).await;
    assert_eq!(client.ask("_").await, "B", "a good file heals");
    assert_eq!(trouble(&gateway, "mark").await, None);
    assert_eq!(gateway.metric("tidegate_closes_total", "").await, 0.0);
}

#[tokio::test]
async fn a_deleted_file_leaves_its_generation_serving() {
    let gateway = Gateway::start_with(CONFIG, &[("mark", mark(b'A'))]).await;
    let mut client = Client::connect(&gateway.ws_url("/mark")).await;
    std::fs::remove_file(gateway.plugin_dir().join("mark.wasm")).unwrap();
    let said = until("the trouble", || async { trouble(&gateway, "mark").await }).await;
    assert!(said.contains("gone"), "{said}");
    gateway.log_line(&["file is gone", "mark.wasm"]).await;
    assert_eq!(client.ask("_").await, "A");
    assert_eq!(Client::connect(&gateway.ws_url("/mark")).await.ask("_").await, "A");
    gateway.replace("mark", &mark(b'B'));
    gateway.generation("mark", 2).await;
    assert_eq!(client.ask("_").await, "B");
    assert_eq!(trouble(&gateway, "mark").await, None);
}

#[tokio::test]
async fn a_file_that_is_renamed_to_its_place_need_not_settle() {
    let gateway = Gateway::start_with(&format!("reload_settle = \"1h\"\n{CONFIG}"), &[("mark", mark(b'A'))]).await;
    // Again and again, as the gateway serves before it watches.
    until("generation 2", || async {
        gateway.replace("mark", &mark(b'B'));
        (gateway.metric("tidegate_plugin_generation", "mark").await == 2.0).then_some(())
    })
    .await;
    // Written in place it must, also where it was renamed before that.
    std::fs::write(gateway.plugin_dir().join("mark.wasm"), mark(b'C')).unwrap();
    // The gateway is told at once, and would compile it in less.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut client = Client::connect(&gateway.ws_url("/mark")).await;
    assert_eq!(client.ask("_").await, "B");
    gateway.replace("mark", &mark(b'D'));
    gateway.generation("mark", 3).await;
    assert_eq!(client.ask("_").await, "D");
    assert_eq!(reloads(&gateway, "swapped").await, 2.0);
}

#[tokio::test]
async fn a_file_that_is_written_in_place_serves_when_it_is_whole() {
    let gateway = Gateway::start_with(CONFIG, &[("mark", mark(b'A'))]).await;
    let mut client = Client::connect(&gateway.ws_url("/mark")).await;
    let bytes = mark(b'B');
    let mut file = std::fs::File::create(gateway.plugin_dir().join("mark.wasm")).unwrap();
    // Slower than a look at the file takes to be worth it, faster than a file takes to be left alone.
    for piece in bytes.chunks(bytes.len().div_ceil(25)) {
        file.write_all(piece).unwrap();
        assert_eq!(client.ask("_").await, "A", "half of a file serves");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    drop(file);
    gateway.generation("mark", 2).await;
    assert_eq!(client.ask("_").await, "B");
    assert_eq!(reloads(&gateway, "swapped").await, 1.0);
    assert_eq!(trouble(&gateway, "mark").await, None);
}

#[tokio::test]
async fn a_link_that_points_elsewhere_is_another_file() {
    let directory = Gateway::prepare(CONFIG, &[]);
    let releases = directory.path().join("releases");
    for (release, letter) in [("one", b'A'), ("two", b'B')] {
        std::fs::create_dir_all(releases.join(release)).unwrap();
        std::fs::write(releases.join(release).join("mark.wasm"), mark(letter)).unwrap();
    }
    // The directory of the release is the link, as where a whole release is put in place at once.
    let current = directory.path().join("current");
    let point_to = |release: &str| {
        let new = directory.path().join("current.new");
        std::os::unix::fs::symlink(releases.join(release), &new).unwrap();
        std::fs::rename(new, &current).unwrap();
    };
    point_to("one");
    std::os::unix::fs::symlink(current.join("mark.wasm"), directory.path().join("plugins/mark.wasm")).unwrap();
    point_to("one");
    let gateway = Gateway::run_in(directory.path()).await;
    let mut client = Client::connect(&gateway.ws_url("/mark")).await;
    assert_eq!(client.ask("_").await, "A");
    point_to("two");
    gateway.generation("mark", 2).await;
    assert_eq!(client.ask("_").await, "B");
    // A link into nothing is a file that is gone.
    std::fs::remove_file(releases.join("two/mark.wasm")).unwrap();
    let said = until("the trouble", || async { trouble(&gateway, "mark").await }).await;
    assert!(said.contains("gone"), "{said}");
    assert_eq!(client.ask("_").await, "B");
    point_to("one");
    gateway.generation("mark", 3).await;
    assert_eq!(client.ask("_").await, "A");
}

#[tokio::test]
async fn the_same_content_is_no_new_generation() {
    let gateway = Gateway::start_with(CONFIG, &[("mark", mark(b'A'))]).await;
    let file = gateway.plugin_dir().join("mark.wasm");
    gateway.replace("mark", &mark(b'A'));
    std::fs::write(&file, mark(b'A')).unwrap();
    std::fs::remove_file(&file).unwrap();
    until("the trouble", || async { trouble(&gateway, "mark").await }).await;
    gateway.replace("mark", &mark(b'A'));
    until("the end of the trouble", || async { trouble(&gateway, "mark").await.is_none().then_some(()) }).await;
    assert_eq!(reloads(&gateway, "").await, 0.0);
    assert_eq!(gateway.metric("tidegate_plugin_generation", "mark").await, 1.0);
    // Another content of the same length, with the time of modification set back, is one.
    let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
    std::fs::write(&file, mark(b'B')).unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    gateway.generation("mark", 2).await;
    assert_eq!(Client::connect(&gateway.ws_url("/mark")).await.ask("_").await, "B");
}

#[tokio::test]
async fn two_thousand_swaps_take_no_memory() {
    const PLUGINS: usize = 20;
    const ROUNDS: usize = 102;
    let route = |number| format!("[[route]]\nname = \"m{number}\"\npath = \"/m{number}\"\nplugins = [\"m{number}\"]\n");
    let plugin = |number| format!("[plugin.m{number}]\nfile = \"mark.wasm\"\n");
    // One file under twenty names: each replacement is twenty swaps.
    let config: String = (0..PLUGINS).map(route).chain((0..PLUGINS).map(plugin)).collect();
    let gateway = Gateway::start_with(&config, &[("mark", mark(b'A'))]).await;
    let mut clients = Vec::new();
    for number in 0..PLUGINS {
        clients.push(Client::connect(&gateway.ws_url(&format!("/m{number}"))).await);
    }
    let mut warm = 0;
    for round in 1..=ROUNDS {
        let letter = b'A' + (round % 4) as u8;
        gateway.replace("mark", &mark(letter));
        let generations = (PLUGINS * (round + 1)) as f64;
        until("the round's generations", || async {
            (gateway.metric("tidegate_plugin_generation", "").await == generations).then_some(())
        })
        .await;
        for client in &mut clients {
            assert_eq!(client.ask("_").await.as_bytes(), [letter]);
        }
        if round == 2 {
            warm = gateway.resident();
        }
    }
    assert_eq!(reloads(&gateway, "swapped").await, (PLUGINS * ROUNDS) as f64);
    // The last of the old ones goes when the thread that replaced it is done.
    until("the end of the old instances", || async {
        (gateway.metric("tidegate_plugin_instances", "").await <= (2 * PLUGINS) as f64).then_some(())
    })
    .await;
    let grown = gateway.resident().saturating_sub(warm);
    assert!(grown < GROWTH, "2,000 swaps grew the process by {grown} bytes");
}

/// What the allocator may keep back; were a generation to stay, its code alone would be some hundred KiB each time.
const GROWTH: usize = 8 << 20;

/// Swaps ten times a second while clients pipeline.
async fn swapped_under_load(time: Duration) {
    const CLIENTS: usize = 4;
    const EVERY: Duration = Duration::from_millis(100);
    let gateway = Gateway::start_with(CONFIG, &[("mark", mark(b'A'))]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = Client::connect(&gateway.ws_url("/mark")).await;
        clients.push(tokio::spawn(pipeline(client, stop.clone())));
    }
    let swaps = (time.as_millis() / EVERY.as_millis()) as u64;
    let mut ticks = tokio::time::interval(EVERY);
    let mut warm = 0;
    for swap in 1..=swaps {
        ticks.tick().await;
        gateway.replace("mark", &mark(b'A' + (swap % 26) as u8));
        gateway.generation("mark", swap + 1).await;
        if swap == swaps / 4 {
            warm = gateway.resident();
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let (messages, marks) = client.await.unwrap();
        assert!(messages > 20 * PIPELINE, "{messages} messages are no load");
        assert!(marks.len() as u64 > swaps / 2, "{} of {swaps} swaps were seen", marks.len());
        let steps = marks.windows(2).map(|pair| (26 + pair[1] - pair[0]) % 26);
        // Were an event to run on an old generation after a new one, the mark would go back by one: forward by 25.
        assert!(steps.into_iter().all(|step| step < 13), "an event ran on an old generation: {marks:?}");
    }
    assert_eq!(reloads(&gateway, "swapped").await, swaps as f64);
    assert_eq!(gateway.metric("tidegate_plugin_call_failures_total", "").await, 0.0);
    assert_eq!(gateway.metric("tidegate_closes_total", "code=\"1011\"").await, 0.0);
    until("the end of the old instances", || async {
        (gateway.metric("tidegate_plugin_instances", "mark").await <= (2 * (CLIENTS + 1)) as f64).then_some(())
    })
    .await;
    // The first of them are compiled, and what that takes is given back slowly.
    let grown = if swaps < 200 { 0 } else { gateway.resident().saturating_sub(warm) };
    assert!(grown < GROWTH, "{swaps} swaps under load grew the process by {grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_swaps_a_second_lose_nothing() {
    swapped_under_load(Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak: takes a minute; cargo xtask test --soak"]
async fn ten_swaps_a_second_for_a_minute_lose_nothing() {
    swapped_under_load(Duration::from_secs(60)).await;
}
