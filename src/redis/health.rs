//! Whether this node hears and is heard by way of every server, and the log lines that say so.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::time::Instant;

use super::link::Link;
use crate::metrics::Metrics;

pub(super) struct Health {
    state: Mutex<State>,
    /// 1 while all is well.
    up: IntGauge,
    shards: IntGauge,
    shards_up: IntGauge,
}

#[derive(Default)]
struct State {
    /// Who the servers are.
    known: bool,
    /// Why not.
    why: Option<String>,
    /// The servers that own slots, by the number of their link.
    shards: BTreeMap<u64, Shard>,
    since: Option<Instant>,
    /// It was well before.
    was_well: bool,
}

#[derive(Default)]
struct Shard {
    name: Option<String>,
    commands: bool,
    subscriptions: bool,
    /// A probe has come back since both are there.
    heard: bool,
    /// Why not.
    why: Option<String>,
}

/// Failed attempts after which the log says so again: a line at 1, 2, 4, 8, then one in 16.
fn is_told(failed: u32) -> bool {
    failed.is_power_of_two() && failed < 16 || failed.is_multiple_of(16)
}

impl Health {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            state: Mutex::default(),
            up: metrics.redis_up.clone(),
            shards: metrics.redis_shards.clone(),
            shards_up: metrics.redis_shards_up.clone(),
        }
    }

    /// Who the servers are is known: these, and no others.
    pub fn known(&self, links: &[&Link]) {
        let mut state = self.state.lock();
        (state.known, state.why) = (true, None);
        state.shards.retain(|number, _| links.iter().any(|link| link.number == *number));
        for link in links {
            let name = link.shard();
            let shard = || Shard {
                name,
                commands: link.commands.is_connected(),
                subscriptions: link.subscriptions.is_connected(),
                ..Shard::default()
            };
            state.shards.entry(link.number).or_insert_with(shard);
        }
        if state.is_well() {
            state.since = None;
        }
        self.tell(&mut state);
    }

    /// Nobody says who the servers are; with the attempts that failed before.
    pub fn unknown(&self, error: &anyhow::Error, failed: u32) {
        let mut state = self.state.lock();
        let why = format!("{error:#}");
        if is_told(failed) {
            tracing::error!(
                attempts = failed + 1,
                why,
                "Redis cannot be used: see that it runs, that [redis] has its address and password, and that nothing \
                stands between"
            );
        }
        (state.known, state.why) = (false, Some(why));
        self.tell(&mut state);
    }

    /// The connection for commands is there, or not.
    pub fn commands(&self, link: &Link, there: bool, failed: u32) {
        self.connection(link, there, failed, "commands", |shard| &mut shard.commands);
    }

    /// The connection for subscriptions is there, with all that is wanted of it, or not.
    pub fn subscriptions(&self, link: &Link, there: bool, failed: u32) {
        self.connection(link, there, failed, "subscriptions", |shard| &mut shard.subscriptions);
    }

    fn connection(
        &self,
        link: &Link,
        there: bool,
        failed: u32,
        which: &'static str,
        of: impl Fn(&mut Shard) -> &mut bool,
    ) {
        let mut state = self.state.lock();
        if there {
            tracing::debug!(shard = link.shard(), connection = which, attempts = failed + 1, "connected to Redis");
        }
        let Some(shard) = state.shards.get_mut(&link.number) else { return };
        *of(shard) = there;
        shard.heard &= there;
        if shard.commands && shard.subscriptions {
            link.connected.notify_one();
        }
        self.tell(&mut state);
    }

    /// A connection ended, or could not be made; with the attempts that failed before.
    pub fn lost(&self, link: &Link, which: &'static str, error: Option<(&anyhow::Error, u32)>) {
        let why = match error {
            None => {
                tracing::warn!(
                    shard = link.shard(),
                    connection = which,
                    "Redis has ended the connection, or does not answer: connecting again"
                );
                format!("the connection for {which} ended")
            }
            Some((error, failed)) => {
                let why = format!("{error:#}");
                if is_told(failed) {
                    tracing::error!(
                        shard = link.shard(),
                        connection = which,
                        attempts = failed + 1,
                        why,
                        "Redis cannot be used: see that it runs, that [redis] has its address and password, and that \
                        nothing stands between"
                    );
                }
                why
            }
        };
        self.unwell(link, why);
    }

    /// The probe was not heard in time.
    pub fn unheard(&self, link: &Link, seconds: f64) {
        tracing::error!(
            shard = link.shard(),
            seconds,
            "Redis takes what is published and does not deliver it, or is frozen: connecting again"
        );
        self.unwell(link, format!("what this node publishes has not come back to it for {seconds:.1} s"));
    }

    /// The server does not take the probe.
    pub fn refused(&self, link: &Link, why: String) {
        if self.unwell(link, why.clone()) {
            tracing::error!(
                shard = link.shard(),
                why,
                "Redis refuses to publish: see its memory, what its user may do, and in a Cluster that all slots are served"
            );
        }
    }

    /// Whether that is news.
    fn unwell(&self, link: &Link, why: String) -> bool {
        let mut state = self.state.lock();
        let Some(shard) = state.shards.get_mut(&link.number) else { return false };
        let news = std::mem::replace(&mut shard.heard, false) || shard.why.as_ref() != Some(&why);
        shard.why = Some(why);
        self.tell(&mut state);
        news
    }

    /// A probe has come back. Whether that is news.
    pub fn heard(&self, link: &Link) -> bool {
        let mut state = self.state.lock();
        let Some(shard) = state.shards.get_mut(&link.number) else { return false };
        if !shard.commands || !shard.subscriptions || std::mem::replace(&mut shard.heard, true) {
            return false;
        }
        shard.why = None;
        self.tell(&mut state);
        if !state.is_well() {
            return true;
        }
        let seconds = state.since.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
        match std::mem::replace(&mut state.was_well, true) {
            false => tracing::info!("Redis carries publications between nodes"),
            true => tracing::info!(seconds, "Redis carries publications between nodes again"),
        }
        true
    }

    fn tell(&self, state: &mut State) {
        let well = state.is_well();
        if !well {
            state.since.get_or_insert_with(Instant::now);
        }
        self.up.set(i64::from(well));
        self.shards.set(state.shards.len() as i64);
        self.shards_up.set(state.shards.values().filter(|shard| shard.heard).count() as i64);
    }

    /// Both connections are there: it is worth to probe.
    pub fn is_connected(&self, link: &Link) -> bool {
        self.state.lock().shards.get(&link.number).is_some_and(|shard| shard.commands && shard.subscriptions)
    }

    pub fn is_well(&self) -> bool {
        self.state.lock().is_well()
    }

    /// Which servers do not deliver, and why.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state.lock();
        if state.is_well() {
            return None;
        }
        if !state.known {
            return Some(state.why.clone().unwrap_or_else(|| "not connected yet".to_owned()));
        }
        let unheard = state.shards.values().filter(|shard| !shard.heard);
        let told: Vec<_> = unheard
            .map(|shard| {
                let why = shard.why.as_deref().unwrap_or("not connected yet");
                match &shard.name {
                    // Errors of connecting have the address already.
                    Some(name) if !why.starts_with(name.as_str()) => format!("{name}: {why}"),
                    _ => why.to_owned(),
                }
            })
            .collect();
        Some(told.join("; "))
    }
}

