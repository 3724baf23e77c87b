//! A gateway started as a child: told when it is ready, and told to stop when we are.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

use crate::process;

const POLL: Duration = Duration::from_millis(50);

/// How long a signal that reached the whole process group gets to show in the gateway.
const GRACE: Duration = Duration::from_millis(200);

/// Compiling a plugin for the first time takes some seconds on a slow machine.
const READY_WITHIN: Duration = Duration::from_secs(120);

pub(crate) struct Gateway {
    child: Child,
    admin: SocketAddr,
    /// The last signal that came for us, 0 for none.
    signal: Arc<AtomicUsize>,
}

pub(crate) enum Start {
    Ready,
    /// It ended before it was ready, by itself or because we were told to stop.
    Ended(ExitStatus),
    /// It runs, and does not answer.
    Late,
}

impl Gateway {
    /// Starts it. From here on signals are no longer the end of this process, but of the gateway first.
    pub(crate) fn start(command: &mut Command, admin: SocketAddr) -> Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_usize(number, Arc::clone(&signal), usize::try_from(number)?)
                .context("signals cannot be watched")?;
        }
        let told = process::told(command);
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("`{told}` could not be started"))?;
        Ok(Self { child, admin, signal })
    }

    pub(crate) fn wait_until_ready(&mut self) -> Result<Start> {
        let started = Instant::now();
        while started.elapsed() < READY_WITHIN {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Start::Ended(status));
            }
            if is_ready(self.admin) {
                return Ok(Start::Ready);
            }
            if let Some(signal) = self.take_signal() {
                self.send(signal);
            }
            thread::sleep(POLL);
        }
        Ok(Start::Late)
    }

    /// Waits for its end, and passes on the signals that came only for us.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let mut told_before = false;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if let Some(first) = self.take_signal() {
                // A terminal's ctrl-c, or a signal for the process group, has reached the gateway too, and a second
                // one would cut its drain short. So look first whether it is leaving already.
                thread::sleep(GRACE);
                let signal = self.take_signal().unwrap_or(first);
                if self.child.try_wait()?.is_none() && (told_before || is_ready(self.admin)) {
                    self.send(signal);
                }
                told_before = true;
            }
            thread::sleep(POLL);
        }
    }

    /// Whether a signal has come for us. Whoever asks ends what the gateway was started for.
    pub(crate) fn told_to_stop(&self) -> bool {
        self.signal.load(Ordering::SeqCst) != 0
    }

    /// Ends it by force, where there is nobody to say goodbye to.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn take_signal(&self) -> Option<i32> {
        match self.signal.swap(0, Ordering::SeqCst) {
            0 => None,
            number => i32::try_from(number).ok(),
        }
    }

    fn send(&self, number: i32) {
        let signal = match number {
            SIGINT => Signal::INT,
            _ => Signal::TERM,
        };
        // An error means that it has ended, which the next look finds out.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }
}

/// What a shell would make of it: 128 and the signal's number, for a process that a signal ended.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

pub(crate) fn is_ready(admin: SocketAddr) -> bool {
    status_of(admin, "/ready").is_some_and(|status| status == 200)
}

/// An address of this machine on which nobody listens.
pub(crate) fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The status of one GET, as much HTTP as that takes.
fn status_of(address: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    // In one piece: a server may read no further than the first.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut head = [0; "HTTP/1.1 200".len()];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers `/ready` until the test ends.
    fn admin(status: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                assert!(
                    request[..length].starts_with(b"GET /ready "),
                    "{:?}",
                    String::from_utf8_lossy(&request[..length])
                );
                // Whoever asks reads the status, and may be gone before the rest is written.
                let _ = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes());
            }
        });
        address
    }

    #[test]
    fn ready_is_a_200_and_nothing_else() {
        assert!(is_ready(admin("200 OK")));
        assert!(!is_ready(admin("503 Service Unavailable")));
    }

    #[test]
    fn a_gateway_that_ends_early_is_told_with_its_status() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut gateway = Gateway::start(Command::new("sh").args(["-c", "exit 64"]), closed).unwrap();
        let Start::Ended(status) = gateway.wait_until_ready().unwrap() else { panic!("it did not end") };
        assert_eq!(exit_code(status), 64);
    }

    #[test]
    fn a_signal_for_us_alone_ends_the_gateway() {
        let mut gateway = Gateway::start(Command::new("sleep").arg("20"), admin("200 OK")).unwrap();
        assert!(matches!(gateway.wait_until_ready().unwrap(), Start::Ready));
        gateway.signal.store(usize::try_from(SIGTERM).unwrap(), Ordering::SeqCst);
        assert_eq!(exit_code(gateway.wait().unwrap()), 128 + 15);
    }

    #[test]
    fn a_gateway_that_leaves_already_is_not_told_again() {
        let mut gateway = Gateway::start(Command::new("sleep").arg("1"), admin("503 Service Unavailable")).unwrap();
        gateway.signal.store(usize::try_from(SIGINT).unwrap(), Ordering::SeqCst);
        assert_eq!(exit_code(gateway.wait().unwrap()), 0, "it was interrupted");
    }
}
