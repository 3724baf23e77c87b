//! The self-check: two clients on different nodes talk, one of the nodes is killed, and its client comes back by way of the
//! balancer to everything that it missed.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Cluster, Node, POLL, client};
use crate::process::spell;

use self::client::{Client, Heard};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const MISSED: [&str; 3] = ["missed 1", "missed 2", "missed 3"];

pub(crate) fn run(cluster: &mut Cluster) -> Result<()> {
    println!("\nChecking …");
    let way = if cluster.balancer.is_some() { "by way of the balancer" } else { "without a balancer" };
    let (mut ann, at) = come(cluster, "ann", 0)?;
    let (mut bob, other) = come(cluster, "bob", 1)?;
    ensure!(at != other, "both clients are on node {}: they are not spread", cluster.nodes[at].number);
    let number = |index: usize| cluster.nodes[index].number;
    println!("  ok  two clients came {way}: ann is on node {}, bob on node {}", number(at), number(other));
    talk(&mut ann, &mut bob, "before")?;
    println!("  ok  each hears the other");

    let killed = number(at);
    cluster.nodes[at].part.as_mut().context("a node is missing")?.kill()?;
    let begun = Instant::now();
    ann.wait_for_end()?;
    for text in MISSED {
        bob.say(text)?;
        bob.wait_for(text).context("bob, on a node that lives, is not heard")?;
    }
    let (back, now) = come(cluster, "ann", 0)?;
    let took = begun.elapsed();
    ensure!(now != at, "the node that was killed has taken her in");
    println!("  ok  node {killed} was killed; ann is on node {} after {}", cluster.nodes[now].number, spell(took));
    let mut ann = back;
    talk(&mut ann, &mut bob, "after")?;
    let texts = ann.seen.iter().flat_map(|frame| frame.split("\"text\":\"").skip(1));
    let texts = texts.filter_map(|rest| rest.split('"').next()).filter(|text| text.starts_with("missed "));
    let texts: Vec<_> = texts.collect();
    ensure!(texts == MISSED, "what she missed came as {texts:?}, not as {MISSED:?}");
    println!("  ok  what was said meanwhile came to her: {} messages, in order and each once", MISSED.len());
    println!("  ok  and they talk on");
    Ok(())
}

/// A client who keeps what it has seen.
struct Person {
    client: Client,
    seen: Vec<String>,
}

/// Somebody comes into the lobby; with the node that has got one more. Without a balancer, nodes are tried from `first` on.
fn come(cluster: &mut Cluster, user: &str, first: usize) -> Result<(Person, usize)> {
    let path = format!("/chat/lobby?token={}", cluster.token(user)?);
    let before: Vec<_> = cluster.nodes.iter().map(Node::sessions).collect();
    let begun = Instant::now();
    let mut attempt = first;
    let client = loop {
        let address = match cluster.balancer {
            Some(_) => cluster.listen,
            None => cluster.nodes[attempt % cluster.nodes.len()].listen,
        };
        match Client::connect(address, &path)? {
            Ok(client) => break client,
            Err(why) => ensure!(begun.elapsed() < PATIENCE, "{user} does not get in: {why}"),
        }
        ensure!(!cluster.take_signal(), "told to end");
        attempt += 1;
        thread::sleep(POLL * 2);
    };
    let mut person = Person { client, seen: Vec::new() };
    person.wait_for("welcome")?;
    loop {
        let more = |(node, before): (&Node, &Option<u64>)| node.sessions().is_some_and(|now| now > before.unwrap_or(0));
        if let Some(index) = cluster.nodes.iter().zip(&before).position(more) {
            return Ok((person, index));
        }
        ensure!(begun.elapsed() < PATIENCE, "no node says that it has {user}");
        thread::sleep(POLL);
    }
}

/// Each says something, and both hear it.
fn talk(ann: &mut Person, bob: &mut Person, when: &str) -> Result<()> {
    let (from_ann, from_bob) = (format!("{when}, from ann"), format!("{when}, from bob"));
    ann.say(&from_ann)?;
    bob.wait_for(&from_ann).context("ann is not heard")?;
    bob.say(&from_bob)?;
    ann.wait_for(&from_bob).context("bob is not heard")
}

impl Person {
    fn say(&mut self, text: &str) -> Result<()> {
        self.client.send(&format!(r#"{{"type":"say","text":"{text}"}}"#))
    }

    /// Reads until a frame has this text.
    fn wait_for(&mut self, text: &str) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            match self.client.heard(Duration::from_secs(1))? {
                Heard::Text(frame) => {
                    let found = frame.contains(&format!("\"{text}\""));
                    self.seen.push(frame);
                    if found {
                        return Ok(());
                    }
                }
                Heard::End => bail!("the connection ended before {text:?} came; seen: {:?}", self.seen),
                Heard::Nothing => {}
            }
        }
        bail!("{text:?} does not come; seen: {:?}", self.seen)
    }

    fn wait_for_end(&mut self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.client.heard(Duration::from_secs(1))? == Heard::End {
                return Ok(());
            }
        }
        bail!("the connection of a node that was killed goes on")
    }
}
