//! When to ping a silent client, how long to wait for it, and when to give it up: pure logic on instants that the caller
//! hands in. It knows no transport: whoever has no pings has `heard` alone.

use std::time::Duration;

use tokio::time::Instant;

use crate::ticks::micros;

/// How a route watches its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// A client that was silent for so long is pinged, and somewhat earlier.
    pub interval: Duration,
    /// A client that stays silent for so long after the ping is closed.
    pub timeout: Duration,
    /// Where it is set, clients whose round trips are known have a timeout of their own, from this to `timeout`.
    pub timeout_min: Option<Duration>,
}

/// What a session has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Nothing before this instant.
    Sleep(Instant),
    /// Send a ping with this payload, then nothing before this instant.
    Ping([u8; 4], Instant),
    /// The client has not answered: close.
    Dead,
}

/// What is remembered of one client: 32 bytes, as every idle session has it.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    /// In microseconds, as `micros` counts them.
    seen: u64,
    pinged: u64,
    /// Smoothed, in microseconds; 0: nothing is known.
    round_trip: u32,
    /// The mean deviation from it.
    jitter: u32,
    /// What makes this client's pings come at other times than those of others.
    salt: u16,
    has_pinged: bool,
    /// The last ping was followed by silence so far.
    waits: bool,
    /// The pong to the last ping is still to come.
    measures: bool,
}

impl Pulse {
    /// A client that was heard of just now. Its first ping comes in the second half of the interval, spread by `number`, of
    /// which every client has its own: clients that come all at once are not pinged all at once.
    pub fn new(now: Instant, number: u64) -> Self {
        // Multiples of the golden ratio lie as far from each other as numbers can.
        let salt = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16;
        let seen = micros(now);
        Self { seen, pinged: 0, round_trip: 0, jitter: 0, salt, has_pinged: false, waits: false, measures: false }
    }

    /// Something arrived from the client: any bytes prove that it lives.
    pub fn heard(&mut self, now: Instant) {
        self.seen = micros(now);
        self.waits = false;
    }

    /// A pong has arrived. Returned: how long its way was, if it is the one to the last ping.
    pub fn pong(&mut self, payload: &[u8], now: Instant) -> Option<Duration> {
        if !self.measures || *payload != nonce(self.pinged) {
            return None;
        }
        self.measures = false;
        let took = micros(now).saturating_sub(self.pinged);
        let sample = u32::try_from(took).unwrap_or(u32::MAX).max(1);
        if self.round_trip == 0 {
            (self.round_trip, self.jitter) = (sample, sample / 2);
        } else {
            // As TCP does it (RFC 6298 section 2).
            let (known, jitter) = (u64::from(self.round_trip), u64::from(self.jitter));
            let sample = u64::from(sample);
            self.jitter = ((3 * jitter + known.abs_diff(sample)) / 4) as u32;
            self.round_trip = ((7 * known + sample) / 8).max(1) as u32;
        }
        Some(Duration::from_micros(took))
    }

    /// How long this client may be silent after a ping.
    fn timeout(&self, heartbeat: &Heartbeat) -> Duration {
        let Some(least) = heartbeat.timeout_min.filter(|_| self.round_trip > 0) else { return heartbeat.timeout };
        let percent = u64::from(self.jitter) * 100 / u64::from(self.round_trip);
        let times = match percent {
            0..10 => 3,
            10..=30 => 5,
            _ => 8,
        };
        // Not `clamp`, which panics where the bounds cross.
        Duration::from_micros(times * u64::from(self.round_trip)).max(least).min(heartbeat.timeout)
    }

