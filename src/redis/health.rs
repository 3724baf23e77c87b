//! Whether this node hears and is heard, and the log lines that say so.

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) struct Health {
    state: Mutex<State>,
    connected: Notify,
    /// 1 while all is well.
    up: IntGauge,
}

#[derive(Default)]
struct State {
    commands: bool,
    subscriptions: bool,
    /// A probe has come back since both are there.
    heard: bool,
    /// Why not.
    why: Option<String>,
    since: Option<Instant>,
    /// It was well before.
    was_well: bool,
}

/// Failed attempts after which the log says so again: a line at 1, 2, 4, 8, then one in 16.
fn is_told(failed: u32) -> bool {
    failed.is_power_of_two() && failed < 16 || failed.is_multiple_of(16)
}

impl Health {
    pub fn new(up: IntGauge) -> Self {
        Self { state: Mutex::default(), connected: Notify::new(), up }
    }

    pub fn commands(&self, there: bool, failed: u32) {
        let mut state = self.state.lock();
        state.commands = there;
        state.changed(there, failed, "commands");
        self.tell(&state);
    }

    pub fn subscriptions(&self, there: bool, failed: u32) {
        let mut state = self.state.lock();
        state.subscriptions = there;
        state.changed(there, failed, "subscriptions");
        self.tell(&state);
    }

    fn tell(&self, state: &State) {
        self.up.set(i64::from(state.heard));
        if state.commands && state.subscriptions {
            self.connected.notify_one();
        }
    }

    /// Waits until both connections are there anew.
    pub async fn connected(&self) {
        self.connected.notified().await;
    }

    /// A connection ended, or could not be made; with the attempts that failed before.
    pub fn lost(&self, which: &'static str, error: Option<(&anyhow::Error, u32)>) {
        let mut state = self.state.lock();
        state.heard = false;
        self.up.set(0);
        state.since.get_or_insert_with(Instant::now);
        match error {
            None => {
                state.why = Some(format!("the connection for {which} ended"));
                tracing::warn!(
                    connection = which,
                    "Redis has ended the connection, or does not answer: connecting again"
                );
            }
            Some((error, failed)) => {
                let why = format!("{error:#}");
                if is_told(failed) {
                    tracing::error!(
                        connection = which,
                        attempts = failed + 1,
                        why,
                        "Redis cannot be used: see that it \
                        runs, that [redis] has its address and password, and that nothing stands between"
                    );
                }
                state.why = Some(why);
            }
        }
    }

    /// The probe was not heard in time.
    pub fn unheard(&self, seconds: f64) {
        let mut state = self.state.lock();
        state.heard = false;
        self.up.set(0);
        state.since.get_or_insert_with(Instant::now);
        state.why = Some(format!("what this node publishes has not come back to it for {seconds:.1} s"));
        tracing::error!(
            seconds,
            "Redis takes what is published and does not deliver it, or is frozen: connecting again"
        );
    }

    /// The server does not take the probe.
    pub fn refused(&self, why: String) {
        let mut state = self.state.lock();
        state.since.get_or_insert_with(Instant::now);
        if std::mem::replace(&mut state.heard, false) || state.why.as_ref() != Some(&why) {
            tracing::error!(why, "Redis refuses to publish: see its memory, and what its user may do");
        }
        state.why = Some(why);
        self.up.set(0);
    }

    /// A probe has come back.
    pub fn heard(&self) {
        let mut state = self.state.lock();
        if !state.commands || !state.subscriptions || std::mem::replace(&mut state.heard, true) {
            return;
        }
        state.why = None;
        self.up.set(1);
        let seconds = state.since.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
        match std::mem::replace(&mut state.was_well, true) {
            false => tracing::info!("Redis carries publications between nodes"),
            true => tracing::info!(seconds, "Redis carries publications between nodes again"),
        }
    }

    /// Both connections are there: it is worth to probe.
    pub fn is_connected(&self) -> bool {
        let state = self.state.lock();
        state.commands && state.subscriptions
    }

    pub fn trouble(&self) -> Option<String> {
        let state = self.state.lock();
        if state.heard {
            return None;
        }
        Some(state.why.clone().unwrap_or_else(|| "not connected yet".to_owned()))
    }
}

impl State {
    fn changed(&mut self, there: bool, failed: u32, which: &'static str) {
        if there {
            tracing::debug!(connection = which, attempts = failed + 1, "connected to Redis");
        } else {
            self.heard = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_probe_that_came_back_makes_it_well() {
        let up = IntGauge::new("up", "up").unwrap();
        let health = Health::new(up.clone());
        assert_eq!(health.trouble().as_deref(), Some("not connected yet"));
        health.commands(true, 0);
        health.heard();
        assert!(health.trouble().is_some(), "an answer to the connection before");
        health.subscriptions(true, 0);
        assert!(health.trouble().is_some() && health.is_connected());
        health.heard();
        assert_eq!((health.trouble(), up.get()), (None, 1));
        health.unheard(3.0);
        assert!(health.trouble().unwrap().contains("3.0 s"));
        health.heard();
        health.lost("commands", Some((&anyhow::anyhow!("refused"), 3)));
        assert_eq!((health.trouble().as_deref(), up.get()), (Some("refused"), 0));
    }

    #[test]
    fn the_log_is_not_flooded() {
        assert_eq!((0..100).filter(|failed| is_told(*failed)).count(), 11);
    }
}
