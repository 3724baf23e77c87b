//! Where time and randomness come from: the machine, or a clock that is moved by hand and a generator that begins with a
//! seed, so that what happened once happens again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::message::unix_now;
use crate::wheel::{Ring, Wheel};

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A clock, cheap to clone. The machine's unless it is made by hand.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    /// Its alarms are in this wheel.
    Machine(Arc<Wheel>),
    Hand(Arc<Hand>),
}

impl Default for Clock {
    fn default() -> Self {
        Self(Source::Machine(Arc::default()))
    }
}

/// A clock that stands still until it is moved.
struct Hand {
    begin: Instant,
    /// Unix time in milliseconds at the beginning.
    unix: u64,
    state: Mutex<HandState>,
    next: AtomicU64,
}

#[derive(Default)]
struct HandState {
    passed: Duration,
    /// Who waits until when, by their number.
    alarms: BTreeMap<u64, (Instant, Waker)>,
}

impl Clock {
    /// A clock that shows this Unix time, in milliseconds, until it is moved.
    pub fn by_hand(unix: u64) -> Self {
        let hand = Hand { begin: Instant::now(), unix, state: Mutex::default(), next: AtomicU64::new(0) };
        Self(Source::Hand(Arc::new(hand)))
    }

    fn hand(&self) -> Option<&Arc<Hand>> {
        match &self.0 {
            Source::Machine(_) => None,
            Source::Hand(hand) => Some(hand),
        }
    }

    pub fn is_by_hand(&self) -> bool {
        self.hand().is_some()
    }

    pub fn now(&self) -> Instant {
        match self.hand() {
            None => Instant::now(),
            Some(hand) => hand.begin + hand.state.lock().passed,
        }
    }

    /// Unix time in milliseconds.
    pub fn unix(&self) -> u64 {
        match self.hand() {
            None => unix_now(),
            Some(hand) => hand.unix.saturating_add(millis(hand.state.lock().passed)),
        }
    }

    /// Since some point in the past.
    pub fn monotonic(&self) -> Duration {
        match self.hand() {
            None => BEGIN.elapsed(),
            Some(hand) => hand.state.lock().passed,
        }
    }

    /// Moves a clock that is made by hand, and wakes whoever waits for what it shows then.
    pub fn advance(&self, by: Duration) {
        let Some(hand) = self.hand() else { return };
        let due: Vec<Waker> = {
            let mut state = hand.state.lock();
            state.passed += by;
            let now = hand.begin + state.passed;
            let (due, later) = std::mem::take(&mut state.alarms).into_iter().partition(|(_, (at, _))| *at <= now);
            state.alarms = later;
            BTreeMap::into_values(due).map(|(_, waker)| waker).collect()
        };
        due.into_iter().for_each(Waker::wake);
    }

    /// How long until the next of those who wait on a clock that is made by hand.
    pub fn next_alarm(&self) -> Option<Duration> {
        let hand = self.hand()?;
        let state = hand.state.lock();
        let next = state.alarms.values().map(|(at, _)| *at).min()?;
        let now = hand.begin + state.passed;
        Some(next.saturating_duration_since(now))
    }

    /// An alarm that rings at `at`.
    pub fn alarm(&self, at: Instant) -> Alarm {
        match &self.0 {
            Source::Machine(wheel) => Alarm(Kind::Machine(Ring::new(wheel, at))),
            Source::Hand(hand) => {
                let number = hand.next.fetch_add(1, Ordering::Relaxed);
                Alarm(Kind::Hand(Box::new((hand.clone(), number, at))))
            }
        }
    }
}

/// Rings once its time has come; polled again, it still does, until it is set anew.
pub struct Alarm(Kind);

enum Kind {
    Machine(Ring),
    Hand(Box<(Arc<Hand>, u64, Instant)>),
}