    /// What is due. Asking twice at the same instant sends no second ping.
    pub fn beat(&mut self, heartbeat: &Heartbeat, now: Instant) -> Beat {
        let timeout = self.timeout(heartbeat);
        let at = micros(now);
        let in_ = |due: u64| now + Duration::from_micros(due.saturating_sub(at));
        if self.waits {
            let due = self.pinged.saturating_add(timeout.as_micros() as u64);
            return if at >= due { Beat::Dead } else { Beat::Sleep(in_(due)) };
        }
        let due = self.seen.saturating_add(self.silence(heartbeat));
        if at < due {
            return Beat::Sleep(in_(due));
        }
        self.pinged = at;
        (self.has_pinged, self.waits, self.measures) = (true, true, true);
        // Where the timeout is the longer one, the next ping to a client that answers comes before it.
        Beat::Ping(nonce(at), now + timeout.min(heartbeat.interval))
    }

    /// How long the client may be silent before it is pinged, in microseconds.
    fn silence(&self, heartbeat: &Heartbeat) -> u64 {
        let interval = heartbeat.interval.as_micros() as u64;
        let spread = |part: u64, salt: u16| interval - part + (part >> 16) * u64::from(salt);
        match self.has_pinged {
            false => spread(interval / 2, self.salt),
            // Whoever answers the same message at the same moment is not pinged at the same moment.
            true => spread(interval / 8, self.salt.wrapping_add(self.seen as u16).wrapping_mul(0x9e37)),
        }
    }
}

