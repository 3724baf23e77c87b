//! A timer wheel: who waits for when, in 32 bytes each, and one timer of the runtime's for all of them.
//!
//! Hashed, with one ring of slots: scheme 6 of Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987). What
//! a gateway's sessions wait for is moved or given up far more often than it comes, so both cost the same few steps
//! whatever else waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ticks::nanos;

/// A tick takes 2^22 nanoseconds: 4.2 ms. Nothing that a session waits for must be more exact.
const SHIFT: u32 = 22;
/// In a round of 34 s. Who waits for longer stays in its slot for more rounds.
const SLOTS: usize = 8192;
/// Nobody waits for longer, so that ticks can be compared although their numbers begin anew after 208 days.
const LONGEST: Duration = Duration::from_secs(40 * 24 * 60 * 60);
/// Woken at once, before others have their turn.
const CHUNK: usize = 128;
/// No entry.
const NONE: u32 = u32::MAX;
/// What `Entry::next` is once its time has come, until its owner has seen that.
const RUNG: u32 = u32::MAX - 1;

#[derive(Default)]
pub struct Wheel {
    /// All ticks up to this one are over, and who waited for them is woken.
    passed: AtomicU32,
    state: Mutex<State>,
    /// Somebody waits for less than the driver does.
    earlier: Notify,
}

#[derive(Default)]
struct State {
    entries: Slab<Entry>,
    /// The first entry of each slot. Empty until somebody waits.
    slots: Box<[u32]>,
    /// A bit for each slot that has an entry.
    used: Box<[u64]>,
    /// Entries in slots.
    waiting: usize,
    /// The first tick whose slot has not been looked at.
    next: u32,
    /// The tick that the driver sleeps until. None: there is no driver.
    driver: Option<u32>,
}

struct Entry {
    waker: Waker,
    tick: u32,
    next: u32,
    prev: u32,
}

/// One that waits. It rings once its time has come, at most two ticks late as far as the wheel is concerned; polled again,
/// it still does, until it is set anew.
pub struct Ring {
    wheel: Arc<Wheel>,
    tick: u32,
    key: u32,
}

impl Ring {
    pub fn new(wheel: &Arc<Wheel>, at: Instant) -> Self {
        Self { wheel: wheel.clone(), tick: tick_of(at), key: NONE }
    }

    /// Rings at `at` instead. Who has polled it before is woken then.
    pub fn set(&mut self, at: Instant) {
        self.tick = tick_of(at);
        if self.key == NONE {
            return;
        }
        let mut state = self.wheel.state.lock();
        if state.unlink(self.key) {
            state.link(self.key, self.tick);
            self.wheel.look_at(state, self.tick);
        } else {
            // It has rung, and its task is on its way to a poll.
            state.entries.remove(self.key as usize);
            self.key = NONE;
        }
    }

    /// The same, unless it rings before that anyway.
    pub fn no_later(&mut self, at: Instant) {
        if before(tick_of(at), self.tick) {
            self.set(at);
        }
    }

