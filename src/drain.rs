//! Leaving without losing anything: who is still here, and which doors are closed.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

/// Shared by everything that must end before the gateway does.
#[derive(Clone)]
pub struct Drain(Arc<Inner>);

struct Inner {
    phase: watch::Sender<Phase>,
    guests: watch::Sender<usize>,
    arrivals: watch::Sender<usize>,
}

/// How far the gateway is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// It says that it leaves, and serves as before.
    Leaving,
    /// No connection is accepted any more.
    Closing,
    /// No request is taken any more.
    Closed,
}

/// Something that the drain waits for, until it is dropped.
pub struct Guest(Arc<Inner>);

/// A connection that was accepted and that has not been answered yet.
pub struct Arrival(Arc<Inner>);

impl Default for Drain {
    fn default() -> Self {
        Self(Arc::new(Inner {
            phase: watch::Sender::new(Phase::Serving),
            guests: watch::Sender::new(0),
            arrivals: watch::Sender::new(0),
        }))
    }
}

impl Drain {
    /// None: the doors are closed.
    pub fn enter(&self) -> Option<Guest> {
        // Counted first: a drain that begins meanwhile waits for this guest, or the guest sees it.
        self.0.guests.send_modify(|guests| *guests += 1);
        let guest = Guest(self.0.clone());
        (*self.0.phase.borrow() < Phase::Closed).then_some(guest)
    }

    /// Somebody was accepted, who is to have an answer before the doors are closed.
    pub fn arrive(&self) -> Arrival {
        self.0.arrivals.send_modify(|arrivals| *arrivals += 1);
        Arrival(self.0.clone())
    }

    pub fn is_leaving(&self) -> bool {
        *self.0.phase.borrow() > Phase::Serving
    }

    /// Says that the gateway is about to go.
    pub fn announce(&self) {
        self.reach(Phase::Leaving);
    }

    /// Ends accepting.
    pub fn stop_accepting(&self) {
        self.reach(Phase::Closing);
    }

    /// Closes the doors.
    pub fn begin(&self) {
        self.reach(Phase::Closed);
    }

    fn reach(&self, phase: Phase) {
        self.0.phase.send_if_modified(|known| std::mem::replace(known, phase.max(*known)) < phase);
    }

    /// Waits until nobody is to be accepted.
    pub async fn accepting_ends(&self) {
        let _ = self.0.phase.subscribe().wait_for(|phase| *phase >= Phase::Closing).await;
    }

    /// Waits until the doors are closed.
    pub async fn begun(&self) {
        let _ = self.0.phase.subscribe().wait_for(|phase| *phase == Phase::Closed).await;
    }

    /// Waits until everybody who was accepted has been answered.
    pub async fn answered(&self) {
        let _ = self.0.arrivals.subscribe().wait_for(|arrivals| *arrivals == 0).await;
    }

    /// Waits until every guest has left.
    pub async fn empty(&self) {
        let _ = self.0.guests.subscribe().wait_for(|guests| *guests == 0).await;
    }

    pub fn guests(&self) -> usize {
        *self.0.guests.borrow()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.guests.send_modify(|guests| *guests -= 1);
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.arrivals.send_modify(|arrivals| *arrivals -= 1);
    }
}

/// What the process is told by signals.
pub struct Signals {
    /// Stop: SIGTERM or ctrl-c, each of them.
    pub stop: mpsc::Receiver<()>,
    /// Read the configuration again: SIGHUP.
    pub reload: mpsc::Receiver<()>,
    /// Let a new process take over: SIGUSR2.
    pub upgrade: mpsc::Receiver<()>,
}

/// Listens to the process's signals.
pub fn signals() -> std::io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    let (tell_stop, stop) = mpsc::channel(4);
    let (tell_reload, reload) = mpsc::channel(1);
    let (tell_upgrade, upgrade) = mpsc::channel(1);
    let kinds = [
        (SignalKind::terminate(), &tell_stop),
        (SignalKind::interrupt(), &tell_stop),
        (SignalKind::hangup(), &tell_reload),
        (SignalKind::user_defined2(), &tell_upgrade),
    ];
    for (kind, tell) in kinds {
        let mut signal = signal(kind)?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                // Who asks more often than can be counted is understood.
                let _ = tell.try_send(());
            }
        });
    }
    Ok(Signals { stop, reload, upgrade })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_drain_waits_for_those_who_are_in_and_lets_nobody_else_in() {
        let drain = Drain::default();
        let guest = drain.enter().unwrap();
        drain.begin();
        drain.begun().await;
        assert!(drain.enter().is_none());
        assert_eq!(drain.guests(), 1);
        let empty = tokio::spawn({
            let drain = drain.clone();
            async move { drain.empty().await }
        });
        drop(guest);
        empty.await.unwrap();
    }

    #[tokio::test]
    async fn who_was_accepted_may_come_in_until_the_doors_are_closed() {
        let drain = Drain::default();
        drain.announce();
        assert!(drain.is_leaving());
        let arrival = drain.arrive();
        drain.stop_accepting();
        drain.accepting_ends().await;
        assert!(drain.enter().is_some());
        drop(arrival);
        drain.answered().await;
        drain.begin();
        // No way leads back.
        drain.announce();
        assert!(drain.enter().is_none());
    }
}
