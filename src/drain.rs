//! Leaving without losing anything: who is still here, and whether the doors are closed.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

/// Shared by everything that must end before the gateway does.
#[derive(Clone)]
pub struct Drain(Arc<Inner>);

struct Inner {
    draining: watch::Sender<bool>,
    guests: watch::Sender<usize>,
}

/// Something that the drain waits for, until it is dropped.
pub struct Guest(Arc<Inner>);

impl Default for Drain {
    fn default() -> Self {
        Self(Arc::new(Inner { draining: watch::Sender::new(false), guests: watch::Sender::new(0) }))
    }
}

impl Drain {
    /// None: the doors are closed.
    pub fn enter(&self) -> Option<Guest> {
        // Counted first: a drain that begins meanwhile waits for this guest, or the guest sees it.
        self.0.guests.send_modify(|guests| *guests += 1);
        let guest = Guest(self.0.clone());
        (!self.is_draining()).then_some(guest)
    }

    pub fn is_draining(&self) -> bool {
        *self.0.draining.borrow()
    }

    /// Closes the doors.
    pub fn begin(&self) {
        self.0.draining.send_replace(true);
    }

    /// Waits until the doors are closed.
    pub async fn begun(&self) {
        let _ = self.0.draining.subscribe().wait_for(|draining| *draining).await;
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

/// What the process is told by signals.
pub struct Signals {
    /// Stop: SIGTERM or ctrl-c, each of them.
    pub stop: mpsc::Receiver<()>,
    /// Read the configuration again: SIGHUP.
    pub reload: mpsc::Receiver<()>,
}

/// Listens to the process's signals.
pub fn signals() -> std::io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    let (tell_stop, stop) = mpsc::channel(4);
    let (tell_reload, reload) = mpsc::channel(1);
    let kinds = [
        (SignalKind::terminate(), &tell_stop),
        (SignalKind::interrupt(), &tell_stop),
        (SignalKind::hangup(), &tell_reload),
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
    Ok(Signals { stop, reload })
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
}
