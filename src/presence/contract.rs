//! The contract of presence, as tests that both implementations pass; and what only nodes that share a Redis can do.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Changes, Counts, Member, Presence, Running, Watcher};
use crate::config::RedisConfig;
use crate::message::{SessionId, TopicName};
use crate::metrics::Metrics;
use crate::redis::{Intake, Redis, server};
use crate::source::Random;

/// Who is told of all changes on topics that begin with `w`.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<String>>,
    dropped: Mutex<u64>,
    changed: Notify,
    /// Not told before this is taken away.
    held: Mutex<Option<Arc<Notify>>>,
}

impl Watcher for Ear {
    fn watches(&self, topic: &TopicName) -> bool {
        topic.as_str().starts_with('w')
    }

    fn tell(self: Arc<Self>, mut changes: Changes) {
        tokio::spawn(async move {
            let held = self.held.lock().clone();
            if let Some(held) = held {
                held.notified().await;
            }
            while let Some(change) = changes.next().await {
                let sign = if change.joined { '+' } else { '-' };
                let user = change.member.user.as_deref().unwrap_or("?").to_owned();
                self.heard.lock().push(format!("{sign}{user} {}", change.sessions_of_user));
                self.changed.notify_waiters();
            }
        });
    }

    fn dropped(&self, _: &TopicName, count: u64) {
        *self.dropped.lock() += count;
    }
}

/// A node's presence, and who is told there.
struct One {
    presence: Presence,
    ear: Arc<Ear>,
    node: u64,
    _held: Option<(Arc<Redis>, crate::redis::Running, Option<Running>)>,
}

/// Hears nothing.
struct Deaf;

impl Intake for Deaf {
    fn arrived(&self, _: &str, _: Vec<u8>) {}

    fn lost(&self, _: &[String]) {}

    fn back(&self, _: &[String]) {}
}

impl One {
    fn alone() -> Self {
        Self::of(Presence::new(None), 1, None)
    }

    async fn on(url: &str, node: u64) -> Self {
        let text = format!("url = {url:?}\nlease = \"400ms\"");
        let config: RedisConfig = toml::from_str(&text).unwrap();
        let redis = Redis::new(config, node, Arc::new(Metrics::new()), Random::default()).unwrap();
        let running = redis.run(Arc::new(Deaf), Arc::new(Default::default));
        server::until("a link that carries", async || redis.trouble().is_none()).await;
        let presence = Presence::new(Some((&redis, node)));
        let kept = presence.run();
        Self::of(presence, node, Some((redis, running, kept)))
    }

    fn of(presence: Presence, node: u64, held: Option<(Arc<Redis>, crate::redis::Running, Option<Running>)>) -> Self {
        let ear = Arc::<Ear>::default();
        let watcher: Weak<dyn Watcher> = Arc::<Ear>::downgrade(&ear);
        presence.watch(watcher);
        Self { presence, ear, node, _held: held }
    }

    async fn join(&self, topic: &str, number: u64, user: &str) {
        let session = SessionId { node: self.node, number };
        let user = Some(user).filter(|user| !user.is_empty()).map(Into::into);
        self.presence.join(&name(topic), Member { session, user, info: format!("info {number}").into() });
        self.presence.settled(&name(topic)).await;
    }

    async fn leave(&self, topic: &str, number: u64) {
        self.presence.leave(&name(topic), SessionId { node: self.node, number });
        self.presence.settled(&name(topic)).await;
    }

    async fn counts(&self, topic: &str) -> (u32, u32) {
        let Counts { sessions, users } = self.presence.counts(topic).await.unwrap();
        (sessions, users)
    }

    /// What was told here, once it is so much.
    async fn heard(&self, count: usize) -> Vec<String> {
        heard(&[self], count).await
    }
}

/// What was told on any of these nodes, once it is so much: one node after the other.
async fn heard(nodes: &[&One], count: usize) -> Vec<String> {
    let all = || nodes.iter().flat_map(|one| one.ear.heard.lock().clone()).collect::<Vec<_>>();
    until(async || all().len() >= count).await;
    all()
}

async fn until(mut is: impl AsyncFnMut() -> bool) {
    let waits = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waits).await.expect("what was waited for");
}

