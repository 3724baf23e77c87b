//! What the user sees of a cluster that runs: where everything is, and what changes.

use std::{process::ExitCode, thread, time::Instant};

use anyhow::Result;

use super::{AWAY, Cluster, Options, POLL, part::Part};
use crate::gateway::exit_code;

impl Cluster {
    pub(super) fn print_links(&self, options: &Options) -> Result<()> {
        let link = |user: &str| {
            Ok::<_, anyhow::Error>(format!("http://{}/#token={}&room=lobby", self.listen, self.token(user)?))
        };
        println!("\nThe chat runs on three nodes. Open these in two browser tabs:\n");
        for user in ["alice", "bob"] {
            println!("  {user:<7} {}\n", link(user)?);
        }
        match &self.balancer {
            Some(_) => {
                println!("Both come by way of {}, which spreads them over the nodes:\n", options.balancer.name())
            }
            None => println!("WITHOUT A BALANCER both are on node 1, and when that ends nobody takes them in.\n"),
        }
        for node in &self.nodes {
            let id = node.part.as_ref().map(Part::id).unwrap_or_default();
            println!("  node {}   http://{}   process {id}; /nodes has all of them", node.number, node.admin);
        }
        if let Some(page) = options.balancer.page(&self.folder) {
            println!("  {}  {page}   what it knows of the nodes", options.balancer.name());
        }
        if let Some((redis, part)) = self.redis.as_ref().and_then(|redis| Some((redis, redis.part.as_ref()?))) {
            println!("  Redis    {}          process {}", redis.address, part.id());
        }
        println!("  logs     {}", self.folder.display());
        let id = self.nodes[0].part.as_ref().map(Part::id).unwrap_or_default();
        println!(
            "
To see what happens when a machine goes down, in another terminal:

  kill -9 {id}

The tabs that were on that node are connected again within a second or two, and miss nothing. Five seconds later the
node is started again. What becomes of it is told below. Do the same to Redis, if you like.

Ctrl-c ends it all.
"
        );
        Ok(())
    }

    /// Until we are told to end: starts what has ended, and tells what changes.
    pub(super) fn watch(&mut self) -> Result<ExitCode> {
        let mut told = String::new();
        while !self.take_signal() {
            for index in 0..self.nodes.len() {
                let node = &mut self.nodes[index];
                if let Some(status) = node.part.as_mut().map(Part::ended).transpose()?.flatten() {
                    let number = node.number;
                    println!(
                        "node {number} has ended ({status}): its clients go to the others; it starts again in 5 s"
                    );
                    node.part = None;
                    node.again = Some(Instant::now() + AWAY);
                }
                if node.again.is_some_and(|again| again <= Instant::now()) {
                    self.start_node(index)?;
                    let node = &mut self.nodes[index];
                    if let Some(part) = &mut node.part {
                        part.told = true;
                        println!("node {} is process {} now", node.number, part.id());
                    }
                }
            }
            if let Some(redis) = &mut self.redis {
                if let Some(status) = redis.part.as_mut().map(Part::ended).transpose()?.flatten() {
                    println!("Redis has ended ({status}): nobody can say anything now; it starts again in 5 s, empty");
                    redis.part = None;
                    redis.again = Some(Instant::now() + AWAY);
                }
                if redis.again.is_some_and(|again| again <= Instant::now()) {
                    println!("Redis is process {} now", redis.start(&self.folder)?);
                }
            }
            if let Some(status) = self.balancer.as_mut().map(Part::ended).transpose()?.flatten() {
                let log = self.balancer.take().map(|part| part.tail()).unwrap_or_default();
                eprintln!("The balancer has ended ({status}); it says:\n{log}");
                return Ok(ExitCode::from(exit_code(status)));
            }
            let counts: Vec<_> = self.nodes.iter().map(|node| (node.number, node.sessions())).collect();
            let tell = |(number, sessions): &(usize, Option<u64>)| match sessions {
                Some(sessions) => format!("node {number}: {sessions}"),
                None => format!("node {number}: away"),
            };
            let now = counts.iter().map(tell).collect::<Vec<_>>().join("   ");
            if now != told {
                println!("sessions   {now}");
                told = now;
            }
            thread::sleep(POLL * 4);
        }
        Ok(ExitCode::SUCCESS)
    }
}
