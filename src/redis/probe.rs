//! The probe: the node publishes to itself by way of each server. It comes back only if commands are taken, writes are
//! allowed, and subscriptions are heard; a green answer to PING says none of that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::commands::{Failed, Why};
use super::link::Link;
use super::{Fault, Intake, Redis, Script};

/// Writes too, so that a server that takes no writes is found out.
/// KEYS: what carries the probe, which is also its channel. ARGV: 1 the probe, 2 how long it is kept, in milliseconds,
/// 3 PUBLISH or SPUBLISH.
const PROBE: &str = "
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call(ARGV[3], KEYS[1], ARGV[1])";

/// The probe that is under way.
#[derive(Default)]
pub(super) struct Probes(Mutex<Option<Probe>>);

#[derive(Clone, Copy)]
struct Probe {
    number: u64,
    sent: Instant,
    /// Redis has said that it was published.
    taken: bool,
}

impl Probes {
    /// From now on another channel carries it.
    pub fn forget(&self) {
        *self.0.lock() = None;
    }
}

impl Redis {
    /// Probes for as long as the server is one of ours, and gives up connections that do not carry.
    pub(super) async fn keep_probing(self: Arc<Self>, link: Arc<Link>) {
        let script = Script::new(PROBE);
        let kept = self.silence().as_millis().to_string();
        let mut ticks = tokio::time::interval(self.config.probe.0);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 1_u64.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = link.connected.notified() => {}
            }
            if self.leaving.load(Ordering::Acquire) {
                return;
            }
            let channel = link.probe.lock().clone();
            let Some(channel) = channel.filter(|_| self.health.is_connected(&link)) else {
                link.probes.forget();
                continue;
            };
            if !link.subscriptions.is_confirmed(&channel) {
                // Another one since a slot has moved: nobody would hear it yet.
                continue;
            }
            let under_way = *link.probes.0.lock();
            match under_way {
                Some(probe) if probe.sent.elapsed() > self.config.probe_timeout.0 => {
                    self.health.unheard(&link, probe.sent.elapsed().as_secs_f64());
                    link.probes.forget();
                    link.subscriptions.give_up();
                    if !probe.taken {
                        link.commands.give_up();
                    }
                    self.look_again();
                    continue;
                }
                Some(_) => continue,
                None => *link.probes.0.lock() = Some(Probe { number, sent: Instant::now(), taken: false }),
            }
            let text = number.to_string();
            let arguments = [text.as_bytes(), kept.as_bytes(), self.publish_command().as_bytes()];
            match self.invoke_on(&link, &script, &channel, &arguments).await {
                Ok(_) => {
                    if let Some(probe) = &mut *link.probes.0.lock() {
                        probe.taken = true;
                    }
                }
                Err(Failed { fault: Fault::Refused(why), .. }) => {
                    link.probes.forget();
                    self.health.refused(&link, why);
                }
                Err(Failed { why: Why::Down, .. }) => {
                    link.probes.forget();
                    self.health.refused(&link, "the Cluster does not serve its slots".to_owned());
                    self.look_again();
                }
                // Its time runs.
                Err(Failed { why: Why::Moved(_) | Why::Ask(_) | Why::TryAgain, .. }) => self.look_again(),
                Err(Failed { fault: Fault::Timeout, .. }) => self.look_again(),
                Err(_) => link.probes.forget(),
            }
        }
    }

    /// A probe has come back.
    pub(super) fn probed(&self, link: &Link, channel: &str, payload: &[u8], intake: &dyn Intake) {
        if link.probe.lock().as_deref() != Some(channel) {
            return;
        }
        let number = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        let sent = {
            let mut under_way = link.probes.0.lock();
            // One of a former life of the connection says nothing of this one.
            match under_way.filter(|probe| Some(probe.number) == number) {
                Some(probe) => {
                    *under_way = None;
                    probe.sent
                }
                None => return,
            }
        };
        self.metrics.redis_lag.observe(sent.elapsed().as_secs_f64());
        if self.health.heard(link) {
            // What could not be read while the server refused or was silent, can be now.
            intake.back(&link.subscriptions.wanted());
        }
    }
}
