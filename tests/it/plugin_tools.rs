//! The tools for those who write plugins: inspect, test, bench.

use std::path::Path;
use std::process::Stdio;

use crate::support::{guests, tidegate};

/// Exit code, standard output, standard error.
pub(crate) async fn run(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = tidegate(directory);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(crate::support::PATIENCE, command.output()).await.expect("it goes on").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs a scenario, given as text, on a guest.
pub(crate) async fn scenario(guest: &[u8], text: &str, more: &[&str]) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("guest.wasm"), guest).unwrap();
    std::fs::write(directory.path().join("s.toml"), text).unwrap();
    run(directory.path(), &[&["plugin", "test", "guest.wasm", "s.toml"], more].concat()).await
}

pub(crate) fn plugin(name: &str) -> String {
    let (_, path) = guests::built().into_iter().find(|(known, _)| known == name).unwrap();
    path.to_string_lossy().into_owned()
}

/// `[[step]]`s that are separated by blank lines, without their heads.
pub(crate) fn steps(text: &str) -> String {
    text.split("\n\n").map(|step| format!("[[step]]\n{step}\n")).collect()
}

#[tokio::test]
async fn our_own_plugins_do_what_their_scenarios_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = 0;
    for (name, path) in guests::built() {
        let file = root.join("plugins").join(&name).join("scenario.toml");
        if !file.is_file() {
            continue;
        }
        found += 1;
        let (code, out, error) = run(root, &["plugin", "test", &path.to_string_lossy(), &file.to_string_lossy()]).await;
        assert_eq!(code, 0, "{name}: {out}{error}");
        assert!(out.contains("steps as expected"), "{out}");
    }
    assert!(found >= 3, "only {found} plugins have a scenario");
}

#[tokio::test]
async fn timers_values_and_logs_follow_the_clock_of_the_scenario() {
    let text = String::from("[plugin.grants]\nkv = [\"n:\"]\n")
        + &steps(
            r#"connect = "a"

client = "a"
sends = "x"
effects = [{ set-timer = "tick", after = "30s" }]
logs = ["heard"]
kv = [{ increment = "n:heard", by = 1, ttl = "1m", is = 1 }]

advance = "29s"
receives = {}

client = "a"
sends = "x"
effects = [{ set-timer = "tick", after = "30s" }]
logs = [{ level = "info", message = "heard" }]
kv = [{ increment = "n:heard", by = 1, ttl = "1m", is = 2 }]

advance = "29999ms"
receives = {}

advance = "1ms"
hooks = ["timer"]
receives = { a = ["tick"] }

advance = "1h"
receives = {}

client = "a"
sends = "x"
effects = [{ set-timer = "tick", after = 30000 }]
kv = [{ increment = "n:heard", by = 1, ttl = "1m", is = 1 }]"#,
        );
    let (code, out, error) = scenario(&guests::wat("teller", &[]), &text, &[]).await;
    assert_eq!(code, 0, "{out}{error}");
}

#[tokio::test]
async fn what_differs_is_told_with_its_line() {
    let text = steps(
        r#"connect = "a"

name = "the wrong echo"
client = "a"
sends = '{"n": 1}'
receives = { a = ['{"n": 2}'] }

client = "a"
sends = "as it should be"
receives = { a = ["as it should be"] }

client = "a"
sends = "unexpected"

client = "b"
sends = "from nobody"

connect = "c""#,
    );
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("s.toml"), text).unwrap();
    let echo = plugin("echo");
    let (code, out, error) = run(directory.path(), &["plugin", "test", &echo, "s.toml"]).await;
    assert_eq!(code, 1, "{out}{error}");
    for expected in [
        "s.toml: s: 3 of 6 steps failed",
        "s.toml:3 the wrong echo FAILED",
        "      - '{\"n\": 2}'\n      + '{\"n\": 1}'\n          n: expected 2, got 1",
        "a sends FAILED\n    effects (- expected, + got)\n      + { send = \"unexpected\" }",
        "b is not connected",
        "1 steps after it were not run",
    ] {
        assert!(out.contains(expected), "{expected:?} is missing in:\n{out}");
    }
    assert!(!out.contains("as it should be"), "{out}");
    assert!(!out.contains('\u{1b}'), "colours are for terminals");
    assert_eq!(error, "tidegate: 3 of 6 steps went other than expected\n");
    // What it prints of all that happened is what a scenario would say.
    let (_, out, _) = run(directory.path(), &["plugin", "test", &echo, "s.toml", "--verbose"]).await;
    assert!(out.contains("    receives = { a = [\"as it should be\"] }\n"), "{out}");
}

#[tokio::test]
async fn failures_and_denials_must_be_expected() {
    let text =
        |more: &str| steps(&format!("connect = \"a\"\n\nclient = \"a\"\nsends = \"x\"\neffects = \"any\"\n{more}"));
    let teller = guests::wat("teller", &[]);
    let (code, out, _) = scenario(&teller, &text(""), &[]).await;
    assert!(code == 1 && out.contains("+ \"kv n:heard\""), "{out}");
    let (code, out, _) = scenario(&teller, &text("denied = [\"kv n:heard\"]"), &[]).await;
    assert_eq!(code, 0, "{out}");
    let traps = guests::wat(
        "teller",
        &[("(global.set $free (i32.const 1024))\n    (call $log", "(unreachable)\n    (call $log")],
    );
    let (code, out, _) = scenario(&traps, &text(""), &[]).await;
    assert!(
        code == 1 && out.contains("it failed") && out.contains("+ inbound: wasm trap: wasm `unreachable`"),
        "{out}"
    );
    let (code, out, _) = scenario(&traps, &text("fails = \"unreachable\""), &[]).await;
    assert_eq!(code, 0, "{out}");
}

