//! Plugins that keep their thread: the others of the gateway go on beside them.

use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::guests::{built, wat};
use crate::support::{Gateway, until};

const CONFIG: &str = r#"
[[route]]
name = "hostile"
path = "/hostile"
plugins = ["hostile"]

[plugin.hostile]
breaker = { window = "0s" }

[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_runaways_as_workers_leave_the_others_their_turns() {
    let echo = built().into_iter().find(|(name, _)| name == "echo").expect("cargo xtask plugins").1;
    let echo = std::fs::read(echo).unwrap();
    let gateway = Gateway::start_with(CONFIG, &[("hostile", wat("hostile", &[])), ("echo", echo)]).await;
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let mut runaways = Vec::new();
    for _ in 0..workers {
        let mut runaway = Client::connect(&gateway.ws_url("/hostile")).await;
        runaway.send("loop").await;
        runaways.push(runaway);
    }
    gateway.log_line(&["slow: its calls are made on threads of low priority", "hostile"]).await;
    let failures = || gateway.metric("tidegate_plugin_call_failures_total", "why=\"cpu\"");
    // From here on the runaways never pause: each has a loop in hand, and more behind it.
    for runaway in &mut runaways {
        for _ in 0..60 {
            runaway.send("loop").await;
        }
    }
    let begun = failures().await;
    let mut client = Client::connect(&gateway.ws_url("/echo")).await;
    let mut answers = Vec::new();
    let mut overruns = begun;
    // Threads of low priority get little where the machine is busy: the echoes go on until a runaway has run beside them.
    while (answers.len() < 2_000 || overruns <= begun) && overruns < begun + 10.0 {
        for _ in 0..50 {
            let asked = Instant::now();
            client.send("here").await;
            assert_eq!(client.text().await, "here");
            answers.push(asked.elapsed());
        }
        overruns = failures().await;
    }
    answers.sort();
    // A thread that is kept would hold an echo up for a whole budget, 50 ms: hardly any may wait for half of that.
    let late = answers.iter().filter(|answer| **answer > Duration::from_millis(25)).count();
    assert!(late * 20 < answers.len(), "{late} of {} waited for a runaway", answers.len());
    until("every loop to be broken off", || async { (failures().await >= (workers * 61) as f64).then_some(()) }).await;
}

/// How often the thread of the epoch clock has been woken.
fn ticks(gateway: &Gateway) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let status = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("status")).ok());
    let clock = status.into_iter().find(|status| status.contains("tidegate-tick")).expect("no clock");
    let count = clock.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    count.trim().parse().unwrap()
}

#[tokio::test]
async fn while_no_guest_runs_no_clock_ticks() {
    let gateway =
        Gateway::start_with(&CONFIG[..CONFIG.rfind("[[route]]").unwrap()], &[("hostile", wat("hostile", &[]))]).await;
    let mut client = Client::connect(&gateway.ws_url("/hostile")).await;
    for round in 1..=3 {
        until("the clock to rest", || async {
            let before = ticks(&gateway);
            tokio::time::sleep(Duration::from_millis(200)).await;
            (ticks(&gateway) - before <= 2).then_some(())
        })
        .await;
        // It wakes for whoever does not end.
        client.send("loop").await;
        let overruns = || gateway.metric("tidegate_plugin_call_failures_total", "why=\"cpu\"");
        until("the loop to be broken off", || async { (overruns().await == f64::from(round)).then_some(()) }).await;
    }
}