fn name(topic: &str) -> TopicName {
    TopicName::parse(topic).unwrap()
}

#[expect(dead_code, reason = "held for their ends")]
enum Servers {
    One(Box<server::Server>),
    Cluster(server::Cluster),
}

async fn all() -> Vec<(One, Option<Servers>)> {
    let mut all = vec![(One::alone(), None)];
    if server::is_installed("the contract of presence on Redis") {
        let server = server::Server::start().await;
        all.push((One::on(&server.url(), 7).await, Some(Servers::One(Box::new(server)))));
        let cluster = server::Cluster::of_masters().await;
        all.push((One::on(&cluster.url(), 7).await, Some(Servers::Cluster(cluster))));
    }
    all
}

#[tokio::test]
async fn tabs_of_one_user_are_one_user() {
    for (one, _held) in all().await {
        assert_eq!(one.counts("room").await, (0, 0));
        one.join("room", 1, "ann").await;
        one.join("room", 2, "ann").await;
        one.join("room", 3, "").await;
        one.join("room", 4, "").await;
        assert_eq!(one.counts("room").await, (4, 3));
        assert_eq!(one.presence.has_user("room", "ann").await, Ok(true));
        assert_eq!(one.presence.has_user("room", "bob").await, Ok(false));
        one.leave("room", 1).await;
        one.leave("room", 1).await;
        one.leave("room", 3).await;
        assert_eq!(one.counts("room").await, (2, 2));
        let mut members = one.presence.members("room", 10).await.unwrap();
        members.sort_by_key(|member| member.session.number);
        let told: Vec<_> = members.iter().map(|member| (member.user.as_deref(), &*member.info)).collect();
        assert_eq!(told, [(Some("ann"), "info 2"), (None, "info 4")]);
        assert_eq!(one.presence.members("room", 1).await.unwrap().len(), 1);
        let session = SessionId { node: one.node, number: 2 };
        assert_eq!(one.presence.info(&name("room"), session).as_deref(), Some("info 2"));
        one.leave("room", 2).await;
        one.leave("room", 4).await;
        assert_eq!(one.counts("room").await, (0, 0));
        assert_eq!(one.presence.has_user("room", "ann").await, Ok(false));
        assert!(one.ear.heard.lock().is_empty(), "nobody watches this topic");
    }
}

#[tokio::test]
async fn changes_are_told_once_and_in_their_order() {
    for (one, _held) in all().await {
        for (number, user) in [(1, "ann"), (2, "ann"), (3, ""), (4, "b b")] {
            one.join("w", number, user).await;
        }
        one.join("w", 2, "ann").await;
        for number in [1, 3, 2, 2] {
            one.leave("w", number).await;
        }
        let told = ["+ann 1", "+ann 2", "+? 1", "+b b 1", "-ann 1", "-? 0", "-ann 0"];
        assert_eq!(one.heard(told.len()).await, told);
        one.leave("w", 4).await;
        assert_eq!(one.heard(8).await[7], "-b b 0");
        until(async || !one.presence.is_telling()).await;
    }
}

#[tokio::test]
async fn a_session_that_signs_in_as_somebody_else_leaves_as_who_it_was() {
    for (one, _held) in all().await {
        one.join("w", 1, "ann").await;
        one.join("w", 1, "bob").await;
        assert_eq!(one.heard(3).await, ["+ann 1", "-ann 0", "+bob 1"]);
        assert_eq!(one.counts("w").await, (1, 1));
        assert_eq!(one.presence.has_user("w", "ann").await, Ok(false));
    }
}

#[tokio::test]
async fn what_is_told_slowly_keeps_its_order_and_its_teller() {
    for (one, _held) in all().await {
        let go = Arc::new(Notify::new());
        *one.ear.held.lock() = Some(go.clone());
        for number in 0..600 {
            one.presence.join(&name("w"), member(&one, number));
        }
        one.presence.settled(&name("w")).await;
        assert_eq!(one.counts("w").await, (600, 600));
        assert!(one.presence.is_telling());
        *one.ear.held.lock() = None;
        go.notify_one();
        let told: Vec<_> = (0..600).map(|number| format!("+user {number} 1")).collect();
        assert_eq!(one.heard(600).await, told);
    }
}

