//! Three nodes whose clients talk while Redis and the links to it fail in random ways: every message is delivered once to all,
//! refused to its sender, or announced as a gap.
//!
//! `TIDEGATE_SOAK_SECONDS` says for how long, `TIDEGATE_SOAK_SEED` makes the same faults again.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use crate::support::ledger::{Listener, Speaker, Stop};
use crate::support::link::Link;
use crate::support::nodes::{self, ready};
use crate::support::redis::{Server, is_installed};
use crate::support::{Gateway, guests, until_within};

/// For all nodes to be well again after a fault: the longest freeze, and what they need then.
const WELL_WITHIN: Duration = Duration::from_secs(30);

/// xorshift64*: the same faults for the same seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.throw(to - from))
    }
}

/// Something that goes wrong, and is right again at the end.
async fn fault(server: &mut Server, links: &[Link], dice: &mut Dice) -> &'static str {
    let link = &links[dice.throw(links.len() as u64) as usize];
    match dice.throw(9) {
        0 => {
            server.kill().await;
            tokio::time::sleep(dice.millis(0, 2_000)).await;
            server.restart().await;
            "killed and started again, empty"
        }
        1 => {
            server.freeze();
            tokio::time::sleep(dice.millis(100, 4_000)).await;
            server.thaw();
            "frozen"
        }
        2 => {
            server.ask(&["FLUSHALL"]).await;
            "flushed"
        }
        3 => {
            server.ask(&["SCRIPT", "FLUSH"]).await;
            "without its scripts"
        }
        4 => {
            server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            "cut off the subscriptions"
        }
        5 => {
            server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
            "cut off the commands"
        }
        6 => {
            link.hold();
            tokio::time::sleep(dice.millis(100, 3_000)).await;
            link.heal();
            "apart from a node"
        }
        7 => {
            link.hold_answers();
            tokio::time::sleep(dice.millis(100, 2_000)).await;
            link.heal();
            "not heard by a node"
        }
        _ => {
            link.cut();
            tokio::time::sleep(dice.millis(0, 1_000)).await;
            link.heal();
            "cut off from a node"
        }
    }
}

/// A subscriber that changes nodes all the time.
async fn wanders(
    mut listener: Listener,
    gateways: [std::sync::Arc<Gateway>; 3],
    mut dice: Dice,
    stop: Stop,
) -> (Listener, u64) {
    let mut moves = 0;
    while !stop.is_now() {
        let until_then = Stop::default();
        let listening = listener.listens(&until_then);
        tokio::time::sleep(dice.millis(100, 1_500)).await;
        until_then.now();
        listener = listening.await.unwrap();
        moves += u64::from(listener.move_to(&gateways[dice.throw(3) as usize]).await);
    }
    (listener, moves)
}

async fn chaos(time: Duration, seed: u64) {
    let mut dice = Dice(seed | 1);
    let mut server = Server::start().await;
    let (mut links, mut gateways) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let link = Link::to(&server).await;
        let gateway = Gateway::start_with(&nodes::config(&link.url(), ""), &[("relay", guests::relay())]).await;
        ready(&gateway).await;
        links.push(link);
        gateways.push(std::sync::Arc::new(gateway));
    }
    let gateways: [_; 3] = gateways.try_into().unwrap_or_else(|_| unreachable!());
    let stop = Stop::default();
    let (mut listeners, mut speakers) = (Vec::new(), Vec::new());
    for (number, gateway) in gateways.iter().enumerate() {
        listeners.push(Listener::on(gateway, &format!("listener {number}"), "log:x").await.listens(&stop));
    }
    let wanderer = Listener::on(&gateways[0], "wanderer", "log:x").await;
    let wanderer = tokio::spawn(wanders(wanderer, gateways.clone(), Dice(seed | 2), stop.clone()));
    for (number, gateway) in gateways.iter().enumerate() {
        for route in ["refuse", "queue"] {
            speakers.push(Speaker::on(gateway, route, &format!("{route}{number}"), "log:x").await.speaks(&stop));
        }
    }
    let begun = Instant::now();
    let (mut faults, mut slowest) = (std::collections::BTreeMap::<_, u32>::new(), Duration::ZERO);
    while begun.elapsed() < time {
        *faults.entry(fault(&mut server, &links, &mut dice).await).or_default() += 1;
        let over = Instant::now();
        for gateway in &gateways {
            until_within(WELL_WITHIN, "a node that is well again", || async {
                (gateway.admin("/ready").await.0 == 200).then_some(())
            })
            .await;
        }
        slowest = slowest.max(over.elapsed());
        tokio::time::sleep(dice.millis(0, 800)).await;
    }
    stop.now();
    let mut spoke = Vec::new();
    for speaker in speakers {
        spoke.push(speaker.await.unwrap());
    }
    let mut report = String::new();
    let (wanderer, moves) = wanderer.await.unwrap();
    let mut heard = vec![wanderer];
    for listener in listeners {
        heard.push(listener.await.unwrap());
    }
    for listener in &mut heard {
        listener.until_last_of(&spoke).await;
        listener.check(&spoke);
        write!(report, "  {} messages, {} gaps", listener.messages(), listener.gaps()).unwrap();
    }
    for gateway in &gateways {
        assert_eq!(gateway.metric("tidegate_redis_queued", "").await, 0.0);
        assert_eq!(gateway.metric("tidegate_redis_unreadable_total", "").await, 0.0);
    }
    let acknowledged: usize = spoke.iter().map(Speaker::acknowledged).sum();
    let refused: usize = spoke.iter().map(Speaker::refused).sum();
    assert!(acknowledged > 0 && moves > 0);
    // Straight to the terminal: the test runner would keep it.
    let _ = writeln!(
        std::io::stderr(),
        "chaos of {:.0} s, seed {seed}: {faults:?}; well again within {slowest:.1?}; {acknowledged} acknowledged, {refused} refused; \
         {moves} moves; heard:{report}",
        begun.elapsed().as_secs_f64()
    );
}

/// A few faults, the same in each run.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_chaos_is_accounted_for() {
    if is_installed("a short chaos") {
        chaos(Duration::from_secs(8), 7).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak: cargo xtask test --soak"]
async fn a_long_chaos_is_accounted_for() {
    if !is_installed("a long chaos") {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = number("TIDEGATE_SOAK_SECONDS").unwrap_or(120);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("TIDEGATE_SOAK_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    let _ = writeln!(std::io::stderr(), "chaos for {seconds} s: TIDEGATE_SOAK_SEED={seed} makes the same faults");
    chaos(Duration::from_secs(seconds), seed).await;
}
