//! The last minutes: who is told when to go, so that the clients come back one after the other.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use crate::config::DrainConfig;
use crate::drain::Drain;
use crate::message::{Close, Closer};
use crate::node::Node;
use crate::outbox::Request;
use crate::source::Random;

/// How long somebody who was accepted just before the end may take for a request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// How often it is looked for sessions whose handshake was under way when the others were told.
const LATECOMERS: Duration = Duration::from_millis(100);

/// Lets everybody go; over when nobody is left. `accepted` ends when the listener has.
pub async fn leave(node: &Node, drain: &Drain, config: &DrainConfig, accepted: impl Future<Output = ()>) {
    drain.stop_accepting();
    accepted.await;
    // Publications first, then goodbyes.
    node.hub.hurry();
    node.hub.flushed().await;
    tokio::join!(close_doors(drain), dismiss(node, drain, config));
    node.hub.flushed().await;
}

/// Who has been accepted is answered, unless they have nothing to ask.
async fn close_doors(drain: &Drain) {
    let _ = timeout(FIRST_REQUEST, drain.answered()).await;
    drain.begin();
}

async fn dismiss(node: &Node, drain: &Drain, config: &DrainConfig) {
    let spread = config.spread();
    loop {
        let sessions = in_any_order(node.registry.all(), &node.random);
        let wanted = time_for(sessions.len(), config.rate);
        let time = wanted.min(spread);
        if time < wanted {
            tracing::warn!(
                sessions = sessions.len(),
                rate = config.rate,
                seconds = spread.as_secs_f64(),
                "more sessions than `drain.rate` has time for: they are closed faster, so that all of them are told"
            );
        }
        let (begun, count) = (Instant::now(), sessions.len());
        for (place, (outbox, random)) in sessions.into_iter().enumerate() {
            sleep_until(begun + due(place, count, time, random)).await;
            // A close is always taken.
            let _ = outbox.request(Request::Close(goodbye(config.retry.0, random), Closer::Gateway));
        }
        // Whoever was at the door when it closed is a session only now, and is told then.
        drain.begun().await;
        if timeout(LATECOMERS, drain.empty()).await.is_ok() {
            return;
        }
    }
}

/// Each with a random number from 0 up to 1.
fn in_any_order<T>(sessions: Vec<T>, random: &Random) -> Vec<(T, f64)> {
    let mut bytes = vec![0; sessions.len() * 8];
    // Without randomness they go in the order of the registry, which is no disaster.
    let _ = random.fill(&mut bytes);
    let numbers = bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    let mut all: Vec<_> = sessions.into_iter().zip(numbers).collect();
    all.sort_unstable_by_key(|(_, number)| *number);
    // The high bits are what they are sorted by, so the low ones are what is random now.
    all.into_iter().map(|(one, number)| (one, f64::from(number as u32) / 2_f64.powi(32))).collect()
}

/// What so many closes take.
fn time_for(sessions: usize, rate: u32) -> Duration {
    Duration::from_secs_f64(sessions as f64 / f64::from(rate.max(1)))
}

/// When the close at a place is due: somewhere in its own part of the time, so that no second has more than its share.
fn due(place: usize, of: usize, time: Duration, random: f64) -> Duration {
    time.mul_f64((place as f64 + random) / of.max(1) as f64)
}

/// Clients that know of it wait so long before they come back; for people it is a reason like others.
fn goodbye(retry: Duration, random: f64) -> Close {
    let why = "the gateway is restarting: connect again";
    match retry.mul_f64(random).as_millis() {
        _ if retry.is_zero() => Close::new(Close::RESTART, why),
        pause => Close::new(Close::RESTART, &format!("{why}; retry-after-ms={pause}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: Duration = Duration::from_secs(5);

    #[test]
    fn no_second_has_more_closes_than_its_share() {
        let time = time_for(1000, 500);
        assert_eq!(time, Duration::from_secs(2));
        let times: Vec<_> = (0..1000).map(|place| due(place, 1000, time, (place % 7) as f64 / 7.0)).collect();
        assert!(times.is_sorted() && *times.last().unwrap() < time);
        for begin in 0..100 {
            let second = Duration::from_millis(begin * 10)..Duration::from_millis(begin * 10 + 1000);
            assert!(times.iter().filter(|&&time| second.start <= time && time < second.end).count() <= 501);
        }
    }

    #[test]
    fn everybody_has_a_place_and_it_is_not_the_one_they_came_in() {
        let mixed = in_any_order((0..100).collect(), &Random::seeded(7));
        assert!(mixed.iter().all(|(_, random)| (0.0..1.0).contains(random)));
        let mut order: Vec<_> = mixed.into_iter().map(|(one, _)| one).collect();
        assert!(!order.is_sorted());
        order.sort_unstable();
        assert_eq!(order, Vec::from_iter(0..100));
    }

    #[test]
    fn however_many_they_are_all_are_told_within_the_spread() {
        assert!(time_for(1_000_000, 500) > SPREAD);
        assert!(due(999_999, 1_000_000, SPREAD, 0.99) < SPREAD);
        assert_eq!(time_for(0, 500), Duration::ZERO);
        assert_eq!(due(0, 0, Duration::ZERO, 0.5), Duration::ZERO);
    }

    #[test]
    fn a_client_is_told_when_to_come_back() {
        assert_eq!(
            &*goodbye(Duration::from_secs(2), 0.25).reason,
            "the gateway is restarting: connect again; retry-after-ms=500"
        );
        assert_eq!(&*goodbye(Duration::ZERO, 0.25).reason, "the gateway is restarting: connect again");
    }
}