    /// Ready when its time has come. Until then it is always the same task that polls: only the first waker is kept.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.key == NONE {
            return self.begin(context);
        }
        if before(self.wheel.passed.load(Ordering::Acquire), self.tick) {
            return Poll::Pending;
        }
        self.forget();
        Poll::Ready(())
    }

    fn begin(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.wheel.state.lock();
        let now = floor(Instant::now());
        if !before(now, self.tick) {
            return Poll::Ready(());
        }
        if state.driver.is_none() {
            // Nobody has looked at the clock since the last one rang.
            self.wheel.passed.store(now, Ordering::Release);
            state.next = now.wrapping_add(1);
        }
        self.key = state.insert(context.waker().clone(), self.tick);
        self.wheel.look_at(state, self.tick);
        Poll::Pending
    }

    fn forget(&mut self) {
        if self.key != NONE {
            let mut state = self.wheel.state.lock();
            state.unlink(self.key);
            state.entries.remove(self.key as usize);
            self.key = NONE;
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Wheel {
    /// Sees to it that somebody looks at the clock when this tick is over.
    fn look_at(self: &Arc<Self>, mut state: MutexGuard<'_, State>, tick: u32) {
        let until = state.driver;
        if until.is_some_and(|until| !before(tick, until)) {
            return;
        }
        state.driver = Some(tick);
        // A runtime that ends drops what is spawned, and that locks the state.
        drop(state);
        match until {
            Some(_) => self.earlier.notify_one(),
            None => drop(tokio::spawn(drive(Driver { wheel: self.clone(), left: false }))),
        }
    }

    /// Takes who is due, as many as may be woken at once; or says how long nobody will be.
    fn due(&self) -> Due {
        let at = Instant::now();
        let now = floor(at);
        let mut state = self.state.lock();
        self.passed.store(now, Ordering::Release);
        let mut wakers = Vec::new();
        state.take(now, &mut wakers);
        if !wakers.is_empty() {
            return Due::Now(wakers);
        }
        match state.next_used() {
            Some(tick) => {
                state.driver = Some(tick);
                let ticks = u64::from(tick.wrapping_sub(now));
                let begun = nanos(at) & ((1 << SHIFT) - 1);
                Due::At(at + Duration::from_nanos((ticks << SHIFT) - begun))
            }
            None => {
                state.driver = None;
                Due::Never
            }
        }
    }
}

enum Due {
    Now(Vec<Waker>),
    At(Instant),
    /// Nobody waits.
    Never,
}

/// Whoever moves the wheel. There is none while nobody waits.
struct Driver {
    wheel: Arc<Wheel>,
    left: bool,
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.left {
            // Its runtime ends: whoever waits in another begins another driver.
            self.wheel.state.lock().driver = None;
        }
    }
}

async fn drive(mut driver: Driver) {
    loop {
        match driver.wheel.due() {
            Due::Now(wakers) => {
                wakers.into_iter().for_each(Waker::wake);
                tokio::task::yield_now().await;
            }
            Due::At(at) => tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = driver.wheel.earlier.notified() => {}
            },
            Due::Never => {
                driver.left = true;
                return;
            }
        }
    }
}

impl State {
    fn insert(&mut self, waker: Waker, tick: u32) -> u32 {
        let key = self.entries.insert(Entry { waker, tick, next: NONE, prev: NONE }) as u32;
        self.link(key, tick);
        key
    }

    /// Puts an entry that is in no slot into the one of this tick, or into the next one if that is over.
    fn link(&mut self, key: u32, tick: u32) {
        if self.slots.is_empty() {
            self.slots = vec![NONE; SLOTS].into();
            self.used = vec![0; SLOTS / 64].into();
        }
        let tick = if before(tick, self.next) { self.next } else { tick };
        let slot = slot(tick);
        let second = std::mem::replace(&mut self.slots[slot], key);
        if second != NONE {
            self.entries[second as usize].prev = key;
        }
        let entry = &mut self.entries[key as usize];
        (entry.tick, entry.next, entry.prev) = (tick, second, NONE);
        self.used[slot / 64] |= 1 << (slot % 64);
        self.waiting += 1;
    }

    /// Takes an entry out of its slot. False: it was in none, as it has rung.
    fn unlink(&mut self, key: u32) -> bool {
        let entry = &mut self.entries[key as usize];
        let (tick, next, prev) = (entry.tick, entry.next, entry.prev);
        if next == RUNG {
            return false;
        }
        entry.next = RUNG;
        if next != NONE {
            self.entries[next as usize].prev = prev;
        }
        if prev != NONE {
            self.entries[prev as usize].next = next;
        } else {
            let slot = slot(tick);
            self.slots[slot] = next;
            if next == NONE {
                self.used[slot / 64] &= !(1 << (slot % 64));
            }
        }
        self.waiting -= 1;
        true
    }

    /// The wakers of those whose tick is over, until a chunk is full.
    fn take(&mut self, now: u32, wakers: &mut Vec<Waker>) {
        while let Some(tick) = self.next_used().filter(|tick| !before(now, *tick)) {
            let mut key = self.slots[slot(tick)];
            while key != NONE {
                let entry = &mut self.entries[key as usize];
                let next = entry.next;
                if !before(now, entry.tick) {
                    wakers.push(std::mem::replace(&mut entry.waker, Waker::noop().clone()));
                    self.unlink(key);
                }
                key = next;
                if wakers.len() == CHUNK {
                    // Looked at once more, for the rest of it.
                    self.next = tick;
                    return;
                }
            }
            self.next = tick.wrapping_add(1);
        }
        self.next = now.wrapping_add(1);
    }

