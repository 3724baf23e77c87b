//! Who may connect: so many connections of one address, new ones only so fast, of one address and of all together.
//!
//! An address is what the client really has: the peer's, or what somebody trusted in front says. Whoever knows it calls
//! `Permits::admit`, once for each connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::ConnectionsConfig;
use crate::metrics::Metrics;
use crate::rate::Bucket;
use crate::route::Rate;

/// Refused clients that are answered at a time. More are only closed: an answer costs a place among the connections.
const TELLING: usize = 1_024;
/// Those who are refused come back within this, spread.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// For those who have too many connections, not too many new ones: at the earliest.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// How often a full table is looked through, at most.
const SWEEP: Duration = Duration::from_secs(1);

/// Keeps count of all clients' connections.
pub struct Permits {
    config: ArcSwap<ConnectionsConfig>,
    metrics: Arc<Metrics>,
    addresses: Mutex<Addresses>,
    pace: Mutex<Option<Pace>>,
    telling: AtomicUsize,
    refused: AtomicU32,
}

/// Why a client may not connect now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub why: &'static str,
    /// When to come again.
    pub retry: Duration,
}

/// What counts as one client: an IPv4 address, or the half of an IPv6 address that a customer of a provider has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4(u32),
    V6(u64),
}

impl Key {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.into()),
            IpAddr::V6(address) => Self::V6((u128::from(address) >> 64) as u64),
        }
    }
}

#[derive(Default)]
struct Addresses {
    known: HashMap<Key, Address>,
    swept: Option<Instant>,
}

struct Address {
    open: u32,
    bucket: Bucket,
}

impl Addresses {
    /// Forgets whoever is not here and might come as often as anybody.
    fn sweep(&mut self, now: Instant) {
        self.known.retain(|_, address| address.open > 0 || !address.bucket.is_full(now));
        self.swept = Some(now);
    }
}

/// All new connections together.
struct Pace {
    bucket: Bucket,
    /// The second that the last one who was refused was told to come back in.
    booked: Instant,
}

/// A connection that counts for its address, as long as this is held.
pub struct Connected {
    permits: Arc<Permits>,
    key: Key,
}

/// A place among those who are told why they are refused.
pub struct Telling(Arc<Permits>);

impl Permits {
    pub fn new(config: ConnectionsConfig, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            config: ArcSwap::from_pointee(config),
            metrics,
            addresses: Mutex::default(),
            pace: Mutex::default(),
            telling: AtomicUsize::new(0),
            refused: AtomicU32::new(0),
        })
    }

    /// For those who come from now on.
    pub fn replace(&self, config: ConnectionsConfig) {
        self.config.store(Arc::new(config));
    }

    pub fn config(&self) -> Arc<ConnectionsConfig> {
        self.config.load_full()
    }

    /// A new connection, whoever it is from.
    fn pace(&self, now: Instant) -> Result<(), Refused> {
        let config = self.config.load();
        let Some(rate) = rate(config.total_rate, config.total_burst) else { return Ok(()) };
        let mut pace = self.pace.lock();
        let pace = pace.get_or_insert_with(|| Pace { bucket: Bucket::new(now), booked: now });
        if pace.bucket.take(rate, now) {
            return Ok(());
        }
        // Each is told a time of its own, as fast after each other as they may come, and from the beginning again when
        // that would be too late: then there are more of them than the rate can serve.
        let each = Duration::from_secs(1) / rate.per_second.max(1);
        pace.booked = pace.booked.max(now + Duration::from_secs(1)) + each;
        let retry = pace.booked - now;
        if retry > RETRY_MAX {
            pace.booked = now;
        }
        self.count_refused("rate");
        Err(Refused { why: "too many clients connect at once: come again", retry: retry.min(RETRY_MAX) })
    }

    /// A connection of this client. None: it is not counted.
    fn count(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Option<Box<Connected>>, Refused> {
        let config = self.config.load();
        let rate = rate(config.rate, config.burst);
        if (config.per_address.is_none() && rate.is_none()) || config.is_exempt(address.to_canonical()) {
            return Ok(None);
        }
        let key = Key::of(address);
        let mut addresses = self.addresses.lock();
        if !addresses.known.contains_key(&key) && addresses.known.len() >= config.addresses {
            if addresses.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
                addresses.sweep(now);
            }
            if addresses.known.len() >= config.addresses {
                // Whoever has that many addresses could otherwise keep everybody else out.
                self.metrics.addresses_uncounted.inc();
                return Ok(None);
            }
        }
        let fresh = || Address { open: 0, bucket: Bucket::new(now) };
        let client = addresses.known.entry(key).or_insert_with(fresh);
        if config.per_address.is_some_and(|most| client.open >= most) {
            let why = "your address has as many connections as it may";
            return Err(Refused { why, retry: RETRY_MIN + self.count_refused("address") });
        }
        if rate.is_some_and(|rate| !client.bucket.take(rate, now)) {
            let why = "your address connects too often";
            return Err(Refused { why, retry: RETRY_MIN + self.count_refused("address-rate") });
        }
        client.open += 1;
        self.metrics.client_addresses.set(addresses.known.len() as i64);
        Ok(Some(Box::new(Connected { permits: self.clone(), key })))
    }

    /// A connection of this client, which counts as one of all and as one of its address.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Option<Box<Connected>>, Refused> {
        let now = Instant::now();
        let connected = self.count(address, now)?;
        self.pace(now)?;
        Ok(connected)
    }

    /// A place to tell somebody why they are refused. None: close, too many are being told.
    pub fn tell(self: &Arc<Self>) -> Option<Telling> {
        let free = |telling| (telling < TELLING).then_some(telling + 1);
        let entered = self.telling.fetch_update(Ordering::AcqRel, Ordering::Acquire, free);
        entered.is_ok().then(|| Telling(self.clone()))
    }

    /// Forgets the addresses that nothing is known of any more.
    pub fn sweep(&self, now: Instant) {
        let mut addresses = self.addresses.lock();
        addresses.sweep(now);
        self.metrics.client_addresses.set(addresses.known.len() as i64);
    }

    /// Counts, and spreads those who are refused over ten seconds.
    fn count_refused(&self, reason: &str) -> Duration {
        self.metrics.connections_refused.with_label_values(&[reason]).inc();
        Duration::from_secs(u64::from(self.refused.fetch_add(1, Ordering::Relaxed) % 10))
    }
}

