//! Gateways on a Redis Cluster: every master carries its own topics, and what becomes of them when one is killed, frozen, or
//! gives a slot away. Row 22 of the table of faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::nodes::{come, connect, degraded, join, node_of, ready, say};
use crate::support::redis::{Cluster, is_installed};
use crate::support::{Gateway, until};

/// How long a master may be silent before its replica takes over.
const SILENCE: Duration = Duration::from_millis(2_000);

/// What stands for a topic's slot.
fn key(topic: &str) -> String {
    format!("tidegate:{{{topic}}}")
}

/// A topic for each master, by the masters' places.
async fn topics(cluster: &Cluster) -> Vec<String> {
    let mut topics = vec![None, None, None];
    for number in 0.. {
        if topics.iter().all(Option::is_some) {
            break;
        }
        let topic = format!("log:{number}");
        let owner = cluster.owner(&key(&topic), None).await;
        topics[owner].get_or_insert(topic);
    }
    topics.into_iter().flatten().collect()
}

/// Says numbers on a topic until it is told to stop; a hundred more could be lost. Those that were acknowledged.
fn speak(mut client: Client, topic: String, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<Vec<u32>> {
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for number in 1.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let answer = client.ask(&format!("say {topic} {number}")).await;
            match answer.split_once(' ') {
                Some(("ok", _)) => acknowledged.push(number),
                Some(("no", _)) => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => panic!("{answer}"),
            }
        }
        assert_eq!(client.ask(&format!("say {topic} end")).await, "ok end");
        acknowledged
    })
}

/// Hears a topic to its end. None: a gap was told.
async fn hear(client: &mut Client, topic: &str) -> Vec<Option<u32>> {
    let mut heard = Vec::new();
    loop {
        let text = client.text().await;
        if text.starts_with(&format!("gap {topic} ")) {
            heard.push(None);
            continue;
        }
        let said = text.rsplit(' ').next().unwrap();
        if said == "end" {
            return heard;
        }
        heard.push(Some(said.parse().unwrap_or_else(|_| panic!("{text}"))));
    }
}

/// Every message is delivered in order and once, or was not acknowledged, or a gap stands where it is missing.
fn account(heard: &[Option<u32>], acknowledged: &[u32]) {
    let delivered: Vec<_> = heard.iter().flatten().copied().collect();
    assert!(delivered.is_sorted_by(|one, next| one < next), "out of order or twice: {heard:?}");
    for number in acknowledged.iter().filter(|number| !delivered.contains(number)) {
        let before = heard.iter().rposition(|one| one.is_some_and(|one| one < *number)).map_or(0, |at| at + 1);
        let told = heard[before..].iter().take_while(|one| one.is_none_or(|one| one < *number)).any(Option::is_none);
        assert!(told, "{number} was acknowledged and is missing in silence: {heard:?}");
    }
}

#[tokio::test]
async fn topics_of_every_master_users_and_nodes_are_the_same_on_all_nodes() {
    if !is_installed("nodes on a Redis Cluster") {
        return;
    }
    let cluster = Cluster::of_masters().await;
    // One address is enough, and one that is not there does no harm.
    let (a, b) = (node_of(&[cluster.url()]).await, node_of(&["redis://127.0.0.1:1".to_owned(), cluster.url()]).await);
    a.log_line(&["Redis is a Cluster of these masters"]).await;
    for (name, value) in [("redis_shards", 3.0), ("redis_shards_up", 3.0), ("redis_up", 1.0)] {
        assert_eq!(b.metric(&format!("tidegate_{name}"), "").await, value, "{name}");
    }
    let (mut bob, id_of_bob) = come(&b, "refuse?user=bob").await;
    let (mut ann, _) = come(&a, "refuse?user=ann").await;
    for topic in topics(&cluster).await {
        let (mut on_a, at) = join(&a, &topic).await;
        let (mut on_b, same) = join(&b, &topic).await;
        assert_eq!(at, same);
        for number in 1..=150 {
            say(if number % 2 == 0 { &mut ann } else { &mut bob }, &topic, &number.to_string()).await;
        }
        for client in [&mut on_a, &mut on_b] {
            for number in 1..=150 {
                assert_eq!(client.text().await, format!("{topic} {number} {number}"));
            }
        }
        // Back on another node, with more than one page to catch up.
        let epoch = at.split(' ').next().unwrap();
        let mut back = connect(&b, "refuse").await;
        assert_eq!(back.ask(&format!("join {topic} {epoch} 5")).await, format!("recovered {topic} {epoch} 150"));
        for number in 6..=150 {
            assert_eq!(back.text().await, format!("{topic} {number} {number}"));
        }
        assert_eq!(ann.ask(&format!("once {topic} k first")).await, "ok first");
        assert_eq!(bob.ask(&format!("once {topic} k second")).await, "ok second");
        assert_eq!(back.text().await, format!("{topic} 151 first"));
    }
    for number in 0..10 {
        assert_eq!(bob.ask(&format!("tell ann {number}")).await, format!("ok {number}"));
        assert_eq!(ann.text().await, number.to_string());
    }
    assert_eq!(ann.ask(&format!("to {id_of_bob} hello")).await, "ok hello");
    assert_eq!(bob.text().await, "hello");
    let nodes = until("both nodes", || async {
        let nodes: Vec<serde_json::Value> = serde_json::from_str(&a.admin("/nodes").await.1).ok()?;
        (nodes.len() == 2).then_some(nodes)
    })
    .await;
    assert!(nodes.iter().any(|node| id_of_bob.starts_with(node["node"].as_str().unwrap())));
    assert_eq!(b.metric("tidegate_redis_gaps_total", "").await, 0.0);
    assert_eq!(b.metric("tidegate_redis_redirections_total", "").await, 0.0, "it knows where everything is");
}