#[tokio::test]
async fn a_bad_scenario_is_bad_usage_and_a_bad_plugin_is_a_failure() {
    let teller = guests::wat("teller", &[]);
    let (code, out, error) = scenario(&teller, "[[step]]\nkonnect = \"a\"", &[]).await;
    assert_eq!((code, &*out), (64, ""), "{error}");
    assert!(error.starts_with("tidegate: s.toml:1: nothing happens"), "{error}");
    let (code, _, error) = scenario(b"\0asm no module", "[[step]]\nconnect = \"a\"", &[]).await;
    assert!(code == 1 && error.starts_with("tidegate: guest.wasm: ") && error.contains("cannot serve"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let (code, ..) = run(directory.path(), &["plugin", "test", "guest.wasm"]).await;
    assert_eq!(code, 64);
}

#[tokio::test]
async fn inspect_says_what_a_file_has_and_wants() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("teller.wasm"), guests::wat("teller", &[])).unwrap();
    let (code, out, error) = run(directory.path(), &["plugin", "inspect", "teller.wasm"]).await;
    assert_eq!(code, 0, "{error}");
    for expected in [
        "form       bare core module",
        "hooks      inbound, timer",
        "memory     64KiB at first, 64KiB after init",
        "may wait, because it imports kv",
        "session  send set-timer\n",
        "[plugin.teller.grants]\nkv = []",
    ] {
        assert!(out.contains(expected), "{expected:?} is missing in:\n{out}");
    }
    let (_, out, _) = run(directory.path(), &["plugin", "inspect", "teller.wasm", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["hooks"], serde_json::json!(["inbound", "timer"]));
    assert_eq!(report["memory"]["initial"], 65536);
    assert_eq!(report["waits_for"], serde_json::json!(["tidegate:plugin/kv@0.1.0"]));

    let without = wat::parse_str("(module (func (export \"run\")))").unwrap();
    for (bytes, expected) in [
        (without, "it has no hook: it exports run,"),
        (b"PK\x03\x04".to_vec(), "not a WebAssembly file"),
        (Vec::new(), "not a WebAssembly file"),
        (guests::wat("teller", &[])[..300].to_vec(), "not a valid WebAssembly module"),
    ] {
        std::fs::write(directory.path().join("broken.wasm"), bytes).unwrap();
        let (code, out, error) = run(directory.path(), &["plugin", "inspect", "broken.wasm"]).await;
        assert_eq!((code, &*out), (1, ""));
        assert!(error.starts_with("tidegate: broken.wasm") && error.contains(expected), "{error}");
    }
    assert_eq!(run(directory.path(), &["plugin", "inspect"]).await.0, 64);
    let (code, _, error) = run(directory.path(), &["plugin", "inspect", "none.wasm"]).await;
    assert!(code == 1 && error.contains("none.wasm cannot be read"), "{error}");
}

#[tokio::test]
async fn bench_measures_the_hooks_that_were_called() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("teller.wasm"), guests::wat("teller", &[])).unwrap();
    let text = steps("connect = \"a\"\n\nclient = \"a\"\nsends = \"x\"\n\nadvance = \"30s\"");
    std::fs::write(directory.path().join("s.toml"), format!("[plugin.grants]\nkv = [\"\"]\n{text}")).unwrap();
    let bench = ["plugin", "bench", "teller.wasm", "--time", "200ms"];
    let (code, out, error) = run(directory.path(), &[&bench[..], &["--scenario", "s.toml", "--json"]].concat()).await;
    assert_eq!((code, &*error), (0, ""), "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let hooks: Vec<_> = report["hooks"].as_array().unwrap().iter().map(|hook| hook["hook"].clone()).collect();
    assert_eq!(hooks, ["inbound", "timer"]);
    for hook in report["hooks"].as_array().unwrap() {
        let (p50, p99, max) = (hook["p50_ns"].as_u64(), hook["p99_ns"].as_u64(), hook["max_ns"].as_u64());
        assert!(p50 > Some(0) && p50 <= p99 && p99 <= max && hook["failed"] == 0, "{hook}");
    }
    assert!(report["instances"]["made"].as_u64() > Some(0) && report["instances"]["memory"] == 65536, "{report}");
    // Also without a scenario, as a table.
    let (code, out, error) = run(directory.path(), &bench).await;
    assert_eq!(code, 0, "{error}");
    assert!(out.lines().any(|line| line.trim_start().starts_with("inbound ")), "{out}");
    let (code, _, error) = run(directory.path(), &["plugin", "bench", &plugin("fanout"), "--time", "100ms"]).await;
    assert!(code == 1 && error.contains("use --scenario"), "{error}");
}
