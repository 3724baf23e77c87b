//! The processes that hold the clients, seen from who has started them: orders go out, and lines come back.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Stop, times::Times};

/// How long we do not look at the signals, at most.
const SLICE: Duration = Duration::from_millis(50);
/// Lines of a holder that nobody has read.
const LINES: usize = 64;

/// A process that holds the clients of one node. It ends with this value.
pub(super) struct Holder {
    number: u64,
    child: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// What [`Holder::state`] knows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) held: u64,
    /// Ended without having been asked to.
    pub(super) lost: u64,
    /// Publications twice, or not in order.
    pub(super) wrong: u64,
}

impl Holder {
    /// For the node of this number, from 0.
    pub(super) fn start(number: u64, to: SocketAddr, path: &str) -> Result<Self> {
        // Addresses of its own: each has some 28,000 ports.
        let source = Ipv4Addr::new(127, 1, u8::try_from(number).context("too many nodes")?, 1);
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command.args(["scale-holder", "--to", &to.to_string(), "--path", path, "--source", &source.to_string()]);
        // A terminal's ctrl-c reaches only us, who know the order in which to end.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context("a process for the clients could not be started")?;
        let orders = child.stdin.take();
        let output = child.stdout.take().context("a holder without an output")?;
        let (sender, lines) = sync_channel(LINES);
        // Ends with the holder's output, or when nobody listens any more.
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line).ok())
        });
        Ok(Self { number, child, orders, lines })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn tell(&mut self, order: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("a holder without an input")?;
        writeln!(orders, "{order}").with_context(|| format!("the clients of node {} are gone", self.number + 1))
    }

    /// What follows the word on the next line that begins with it. Others are of no interest any more.
    pub(super) fn hear(&mut self, word: &str, until: Instant, stop: &Stop) -> Result<String> {
        loop {
            stop.look()?;
            match self.lines.recv_timeout(SLICE) {
                Ok(line) => match line.split_once(' ') {
                    Some((first, rest)) if first == word => return Ok(rest.to_owned()),
                    _ => {}
                },
                Err(RecvTimeoutError::Timeout) => {
                    ensure!(
                        Instant::now() < until,
                        "the clients of node {} take too long for `{word}`",
                        self.number + 1
                    );
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the clients of node {} are gone; what they said is above", self.number + 1)
                }
            }
        }
    }

    /// So many sessions are held, or an error says why not.
    pub(super) fn opened(&mut self, wanted: u64, until: Instant, stop: &Stop) -> Result<()> {
        let answer = self.hear("opened", until, stop)?;
        let mut words = answer.splitn(3, ' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).context("`opened` and no number");
        let (held, failed) = (number()?, number()?);
        let why = words.next().unwrap_or_default();
        ensure!(
            held == wanted && failed == 0,
            "node {} holds {held} sessions instead of {wanted}, {failed} failed: {why}",
            self.number + 1
        );
        Ok(())
    }

    /// When its clients got this publication; None where not all did in time.
    pub(super) fn has(&mut self, number: u32, wanted: u64, until: Instant, stop: &Stop) -> Result<Option<Times>> {
        loop {
            let answer = match self.hear("has", until, stop) {
                Ok(answer) => answer,
                Err(_) if Instant::now() >= until => {
                    self.tell(&format!("tell {number}"))?;
                    self.hear("has", Instant::now() + Duration::from_secs(10), stop)?
                }
                Err(error) => return Err(error),
            };
            let mut words = answer.splitn(3, ' ');
            let which: u32 = words.next().unwrap_or_default().parse()?;
            let count: u64 = words.next().unwrap_or_default().parse()?;
            if which == number && (count >= wanted || Instant::now() >= until) {
                let times = Times::parse(words.next().unwrap_or("0"))?;
                return Ok(Some(times).filter(|_| count == wanted));
            }
        }
    }

    pub(super) fn state(&mut self, stop: &Stop) -> Result<State> {
        self.tell("state")?;
        let answer = self.hear("state", Instant::now() + Duration::from_secs(30), stop)?;
        let numbers: Vec<u64> = answer.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        match numbers[..] {
            [held, lost, wrong] => Ok(State { held, lost, wrong }),
            _ => bail!("`state {answer}`: what is that?"),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