fn member(one: &One, number: u64) -> Member {
    let session = SessionId { node: one.node, number };
    Member { session, user: Some(format!("user {number}").into()), info: "".into() }
}

/// Two nodes on one server.
async fn two() -> Option<(One, One, server::Server)> {
    if !server::is_installed("presence across nodes") {
        return None;
    }
    let server = server::Server::start().await;
    Some((One::on(&server.url(), 1).await, One::on(&server.url(), 2).await, server))
}

#[tokio::test]
async fn nodes_see_each_other_and_a_user_with_tabs_on_both_once() {
    let Some((a, b, _server)) = two().await else { return };
    a.join("w", 1, "ann").await;
    b.join("w", 2, "ann").await;
    b.join("w", 3, "bob").await;
    for one in [&a, &b] {
        assert_eq!(one.counts("w").await, (3, 2));
        assert_eq!(one.presence.has_user("w", "ann").await, Ok(true));
        assert_eq!(one.presence.members("w", 10).await.unwrap().len(), 3);
        assert_eq!(one.presence.members("w", 2).await.unwrap().len(), 2);
    }
    a.leave("w", 1).await;
    b.leave("w", 2).await;
    b.leave("w", 3).await;
    let mut told = heard(&[&a, &b], 6).await;
    told.sort();
    assert_eq!(told, ["+ann 1", "+ann 2", "+bob 1", "-ann 0", "-ann 1", "-bob 0"]);
    for one in [&a, &b] {
        assert_eq!(one.counts("w").await, (0, 0));
    }
}

#[tokio::test]
async fn a_node_that_dies_leaves_once_and_its_telling_goes_on() {
    let Some((a, b, server)) = two().await else { return };
    b.join("w", 9, "bob").await;
    // It dies while it tells, with a change in its hands.
    *a.ear.held.lock() = Some(Arc::new(Notify::new()));
    b.heard(1).await;
    until(async || !b.presence.is_telling()).await;
    for number in 0..700 {
        a.presence.join(&name("w"), member(&a, number));
    }
    a.presence.settled(&name("w")).await;
    assert_eq!(b.counts("w").await, (701, 701));
    // A server of a Cluster may lose the list of its topics alone.
    let list = "tidegate:present:0000000000000001:1";
    server.ask(&["DEL", list]).await;
    until(async || server.ask(&["EXISTS", list]).await == redis::Value::Int(1)).await;
    let ear = a.ear.clone();
    drop(a);
    drop(ear.held.lock().take());
    until(async || b.counts("w").await == (1, 1)).await;
    let told = b.heard(1 + 700 + 700).await;
    assert_eq!(told.len(), 1401);
    for number in 0..700 {
        for sign in ["+", "-"] {
            let change = format!("{sign}user {number} ");
            let times = told.iter().filter(|told| told.starts_with(&change)).count();
            assert_eq!(times, 1, "{change}");
        }
    }
    // Nothing is left of it but its grave.
    b.leave("w", 9).await;
    let left = format!("{:?}", server.ask(&["KEYS", "*"]).await);
    assert!(!left.contains("present:0000000000000001") && !left.contains("burial:"), "{left}");
}

#[tokio::test]
async fn a_redis_that_forgets_all_is_told_again_and_nobody_else() {
    let Some((a, b, server)) = two().await else { return };
    a.join("w", 1, "ann").await;
    a.join("w", 2, "ann").await;
    b.join("w", 3, "bob").await;
    heard(&[&a, &b], 3).await;
    server.ask(&["FLUSHALL"]).await;
    a.presence.leave(&name("w"), SessionId { node: 1, number: 2 });
    until(async || a.counts("w").await == (2, 2)).await;
    // A leave that Redis had forgotten is told, for whom it still matters.
    a.leave("w", 1).await;
    let told = heard(&[&a, &b], 5).await;
    assert_eq!(told.iter().filter(|told| told.starts_with('+')).count(), 3, "{told:?}");
    assert_eq!(told.iter().filter(|told| *told == "-ann 0").count(), 1, "{told:?}");
    assert_eq!(b.counts("w").await, (1, 1));
}