impl Alarm {
    /// The same as `set`, unless it rings before that anyway.
    pub fn no_later(&mut self, at: Instant) {
        match &mut self.0 {
            Kind::Machine(ring) => ring.no_later(at),
            Kind::Hand(alarm) if at < alarm.2 => self.set(at),
            Kind::Hand(_) => {}
        }
    }

    pub fn set(&mut self, at: Instant) {
        match &mut self.0 {
            Kind::Machine(ring) => ring.set(at),
            Kind::Hand(alarm) => {
                let (hand, number, deadline) = &mut **alarm;
                *deadline = at;
                // Whoever waited for the former time looks at the new one.
                if let Some((_, waker)) = hand.state.lock().alarms.remove(number) {
                    waker.wake();
                }
            }
        }
    }

    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Kind::Machine(ring) => ring.poll(context),
            Kind::Hand(alarm) => {
                let (hand, number, deadline) = &**alarm;
                let mut state = hand.state.lock();
                if *deadline <= hand.begin + state.passed {
                    state.alarms.remove(number);
                    return Poll::Ready(());
                }
                state.alarms.insert(*number, (*deadline, context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Kind::Hand(alarm) = &self.0 {
            alarm.0.state.lock().alarms.remove(&alarm.1);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A source of random bytes, cheap to clone. The operating system's unless it has a seed.
#[derive(Clone, Default)]
pub struct Random(Option<Arc<Mutex<Seeded>>>);

/// SHA-256 of the seed and a counter: no secret, but the same on every machine.
struct Seeded {
    seed: u64,
    blocks: u64,
    left: Vec<u8>,
}

impl Random {
    /// The same bytes for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(Mutex::new(Seeded { seed, blocks: 0, left: Vec::new() }))))
    }

    pub fn is_seeded(&self) -> bool {
        self.0.is_some()
    }

    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), getrandom::Error> {
        let Some(seeded) = &self.0 else { return getrandom::fill(bytes) };
        let mut seeded = seeded.lock();
        for byte in bytes {
            *byte = seeded.next();
        }
        Ok(())
    }

    pub fn number(&self) -> Result<u64, getrandom::Error> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl Seeded {
    fn next(&mut self) -> u8 {
        loop {
            if let Some(byte) = self.left.pop() {
                return byte;
            }
            let mut hash = Sha256::new();
            hash.update(self.seed.to_le_bytes());
            hash.update(self.blocks.to_le_bytes());
            self.blocks += 1;
            self.left = hash.finalize().to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;

    use super::*;

    #[test]
    fn a_seed_says_the_same_again() {
        let take = |seed| {
            let random = Random::seeded(seed);
            (random.number().unwrap(), random.number().unwrap())
        };
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
        assert_ne!(take(1).0, take(1).1);
        let mut at_once = [0; 16];
        Random::seeded(1).fill(&mut at_once).unwrap();
        assert_eq!(u64::from_le_bytes(at_once[..8].try_into().unwrap()), take(1).0);
    }

    #[tokio::test]
    async fn an_alarm_rings_when_the_hand_is_there() {
        let clock = Clock::by_hand(1_000);
        let second = Duration::from_secs(1);
        let mut alarm = clock.alarm(clock.now() + second);
        let mut ring = std::pin::pin!(std::future::poll_fn(|context| alarm.poll(context)));
        assert!(futures_poll(ring.as_mut()).is_pending());
        assert_eq!(clock.next_alarm(), Some(second));
        clock.advance(second - Duration::from_millis(1));
        assert!(futures_poll(ring.as_mut()).is_pending());
        clock.advance(Duration::from_millis(1));
        ring.await;
        assert_eq!((clock.next_alarm(), clock.unix(), clock.monotonic()), (None, 2_000, second));
        alarm.set(clock.now() + second);
        assert!(futures_poll(std::pin::pin!(std::future::poll_fn(|context| alarm.poll(context)))).is_pending());
        drop(alarm);
        assert_eq!(clock.next_alarm(), None, "nobody waits any more");
    }

    fn futures_poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }
}