/// A ping's payload, which tells its pong from others.
fn nonce(pinged: u64) -> [u8; 4] {
    (pinged as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const HEARTBEAT: Heartbeat =
        Heartbeat { interval: Duration::from_secs(25), timeout: Duration::from_secs(10), timeout_min: None };

    /// Waits until a ping is due, and returns its payload and when to look again.
    async fn pinged(pulse: &mut Pulse, heartbeat: &Heartbeat) -> ([u8; 4], Instant) {
        loop {
            match pulse.beat(heartbeat, Instant::now()) {
                Beat::Sleep(until) => tokio::time::sleep_until(until).await,
                Beat::Ping(payload, deadline) => return (payload, deadline),
                Beat::Dead => panic!("the client is no more"),
            }
        }
    }

    /// Answers one ping after so long.
    async fn answer(pulse: &mut Pulse, heartbeat: &Heartbeat, after: Duration) {
        let (payload, _) = pinged(pulse, heartbeat).await;
        advance(after).await;
        pulse.heard(Instant::now());
        let measured = pulse.pong(&payload, Instant::now()).unwrap();
        assert!(measured.abs_diff(after) < Duration::from_millis(2), "{measured:?} is not {after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_pinged_once_and_then_given_up() {
        let begin = Instant::now();
        let mut pulse = Pulse::new(begin, 7);
        let (_, deadline) = pinged(&mut pulse, &HEARTBEAT).await;
        assert!(begin.elapsed() <= HEARTBEAT.interval + Duration::from_millis(1));
        assert!(matches!(pulse.beat(&HEARTBEAT, Instant::now()), Beat::Sleep(_)));
        tokio::time::sleep_until(deadline).await;
        assert_eq!(pulse.beat(&HEARTBEAT, Instant::now()), Beat::Dead);
        assert!(begin.elapsed() <= HEARTBEAT.interval + HEARTBEAT.timeout + Duration::from_millis(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_longer_than_the_interval_delays_no_ping() {
        let patient = Heartbeat { timeout: Duration::from_secs(600), ..HEARTBEAT };
        let mut pulse = Pulse::new(Instant::now(), 7);
        let (_, look) = pinged(&mut pulse, &patient).await;
        pulse.heard(Instant::now());
        tokio::time::sleep_until(look).await;
        assert!(matches!(pulse.beat(&patient, Instant::now()), Beat::Ping(..)));
        // Nor does it end a client early that does not answer.
        advance(Duration::from_secs(500)).await;
        assert!(matches!(pulse.beat(&patient, Instant::now()), Beat::Sleep(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn any_bytes_after_the_ping_are_an_answer() {
        let mut pulse = Pulse::new(Instant::now(), 7);
        let (payload, deadline) = pinged(&mut pulse, &HEARTBEAT).await;
        advance(Duration::from_secs(9)).await;
        pulse.heard(Instant::now());
        tokio::time::sleep_until(deadline).await;
        assert!(matches!(pulse.beat(&HEARTBEAT, Instant::now()), Beat::Sleep(_)));
        // Its pong still tells how far away it is, once, and no other does.
        assert_eq!(pulse.pong(b"else", Instant::now()), None);
        assert!(pulse.pong(&payload, Instant::now()).is_some());
        assert_eq!(pulse.pong(&payload, Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_that_comes_at_once_is_not_pinged_at_once() {
        let now = Instant::now();
        let mut seconds = [0; 26];
        let mut later = [0; 26];
        for number in 1..=10_000 {
            let mut pulse = Pulse::new(now, number);
            let Beat::Sleep(first) = pulse.beat(&HEARTBEAT, now) else { panic!("too early") };
            seconds[(first - now).as_secs() as usize] += 1;
            assert!(matches!(pulse.beat(&HEARTBEAT, first), Beat::Ping(..)));
            // All answer at the same moment.
            let answer = now + HEARTBEAT.interval;
            pulse.heard(answer);
            let Beat::Sleep(second) = pulse.beat(&HEARTBEAT, answer) else { panic!("too early") };
            later[(second - answer).as_secs() as usize] += 1;
        }
        assert!(seconds[..12].iter().all(|pings| *pings == 0), "{seconds:?}");
        assert!(seconds[13..25].iter().all(|pings| (700..900).contains(pings)), "{seconds:?}");
        assert!(
            later[..21].iter().all(|pings| *pings == 0) && later[22..25].iter().all(|pings| *pings > 2_000),
            "{later:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_timeout_fits_what_is_measured_where_it_may() {
        let adaptive = Heartbeat { timeout_min: Some(Duration::from_millis(500)), ..HEARTBEAT };
        let mut pulse = Pulse::new(Instant::now(), 7);
        assert_eq!(pulse.timeout(&adaptive), HEARTBEAT.timeout, "nothing is known yet");
        let steady = Duration::from_millis(400);
        answer(&mut pulse, &adaptive, steady).await;
        let first = pulse.timeout(&adaptive);
        assert!(first.abs_diff(8 * steady) < Duration::from_millis(50), "one sample says little: {first:?}");
        for _ in 0..40 {
            answer(&mut pulse, &adaptive, steady).await;
        }
        let settled = pulse.timeout(&adaptive);
        assert!(settled.abs_diff(3 * steady) < Duration::from_millis(20), "{settled:?}");
        assert_eq!(pulse.timeout(&HEARTBEAT), HEARTBEAT.timeout);
        for round in 0..40 {
            answer(&mut pulse, &adaptive, if round % 2 == 0 { steady } else { steady * 3 / 2 }).await;
        }
        let wavering = pulse.timeout(&adaptive);
        assert!((1900..2700).contains(&wavering.as_millis()), "five times some 500 ms: {wavering:?}");
        for round in 0..40 {
            answer(&mut pulse, &adaptive, if round % 2 == 0 { steady / 4 } else { steady * 5 / 2 }).await;
        }
        let wild = pulse.timeout(&adaptive);
        assert!((3400..5600).contains(&wild.as_millis()), "eight times some 550 ms: {wild:?}");
        let mut far = Pulse::new(Instant::now(), 7);
        answer(&mut far, &adaptive, Duration::from_secs(9)).await;
        assert_eq!(far.timeout(&adaptive), HEARTBEAT.timeout, "never longer than what is set");
        let mut near = Pulse::new(Instant::now(), 7);
        answer(&mut near, &adaptive, Duration::from_millis(3)).await;
        assert_eq!(near.timeout(&adaptive), Duration::from_millis(500), "never shorter");
    }

    #[test]
    fn a_pulse_is_small() {
        assert_eq!(size_of::<Pulse>(), 32);
    }
}