/// What goes on while a master is taken away: a speaker and a subscriber on a topic of each master.
struct Chat {
    a: Gateway,
    b: Gateway,
    topics: Vec<String>,
    subscribers: Vec<Client>,
    speakers: Vec<tokio::task::JoinHandle<Vec<u32>>>,
    stop: Arc<AtomicBool>,
}

impl Chat {
    async fn begin(cluster: &Cluster) -> Self {
        let seeds = [cluster.url()];
        let (a, b) = (node_of(&seeds).await, node_of(&seeds).await);
        let stop = Arc::new(AtomicBool::new(false));
        let topics = topics(cluster).await;
        let (mut subscribers, mut speakers) = (Vec::new(), Vec::new());
        for topic in &topics {
            subscribers.push(join(&b, topic).await.0);
            speakers.push(speak(connect(&a, "refuse").await, topic.clone(), stop.clone()));
        }
        let chat = Self { a, b, topics, subscribers, speakers, stop };
        chat.goes_on().await;
        chat
    }

    /// Waits until a hundred more were said.
    async fn goes_on(&self) {
        let said = self.a.metric("tidegate_publications_total", "").await;
        until("a chat that goes on", || async {
            (self.a.metric("tidegate_publications_total", "").await > said + 100.0).then_some(())
        })
        .await;
    }

    async fn ready(&self) {
        ready(&self.a).await;
        ready(&self.b).await;
    }

    /// Ends it, and accounts for every message.
    async fn end(mut self) -> (Gateway, Gateway) {
        self.goes_on().await;
        self.stop.store(true, Ordering::Relaxed);
        for ((topic, subscriber), speaker) in self.topics.iter().zip(&mut self.subscribers).zip(self.speakers) {
            let acknowledged = speaker.await.unwrap();
            let heard = hear(subscriber, topic).await;
            assert!(acknowledged.len() > 30, "{}", acknowledged.len());
            account(&heard, &acknowledged);
        }
        (self.a, self.b)
    }
}

#[tokio::test]
async fn when_a_master_is_killed_its_replica_serves_and_every_message_is_accounted_for() {
    if !is_installed("a killed master of a Redis Cluster") {
        return;
    }
    let mut cluster = Cluster::with_replicas(SILENCE).await;
    let chat = Chat::begin(&cluster).await;
    let topic = key(&chat.topics[0]);
    let url = cluster.server(0).url();
    cluster.kill(0).await;
    let address = url.strip_prefix("redis://").unwrap();
    for gateway in [&chat.a, &chat.b] {
        let why = degraded(gateway).await;
        assert!(why.contains(address), "{why} does not name {address}");
    }
    cluster.failed_over(&topic, 0).await;
    let over = Instant::now();
    chat.ready().await;
    assert!(over.elapsed() < Duration::from_secs(2), "another is master since {:?}", over.elapsed());
    let (a, b) = chat.end().await;
    assert_eq!(a.metric("tidegate_redis_shards_up", "").await, 3.0);
    let (mut subscriber, _) = join(&b, "log:later").await;
    say(&mut connect(&a, "refuse").await, "log:later", "hello").await;
    assert_eq!(subscriber.text().await, "log:later 1 hello");
}