    /// The first tick from `next` on whose slot is in use.
    fn next_used(&self) -> Option<u32> {
        if self.waiting == 0 {
            return None;
        }
        let (word, bit) = (slot(self.next) / 64, slot(self.next) % 64);
        let words = self.used.len();
        // The first word once more at the end, for its bits before the first one that was looked at.
        (0..=words).find_map(|step| {
            let bits = self.used[(word + step) % words];
            let bits = if step == 0 { bits >> bit << bit } else { bits };
            let away = (step * 64 + bits.trailing_zeros() as usize).wrapping_sub(bit);
            (bits != 0).then(|| self.next.wrapping_add(away as u32))
        })
    }
}

/// The tick in which this instant lies.
fn floor(at: Instant) -> u32 {
    (nanos(at) >> SHIFT) as u32
}

/// The tick to wait for: the first one that begins at this instant or after it.
fn tick_of(at: Instant) -> u32 {
    let now = Instant::now();
    if at <= now {
        return floor(at);
    }
    nanos(at.min(now + LONGEST)).div_ceil(1 << SHIFT) as u32
}

/// Whether one tick comes before the other, where they are less than 104 days apart.
fn before(one: u32, other: u32) -> bool {
    (one.wrapping_sub(other) as i32) < 0
}

fn slot(tick: u32) -> usize {
    tick as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use tokio::time::advance;

    use super::*;

    const TICK: Duration = Duration::from_nanos(1 << SHIFT);

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn times(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn poll(ring: &mut Ring, woken: &Arc<Woken>) -> Poll<()> {
        ring.poll(&mut Context::from_waker(&woken.clone().into()))
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_woken_when_its_time_has_come_and_not_before() {
        let wheel = Arc::new(Wheel::default());
        let begin = Instant::now();
        // Within a tick, a round, several rounds; a time that is over, and one that never comes.
        let mut tasks = tokio::task::JoinSet::new();
        for nanos in (0..60).map(|power| 1_u64 << power) {
            let mut ring = Ring::new(&wheel, begin + Duration::from_nanos(nanos));
            tasks.spawn(async move {
                poll_fn(|context| ring.poll(context)).await;
                (Duration::from_nanos(nanos).min(LONGEST), begin.elapsed())
            });
        }
        while let Some(rung) = tasks.join_next().await {
            let (due, rang) = rung.unwrap();
            assert!((due..due + 2 * TICK + Duration::from_millis(1)).contains(&rang), "{due:?}: {rang:?}");
        }
        assert!(begin.elapsed() >= LONGEST, "years are too much for a tick");
        assert!(wheel.state.lock().entries.is_empty());
        tokio::time::sleep(TICK).await;
        assert!(wheel.state.lock().driver.is_none(), "nobody waits, and nobody looks at the clock");
        // After such a pause too.
        let begin = Instant::now();
        let mut ring = Ring::new(&wheel, begin + Duration::from_secs(1));
        poll_fn(|context| ring.poll(context)).await;
        assert!((1000..1012).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_set_anew_rings_at_the_new_time_alone() {
        let wheel = Arc::new(Wheel::default());
        let (woken, begin) = (Arc::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut ring = Ring::new(&wheel, at(10));
        assert!(poll(&mut ring, &woken).is_pending());
        ring.set(at(5));
        ring.no_later(at(20));
        // The driver sleeps until the first, and hears of the second.
        tokio::time::sleep_until(at(5) + 3 * TICK).await;
        assert_eq!(woken.times(), 1);
        assert!(poll(&mut ring, &woken).is_ready());
        assert!(poll(&mut ring, &woken).is_ready(), "until it is set anew");
        ring.set(at(100));
        assert!(poll(&mut ring, &woken).is_pending());
        ring.no_later(at(50));
        ring.set(at(60));
        tokio::time::sleep_until(at(59)).await;
        assert_eq!(woken.times(), 1);
        tokio::time::sleep_until(at(61)).await;
        assert_eq!(woken.times(), 2);
        // Set anew after it has rung, and before that was seen.
        ring.set(at(70));
        assert!(poll(&mut ring, &woken).is_pending());
        drop(ring);
        tokio::time::sleep_until(at(80)).await;
        assert_eq!(woken.times(), 2);
        assert!(wheel.state.lock().entries.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_that_is_over_rings_at_once() {
        let wheel = Arc::new(Wheel::default());
        let (woken, begin) = (Arc::default(), Instant::now());
        let mut ring = Ring::new(&wheel, begin + Duration::from_secs(10));
        assert!(poll(&mut ring, &woken).is_pending());
        advance(Duration::from_secs(2)).await;
        ring.set(begin);
        assert_eq!(woken.times(), 0, "by the driver, when it has its turn");
        tokio::time::sleep(TICK).await;
        assert_eq!(woken.times(), 1);
        assert!(poll(&mut ring, &woken).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_woken_in_parts_and_nobody_is_left_out() {
        let wheel = Arc::new(Wheel::default());
        let (woken, at) = (Arc::default(), Instant::now() + Duration::from_secs(1));
        let later = at + TICK * SLOTS as u32;
        let rings = |at| (0..3 * CHUNK + 7).map(move |_| at);
        let mut rings: Vec<_> = rings(at).chain(rings(later)).map(|at| Ring::new(&wheel, at)).collect();
        for ring in &mut rings {
            assert!(poll(ring, &woken).is_pending());
        }
        tokio::time::sleep_until(at + 3 * TICK).await;
        assert_eq!(woken.times(), 3 * CHUNK + 7, "those of the same slot whose time is to come are not");
        tokio::time::sleep_until(later + 3 * TICK).await;
        assert_eq!(woken.times(), 2 * (3 * CHUNK + 7));
    }

    /// Against a list, with ticks whose numbers begin anew.
    #[test]
    fn the_slots_agree_with_a_list() {
        let mut state = State { next: u32::MAX - 20_000, ..State::default() };
        let mut now = state.next.wrapping_sub(1);
        let mut list: Vec<(u32, u32)> = Vec::new();
        let mut random = 1_u64;
        let mut below = |bound: u32| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as u32 % bound
        };
        for _ in 0..20_000 {
            match below(4) {
                0 | 1 => {
                    let far = [10, 1_000, 30_000][below(3) as usize];
                    let tick = now.wrapping_add(1 + below(far));
                    list.push((state.insert(Waker::noop().clone(), tick), tick));
                }
                2 if !list.is_empty() => {
                    let place = below(list.len() as u32) as usize;
                    assert!(state.unlink(list[place].0));
                    if below(2) == 0 {
                        list[place].1 = now.wrapping_add(1 + below(20_000));
                        state.link(list[place].0, list[place].1);
                    } else {
                        state.entries.remove(list.swap_remove(place).0 as usize);
                    }
                }
                _ => {
                    now = now.wrapping_add(below(40));
                    let (due, left): (Vec<_>, Vec<_>) = list.into_iter().partition(|(_, tick)| !before(now, *tick));
                    list = left;
                    let mut wakers = Vec::new();
                    while {
                        let known = wakers.len();
                        let mut more = Vec::new();
                        state.take(now, &mut more);
                        wakers.extend(more);
                        wakers.len() > known
                    } {}
                    assert_eq!(wakers.len(), due.len());
                    for (key, _) in due {
                        assert!(!state.unlink(key), "it was not taken");
                        state.entries.remove(key as usize);
                    }
                    let first = list.iter().map(|(_, tick)| tick.wrapping_sub(now)).min();
                    let found = state.next_used().map(|tick| tick.wrapping_sub(now));
                    assert!(found <= first.or(found) && found.is_some() == first.is_some(), "{found:?}, {first:?}");
                }
            }
        }
        assert!(now < u32::MAX / 2, "the numbers have begun anew");
        assert_eq!(state.waiting, list.len());
    }

    #[test]
    fn it_takes_little_room() {
        let mut entries = Slab::with_capacity(4);
        entries.insert(Entry { waker: Waker::noop().clone(), tick: 0, next: NONE, prev: NONE });
        assert_eq!((size_of::<Entry>(), size_of::<Option<Entry>>(), size_of::<Ring>()), (32, 32, 16));
    }
}