impl State {
    fn is_well(&self) -> bool {
        self.known && !self.shards.is_empty() && self.shards.values().all(|shard| shard.heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::slots::Address;
    use std::sync::Arc;

    #[tokio::test]
    async fn only_a_probe_that_came_back_makes_it_well() {
        let metrics = Arc::new(Metrics::new());
        let (health, link) = (Health::new(&metrics), Link::new(1, None, metrics.clone()));
        assert_eq!(health.trouble().as_deref(), Some("not connected yet"));
        health.unknown(&anyhow::anyhow!("nobody"), 3);
        assert_eq!(health.trouble().as_deref(), Some("nobody"));
        health.known(&[&link]);
        health.commands(&link, true, 0);
        assert!(!health.heard(&link) && health.trouble().is_some(), "an answer to the connection before");
        health.subscriptions(&link, true, 0);
        link.connected.notified().await;
        assert!(health.trouble().is_some() && health.is_connected(&link));
        assert!(health.heard(&link) && !health.heard(&link));
        assert_eq!((health.trouble(), metrics.redis_up.get()), (None, 1));
        health.unheard(&link, 3.0);
        assert!(health.trouble().unwrap().contains("3.0 s"));
        health.heard(&link);
        health.lost(&link, "commands", Some((&anyhow::anyhow!("refused"), 3)));
        assert_eq!((health.trouble().as_deref(), metrics.redis_up.get()), (Some("refused"), 0));
    }

    #[test]
    fn one_server_of_several_that_does_not_deliver_is_named() {
        let metrics = Arc::new(Metrics::new());
        let health = Health::new(&metrics);
        let link = |number: u64| {
            let address = Address { host: "h".to_owned(), port: number as u16 };
            Link::new(number, Some(address), metrics.clone())
        };
        let (a, b) = (link(1), link(2));
        health.known(&[&a, &b]);
        for link in [&a, &b] {
            health.commands(link, true, 0);
            health.subscriptions(link, true, 0);
        }
        health.heard(&a);
        assert_eq!(health.trouble().as_deref(), Some("h:2: not connected yet"));
        assert_eq!((metrics.redis_shards.get(), metrics.redis_shards_up.get()), (2, 1));
        health.heard(&b);
        assert_eq!(health.trouble(), None);
        health.lost(&b, "commands", Some((&anyhow::anyhow!("h:2: refused"), 0)));
        assert_eq!(health.trouble().as_deref(), Some("h:2: refused"));
        // Another server has taken its place, and must prove itself.
        let c = link(3);
        health.known(&[&a, &c]);
        assert_eq!(health.trouble().as_deref(), Some("h:3: not connected yet"));
        health.known(&[&a]);
        assert_eq!((health.trouble(), metrics.redis_up.get()), (None, 1));
    }

    #[test]
    fn the_log_is_not_flooded() {
        assert_eq!((0..100).filter(|failed| is_told(*failed)).count(), 11);
    }
}