fn rate(rate: Option<u32>, burst: Option<u32>) -> Option<Rate> {
    rate.map(|rate| Rate { per_second: rate, burst: burst.unwrap_or(rate) })
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut addresses = self.permits.addresses.lock();
        let Some(client) = addresses.known.get_mut(&self.key) else { return };
        client.open = client.open.saturating_sub(1);
        if client.open == 0 && client.bucket.is_full(Instant::now()) {
            addresses.known.remove(&self.key);
            self.permits.metrics.client_addresses.set(addresses.known.len() as i64);
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.telling.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(config: ConnectionsConfig) -> Arc<Permits> {
        Permits::new(config, Arc::new(Metrics::new()))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_so_many_connections_and_gets_their_places_back() {
        let permits = permits(ConnectionsConfig { per_address: Some(2), ..Default::default() });
        let count = |text: &str| permits.count(address(text), Instant::now());
        let held = [count("192.0.2.1").unwrap(), count("192.0.2.1").unwrap()];
        assert!(count("192.0.2.1").is_err() && count("::ffff:192.0.2.1").is_err(), "it is the same one");
        let other = count("192.0.2.2").unwrap();
        // A customer's network is one client.
        let network = [count("2001:db8::1").unwrap(), count("2001:db8::2:0:0:1").unwrap()];
        assert!(count("2001:db8::3").is_err());
        assert!(count("2001:db8:0:1::3").is_ok());
        assert_eq!(permits.metrics.connections_refused.with_label_values(&["address"]).get(), 3);
        drop((held, other, network));
        assert!(count("192.0.2.1").is_ok());
        assert_eq!(permits.metrics.client_addresses.get(), 0, "nobody is here, so nobody is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_comes_only_so_often() {
        let permits = permits(ConnectionsConfig { rate: Some(1), burst: Some(3), ..Default::default() });
        let come = || permits.count(address("192.0.2.1"), Instant::now()).is_ok();
        assert_eq!((0..10).filter(|_| come()).count(), 3);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..10).filter(|_| come()).count(), 1);
        assert_eq!(permits.addresses.lock().known.len(), 1, "it is remembered although it has no connection");
        tokio::time::advance(Duration::from_secs(10)).await;
        permits.sweep(Instant::now());
        assert_eq!(permits.addresses.lock().known.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_too_many_are_told_times_that_are_spread() {
        let permits = permits(ConnectionsConfig { total_rate: Some(100), ..Default::default() });
        let mut come = Vec::new();
        let mut refused = vec![0; 32];
        for _ in 0..3_000 {
            match permits.pace(Instant::now()) {
                Ok(()) => come.push(()),
                Err(refusal) => refused[refusal.retry.as_secs() as usize] += 1,
            }
        }
        assert_eq!(come.len(), 100);
        assert!(refused.iter().all(|second| *second <= 200), "{refused:?}");
        assert!(refused[2..28].iter().all(|second| *second >= 99), "{refused:?}");
        assert_eq!(permits.metrics.connections_refused.with_label_values(&["rate"]).get(), 2_900);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_the_exempt_are_not_in_it() {
        let exempt = vec![crate::config::Network("10.0.0.0/8".parse().unwrap())];
        let config = ConnectionsConfig { per_address: Some(1), addresses: 4, exempt, ..Default::default() };
        let permits = permits(config);
        let count = |number: u8| permits.count(IpAddr::from([192, 0, 2, number]), Instant::now()).unwrap();
        let held: Vec<_> = (0..10).map(count).collect();
        assert_eq!(held.iter().flatten().count(), 4);
        assert_eq!(permits.metrics.addresses_uncounted.get(), 6);
        assert!(permits.count(address("10.1.1.1"), Instant::now()).unwrap().is_none());
        drop(held);
        assert!(count(20).is_some());
    }

    #[test]
    fn so_many_are_told_at_a_time() {
        let permits = permits(ConnectionsConfig::default());
        let told: Vec<_> = std::iter::from_fn(|| permits.tell()).collect();
        assert_eq!(told.len(), TELLING);
        drop(told);
        assert!(permits.tell().is_some());
    }
}
