//! When to ping a silent client, and when to give it up: pure logic on instants that the caller hands in.

use std::time::Duration;

use tokio::time::Instant;

/// How a route watches its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// A client that was silent for so long is pinged.
    pub interval: Duration,
    /// A client that stays silent for so long after the ping is closed.
    pub timeout: Duration,
}

/// What a session has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Nothing before this instant.
    Sleep(Instant),
    /// Send a ping, then nothing before this instant.
    Ping(Instant),
    /// The client has not answered: close.
    Dead,
}

/// What is remembered of one client.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    seen: Instant,
    pinged: Option<Instant>,
}

impl Pulse {
    /// A client that was heard of just now.
    pub fn new(now: Instant) -> Self {
        Self { seen: now, pinged: None }
    }

    /// Something arrived from the client: any bytes prove that it lives.
    pub fn heard(&mut self, now: Instant) {
        self.seen = now;
        self.pinged = None;
    }

    /// What is due. Asking twice at the same instant sends no second ping.
    pub fn beat(&mut self, heartbeat: &Heartbeat, now: Instant) -> Beat {
        match self.pinged {
            Some(pinged) if now >= pinged + heartbeat.timeout => Beat::Dead,
            Some(pinged) => Beat::Sleep(pinged + heartbeat.timeout),
            None if now >= self.seen + heartbeat.interval => {
                self.pinged = Some(now);
                Beat::Ping(now + heartbeat.timeout)
            }
            None => Beat::Sleep(self.seen + heartbeat.interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Heartbeat = Heartbeat { interval: Duration::from_secs(25), timeout: Duration::from_secs(10) };

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_pinged_once_and_then_given_up() {
        let mut pulse = Pulse::new(Instant::now());
        let Beat::Sleep(first) = pulse.beat(&HEARTBEAT, Instant::now()) else { panic!("nothing is due yet") };
        tokio::time::sleep_until(first).await;
        let Beat::Ping(deadline) = pulse.beat(&HEARTBEAT, Instant::now()) else { panic!("a ping is due") };
        assert_eq!(pulse.beat(&HEARTBEAT, Instant::now()), Beat::Sleep(deadline));
        tokio::time::sleep_until(deadline).await;
        assert_eq!(pulse.beat(&HEARTBEAT, Instant::now()), Beat::Dead);
    }

    #[tokio::test(start_paused = true)]
    async fn any_bytes_after_the_ping_are_an_answer() {
        let mut pulse = Pulse::new(Instant::now());
        tokio::time::advance(HEARTBEAT.interval).await;
        assert!(matches!(pulse.beat(&HEARTBEAT, Instant::now()), Beat::Ping(_)));
        tokio::time::advance(Duration::from_secs(9)).await;
        pulse.heard(Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            pulse.beat(&HEARTBEAT, Instant::now()),
            Beat::Sleep(Instant::now() + HEARTBEAT.interval - Duration::from_secs(1))
        );
    }
}