#[tokio::test]
async fn when_a_master_is_frozen_its_replica_serves_and_its_return_repeats_nothing() {
    if !is_installed("a frozen master of a Redis Cluster") {
        return;
    }
    let cluster = Cluster::with_replicas(SILENCE).await;
    let chat = Chat::begin(&cluster).await;
    let topic = key(&chat.topics[1]);
    cluster.server(1).freeze();
    cluster.failed_over(&topic, 1).await;
    let over = Instant::now();
    chat.ready().await;
    assert!(over.elapsed() < Duration::from_secs(2), "another is master since {:?}", over.elapsed());
    chat.goes_on().await;
    cluster.server(1).thaw();
    chat.goes_on().await;
    chat.ready().await;
    chat.end().await;
}

#[tokio::test]
async fn a_master_without_a_replica_is_named_and_its_return_is_a_gap_for_its_topics_alone() {
    if !is_installed("a master without a replica") {
        return;
    }
    let mut cluster = Cluster::of_masters_that_fail(SILENCE).await;
    let seeds = [cluster.url()];
    let (a, b) = (node_of(&seeds).await, node_of(&seeds).await);
    let topics = topics(&cluster).await;
    let mut speaker = connect(&a, "refuse").await;
    let mut subscribers = Vec::new();
    for topic in &topics {
        let (mut subscriber, _) = join(&b, topic).await;
        say(&mut speaker, topic, "before").await;
        assert_eq!(subscriber.text().await, format!("{topic} 1 before"));
        subscribers.push(subscriber);
    }
    cluster.kill(0).await;
    let why = degraded(&a).await;
    assert!(why.contains(cluster.server(0).url().trim_start_matches("redis://")), "{why}");
    assert_eq!(a.metric("tidegate_redis_shards_up", "").await, 2.0);
    assert_eq!(speaker.ask(&format!("say {} lost", topics[0])).await, "no lost");
    // The others go on until the Cluster gives up as a whole, as it does unless it is told otherwise.
    let mut said = Vec::new();
    loop {
        let text = format!("n{}", said.len());
        match speaker.ask(&format!("say {} {text}", topics[1])).await {
            answer if answer == format!("ok {text}") => said.push(text),
            answer => break assert_eq!(answer, format!("no {text}")),
        }
    }
    assert!(!said.is_empty());
    assert_eq!(speaker.ask(&format!("say {} lost", topics[2])).await, "no lost");
    until("a node that knows it", || async { (a.metric("tidegate_redis_shards_up", "").await == 0.0).then_some(()) })
        .await;
    cluster.restart(0).await;
    ready(&a).await;
    ready(&b).await;
    for topic in &topics {
        say(&mut speaker, topic, "after").await;
    }
    assert!(subscribers[0].text().await.starts_with(&format!("gap {} ", topics[0])), "it came back empty");
    assert_eq!(subscribers[0].text().await, format!("{} 1 after", topics[0]));
    for text in said.iter().map(String::as_str).chain(["after"]) {
        assert!(subscribers[1].text().await.ends_with(&format!(" {text}")));
    }
    assert_eq!(subscribers[2].text().await, format!("{} 2 after", topics[2]));
    assert_eq!(b.metric("tidegate_redis_gaps_total", "").await, 1.0);
}

/// Whether this is among what comes soon.
async fn hears(client: &mut Client, text: &str) -> bool {
    let hearing = async { while client.text().await != text {} };
    tokio::time::timeout(Duration::from_millis(200), hearing).await.is_ok()
}

#[tokio::test]
async fn a_slot_that_moves_takes_its_topics_along_and_nobody_notices() {
    if !is_installed("a slot that moves") {
        return;
    }
    let mut cluster = Cluster::of_masters().await;
    let chat = Chat::begin(&cluster).await;
    let (mut ann, _) = come(&chat.a, "refuse?user=ann").await;
    let mut bob = connect(&chat.b, "refuse").await;
    // To one that is known, to one that nobody has heard of, and back.
    let new = cluster.add_master().await;
    for to in [1, new, 2, 0] {
        cluster.move_slot(&key(&chat.topics[0]), to).await;
        cluster.move_slot("tidegate:user:{ann}", to).await;
        chat.goes_on().await;
        // What is sent to a user is not kept: what comes while the slot has no owner is not missed.
        let mut number = 0;
        loop {
            number += 1;
            assert!(number < 50, "nothing reaches the user any more");
            assert_eq!(bob.ask(&format!("tell ann {to}-{number}")).await, format!("ok {to}-{number}"));
            if hears(&mut ann, &format!("{to}-{number}")).await {
                break;
            }
        }
    }
    chat.ready().await;
    let (a, b) = chat.end().await;
    assert!(a.metric("tidegate_redis_redirections_total", "").await > 0.0);
    assert_eq!(a.metric("tidegate_effects_refused_total", "").await, 0.0, "what is on its way is waited for");
    assert_eq!(b.metric("tidegate_redis_gaps_total", "").await, 0.0);
}
