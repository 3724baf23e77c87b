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
