//! Each limit of a plugin is where the configuration puts it, and says its name when it is met.

use std::fmt::Write;
use std::time::Instant;

use crate::support::client::Client;
use crate::support::guests::wat;
use crate::support::{Gateway, PATIENCE, children, cpu_time, is_running, until, until_within};

/// A guest that does what a message's letter says, as often or as much as the number behind it says; then it sends "ok".
const WORKER: &str = r#"(module
  (import "tidegate:plugin/session@0.1.0" "send" (func $send (param i64 i32 i32 i32) (result i32)))
  (import "tidegate:plugin/clock@0.1.0" "now" (func $now (result i64)))
  (memory (export "memory") 1)
  (table $functions 1 funcref)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func $deep (param i32) (result i32)
    (if (result i32) (i32.eqz (local.get 0))
      (then (i32.const 0))
      (else (i32.add (call $deep (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))))
  (func (export "tidegate:plugin/on-inbound@0.1.0#handle")
    (param $session i64) (param $kind i32) (param $at i32) (param $len i32) (result i32)
    (local $count i32) (local $letter i32)
    (local.set $letter (i32.load8_u (local.get $at)))
    ;; The number behind the letter.
    (loop $digits
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $len (i32.sub (local.get $len) (i32.const 1)))
      (if (local.get $len)
        (then
          (local.set $count (i32.add (i32.mul (local.get $count) (i32.const 10))
            (i32.sub (i32.load8_u (local.get $at)) (i32.const 48))))
          (br $digits))))
    (if (i32.eq (local.get $letter) (i32.const 100)) ;; d: how deep
      (then (drop (call $deep (local.get $count)))))
    (if (i32.eq (local.get $letter) (i32.const 116)) ;; t: table elements more
      (then (if (i32.eq (table.grow $functions (ref.null func) (local.get $count)) (i32.const -1)) (then unreachable))))
    (if (i32.eq (local.get $letter) (i32.const 109)) ;; m: pages more
      (then (if (i32.eq (memory.grow (local.get $count)) (i32.const -1)) (then unreachable))))
    (loop $times
      (if (local.get $count)
        (then
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (if (i32.eq (local.get $letter) (i32.const 101)) ;; e: effects, of no bytes
            (then (drop (call $send (local.get $session) (i32.const 0) (i32.const 0) (i32.const 0)))))
          (if (i32.eq (local.get $letter) (i32.const 104)) ;; h: host calls
            (then (drop (call $now))))
          (br $times))))
    (if (i32.eq (local.get $letter) (i32.const 111)) ;; o: one effect of a length
      (then (drop (call $send (local.get $session) (i32.const 1) (i32.const 0) (local.get $len)))))
    (drop (call $send (local.get $session) (i32.const 0) (i32.const 2048) (i32.const 2)))
    (i32.store8 (i32.const 64) (i32.const 0))
    (i32.store8 (i32.const 68) (i32.const 2))
    (i32.const 64))
  (data (i32.const 2048) "ok"))"#;

const CONFIG: &str = r#"
plugin_stack = "64KiB"

[[route]]
name = "worker"
path = "/worker"
plugins = ["worker"]

[plugin.worker]
breaker = { window = "0s" }
limits = { memory = "1MiB", tables = 100, effects = 10, host_calls = 20 }
"#;

#[tokio::test]
async fn a_limit_holds_to_the_last_and_no_further() {
    let gateway = Gateway::start_with(CONFIG, &[("worker", wat::parse_str(WORKER).unwrap())]).await;
    let failed = |why: &str| {
        let label = format!("hook=\"inbound\",plugin=\"worker\",why=\"{why}\"");
        let gateway = &gateway;
        async move { gateway.metric("tidegate_plugin_call_failures_total", &label).await }
    };
    // What is just within the limit and what is just beyond, where both are counted exactly. The answer itself is an
    // effect and a host call.
    let cases = [
        ("e9", "e10", "effects", 9),
        ("h19", "h20", "host_calls", 0),
        // What joins the module to the host has a few elements of its own.
        ("t80", "t20", "tables", 0),
        ("m15", "m16", "memory", 0),
        ("d100", "d20000", "stack", 0),
    ];
    for (within, beyond, why, before) in cases {
        // An instance of its own: the former one's memory and tables are gone with it.
        let mut client = Client::connect(&gateway.ws_url("/worker")).await;
        client.send(within).await;
        for _ in 0..before {
            assert_eq!(client.text().await, "");
        }
        assert_eq!(client.text().await, "ok", "{within}");
        assert_eq!(failed(why).await, 0.0, "{within}");
        client.send(beyond).await;
        assert_eq!(client.ask("-").await, "ok");
        assert_eq!(failed(why).await, 1.0, "{beyond}");
        client.close().await;
    }
}

#[tokio::test]
async fn more_stack_is_more_depth() {
    let config = CONFIG.replace("64KiB", "1MiB");
    let gateway = Gateway::start_with(&config, &[("worker", wat::parse_str(WORKER).unwrap())]).await;
    let mut client = Client::connect(&gateway.ws_url("/worker")).await;
    assert_eq!(client.ask("d20000").await, "ok");
    assert_eq!(gateway.metric("tidegate_plugin_call_failures_total", "").await, 0.0);
}

#[tokio::test]
async fn a_call_that_waits_waits_no_longer_than_its_wall() {
    let echo = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/guests/mark.wat")).unwrap();
    // Sleeps for as many seconds as its message's first byte says, by way of WASI's preview 1.
    let sleeper = echo
        .replace(
            "(memory (export",
            r#"(import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export"#,
        )
        .replace(
            "(drop (call $send",
            "(i64.store (i32.const 536) (i64.mul (i64.const 1000000000) (i64.load8_u (local.get $at))))
    (i32.store (i32.const 528) (i32.const 1))
    (drop (call $poll (i32.const 512) (i32.const 576) (i32.const 1) (i32.const 640)))
    (drop (call $send",
        )
        .replace("(i32.const 65 (; the mark ;))", "(i32.sub (i32.load8_u (local.get $at)) (i32.const 48))");
    let config = format!("{LOADED}[plugin.mark]\nlimits = {{ wall = \"2s\" }}\n");
    let gateway = Gateway::start_with(&config, &[("mark", wat::parse_str(sleeper).unwrap())]).await;
    let mut client = Client::connect(&gateway.ws_url("/mark")).await;
    assert_eq!(client.ask("1").await, "\u{1}");
    client.send("9").await;
    assert_eq!(client.ask("0").await, "\0");
    let failed = gateway.metric("tidegate_plugin_call_failures_total", "hook=\"inbound\",plugin=\"mark\",why=\"wall\"");
    assert_eq!(failed.await, 1.0);
    gateway.log_line(&["the event failed", "no answer within 2s (`wall`)"]).await;
}

/// A plugin of many functions that take the compiler long, and much memory.
fn laborious(functions: usize) -> Vec<u8> {
    let mut body = String::new();
    for at in 0..400 {
        let (a, b) = (at % 30, (at * 7 + 3) % 30);
        write!(body, "(if (i64.lt_s (local.get {a}) (local.get {b})) (then (local.set {a} (i64.add (i64.mul (local.get {a}) (local.get {b})) (i64.const {at})))) (else (local.set {b} (i64.xor (local.get {b}) (i64.rotl (local.get {a}) (i64.const {at}))))))").unwrap();
    }
    let function = format!("(func (param i64) (result i64) (local {}) {body} (local.get 3))", "i64 ".repeat(30));
    let echo = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/guests/mark.wat")).unwrap();
    let end = echo.rfind(')').unwrap();
    wat::parse_str(format!("{}{})", &echo[..end], function.repeat(functions))).unwrap()
}

const LOADED: &str = "[[route]]\nname = \"mark\"\npath = \"/mark\"\nplugins = [\"mark\"]\n";

async fn refused(limits: &str, file: &[u8], result: &str) -> (Gateway, String) {
    let config = format!("{LOADED}[plugin.mark]\nlimits = {limits}\n");
    let gateway = Gateway::start_with(&config, &[("mark", wat("mark", &[]))]).await;
    gateway.replace("mark", file);
    let label = format!("plugin=\"mark\",result=\"{result}\"");
    until_within(6 * PATIENCE, &format!("{result} to be counted"), || async {
        (gateway.metric("tidegate_plugin_reloads_total", &label).await == 1.0).then_some(())
    })
    .await;
    let mut client = Client::connect(&gateway.ws_url("/mark")).await;
    assert_eq!(client.ask("_ell").await, "Aell", "the former file goes on");
    let (_, plugins) = gateway.admin("/plugins").await;
    let plugins: serde_json::Value = serde_json::from_str(&plugins).unwrap();
    (gateway, plugins[0]["trouble"].as_str().expect("a trouble").to_owned())
}

#[tokio::test]
async fn a_file_larger_than_its_limit_is_not_read() {
    let (_gateway, why) = refused("{ file = \"4KiB\" }", &laborious(20), "file").await;
    assert!(why.contains("more than the 4096 of its limit (`file`)"), "{why}");
}

#[tokio::test]
async fn compiling_takes_no_more_than_its_time() {
    let (gateway, why) = refused("{ compile = \"1s\" }", &laborious(300), "compile").await;
    assert!(why.contains("compiling it takes more than 1s of CPU time (`compile`)"), "{why}");
    // The gateway itself has compiled nothing: all of its own CPU time is less than what that took.
    let spent = cpu_time(gateway.pid());
    assert!(spent.as_millis() < 900, "{spent:?}");
}

#[tokio::test]
async fn compiling_takes_no_more_than_its_memory() {
    let (gateway, why) = refused("{ compile_memory = \"64MiB\" }", &laborious(300), "compile_memory").await;
    assert!(why.contains("more than 64.0 MiB of memory (`compile_memory`)"), "{why}");
    assert!(gateway.resident() < 300 << 20);
}

#[tokio::test]
async fn a_compiler_ends_with_its_gateway() {
    let mut gateway = Gateway::start_with(LOADED, &[("mark", wat("mark", &[]))]).await;
    gateway.replace("mark", &laborious(300));
    let compiler = until("a compiler", || async { children(gateway.pid()).first().copied() }).await;
    let begun = Instant::now();
    gateway.terminate();
    until("the compiler's end", || async { (!is_running(compiler)).then_some(()) }).await;
    assert!(gateway.ended().await.success());
    assert!(begun.elapsed().as_secs() < 10, "the gateway has waited for the compiler");
}
