//! The contract of brokers, as tests that every implementation passes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Accepted, Broker, BrokerError, MemoryBroker, Page, RedisBroker, Retention, Sent};
use crate::config::RedisConfig;
use crate::message::{Message, MessageRef, Position, Publication, SessionId, TopicName};
use crate::metrics::Metrics;
use crate::redis::{Intake, Redis, Running, server};
use crate::source::{Clock, Random};

const KEEP: Retention = Retention { size: 3, ttl: Duration::from_secs(60) };
const NONE: Retention = Retention { size: 0, ttl: Duration::ZERO };

/// A broker, and what must live as long.
struct Subject {
    broker: Broker,
    #[expect(dead_code, reason = "held for its end")]
    link: Option<(Servers, Running)>,
    /// What arrived by way of a subscription.
    arrived: Arc<Arrived>,
}

#[expect(dead_code, reason = "held for their ends")]
enum Servers {
    One(Box<server::Server>),
    Cluster(server::Cluster),
}

#[derive(Default)]
struct Arrived(Mutex<Vec<(String, Vec<u8>)>>);

impl Intake for Arrived {
    fn arrived(&self, channel: &str, payload: Vec<u8>) {
        self.0.lock().push((channel.to_owned(), payload));
    }

    fn lost(&self, _: &[String]) {}

    fn back(&self, _: &[String]) {}
}

impl Subject {
    fn memory() -> Self {
        let broker = Broker::Memory(MemoryBroker::new(1 << 20, Clock::default(), Random::default()));
        Self { broker, link: None, arrived: Arc::default() }
    }

    /// On Redis: a server that stands alone, and a Cluster.
    async fn shared() -> Vec<Self> {
        if !server::is_installed("the contract of brokers on Redis") {
            return Vec::new();
        }
        let (server, cluster) = (server::Server::start().await, server::Cluster::of_masters().await);
        let urls = [server.url(), cluster.url()];
        let mut subjects = Vec::new();
        for (url, servers) in urls.into_iter().zip([Servers::One(Box::new(server)), Servers::Cluster(cluster)]) {
            let config: RedisConfig = toml::from_str(&format!("url = {url:?}\nprobe = \"50ms\"")).unwrap();
            let redis = Redis::new(config, 7, Arc::new(Metrics::new()), Random::default()).unwrap();
            let arrived = Arc::new(Arrived::default());
            let running = redis.run(arrived.clone(), Arc::new(Default::default));
            server::until("a link that carries", async || redis.trouble().is_none()).await;
            let broker = Broker::Redis(Arc::new(RedisBroker::new(redis, Random::default())));
            subjects.push(Self { broker, link: Some((servers, running)), arrived });
        }
        subjects
    }

    async fn all() -> Vec<Self> {
        std::iter::once(Self::memory()).chain(Self::shared().await).collect()
    }

    /// The position that the publication got; None: it was a duplicate, or no history keeps it.
    async fn publish(&self, publication: Publication, keep: Retention, key: Option<&str>) -> Option<Position> {
        match &self.broker {
            Broker::Memory(broker) => match broker.publish(publication, keep, key).unwrap() {
                Accepted::Deliver(publication) => publication.position,
                Accepted::Duplicate => None,
            },
            Broker::Redis(broker) => match broker.publish(&publication, keep, key).await.unwrap() {
                Sent::Published(mark) if mark.offset > 0 => Some(Position { epoch: mark.epoch, offset: mark.offset }),
                _ => None,
            },
        }
    }

    async fn history(&self, topic: &str, since: Option<Position>, limit: usize) -> Page {
        let topic = TopicName::parse(topic).unwrap();
        match &self.broker {
            Broker::Memory(broker) => broker.history(&topic, since, limit).unwrap(),
            Broker::Redis(broker) => broker.history(&topic, since, limit).await.unwrap(),
        }
    }
}

fn publication(topic: &str, text: &str) -> Publication {
    Publication {
        topic: TopicName::parse(topic).unwrap(),
        message: MessageRef::Text(text).to_owned(),
        position: None,
        time: 5,
        key: None,
        metadata: Vec::new(),
        exclude: Vec::new(),
    }
}

fn texts(page: &Page) -> Vec<String> {
    let text = |publication: &Arc<Publication>| match &publication.message {
        Message::Text(text) => text.as_str().to_owned(),
        Message::Binary(_) => panic!("text went in"),
    };
    page.publications.iter().map(text).collect()
}

#[tokio::test]
async fn history_keeps_its_size_and_offsets_grow_by_one() {
    for subject in Subject::all().await {
        let mut before = None;
        for (number, text) in (1..).zip(["a", "b", "c", "d"]) {
            let position = subject.publish(publication("t", text), KEEP, None).await.unwrap();
            assert_eq!(position.offset, number);
            assert!(before.replace(position.epoch).is_none_or(|epoch| epoch == position.epoch));
        }
        let page = subject.history("t", None, 10).await;
        assert_eq!((texts(&page), page.position.offset, page.complete), (texts_of("bcd"), 4, true));
        assert_eq!(Some(page.position.epoch), before);
        assert!(page.position.epoch <= 1 << 53, "a number of JavaScript's");
        assert_eq!(page.publications[0].position, Some(Position { offset: 2, ..page.position }));
        assert_eq!(texts(&subject.history("t", None, 1).await), ["d"]);
        assert!(subject.history("t", None, 0).await.publications.is_empty());
        let once = Retention { size: 1, ..KEEP };
        subject.publish(publication("t", "e"), once, None).await;
        assert_eq!(texts(&subject.history("t", None, 10).await), ["e"], "what is kept becomes less at once");
    }
}

fn texts_of(letters: &str) -> Vec<String> {
    letters.chars().map(String::from).collect()
}

#[tokio::test]
async fn recovery_knows_what_it_has_lost() {
    for subject in Subject::all().await {
        for text in ["a", "b", "c", "d", "e"] {
            subject.publish(publication("t", text), KEEP, None).await;
        }
        let epoch = subject.history("t", None, 0).await.position.epoch;
        let since = async |epoch, offset, limit| {
            let page = subject.history("t", Some(Position { epoch, offset }), limit).await;
            (texts(&page).concat(), page.complete)
        };
        assert_eq!(since(epoch, 3, 10).await, ("de".to_owned(), true));
        assert_eq!(since(epoch, 2, 10).await, ("cde".to_owned(), true));
        assert_eq!(since(epoch, 2, 2).await, ("cd".to_owned(), true), "the first ones after it");
        assert_eq!(since(epoch, 5, 10).await, (String::new(), true));
        assert!(!since(epoch, 1, 10).await.1, "b is gone");
        assert!(!since(epoch + 1, 4, 10).await.1, "another epoch");
        assert!(!since(epoch, 9, 10).await.1, "from the future");
    }
}

#[tokio::test]
async fn a_long_history_is_read_whole_and_in_order() {
    for subject in Subject::all().await {
        let keep = Retention { size: 1_000, ..KEEP };
        let first = subject.publish(publication("t", "0"), keep, None).await.unwrap();
        for number in 1..700 {
            subject.publish(publication("t", &number.to_string()), keep, None).await;
        }
        let page = subject.history("t", Some(first), usize::MAX).await;
        assert!(page.complete);
        assert_eq!(texts(&page), (1..700).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(subject.history("t", Some(first), 300).await.publications.len(), 300);
        assert_eq!(texts(&subject.history("t", None, 2).await), ["698", "699"]);
    }
}

#[tokio::test]
async fn to_look_at_a_topic_gives_it_its_epoch() {
    for subject in Subject::all().await {
        let seen = subject.history("t", None, 0).await.position;
        assert_eq!(seen.offset, 0);
        subject.publish(publication("t", "a"), KEEP, None).await;
        let page = subject.history("t", Some(seen), 10).await;
        assert_eq!((texts(&page), page.complete), (texts_of("a"), true));
    }
}

#[tokio::test]
async fn an_idempotency_key_counts_once_on_its_topic() {
    for subject in Subject::all().await {
        assert!(subject.publish(publication("t", "a"), KEEP, Some("k")).await.is_some());
        assert!(subject.publish(publication("t", "b"), KEEP, Some("k")).await.is_none());
        assert!(subject.publish(publication("other", "c"), KEEP, Some("k")).await.is_some());
        assert!(subject.publish(publication("t", "d"), KEEP, Some("l")).await.is_some());
        assert_eq!(texts(&subject.history("t", None, 10).await), ["a", "d"]);
    }
}

#[tokio::test]
async fn what_no_history_keeps_has_no_position_and_leaves_no_hole() {
    for subject in Subject::all().await {
        let first = subject.publish(publication("t", "a"), KEEP, None).await.unwrap();
        assert_eq!(subject.publish(publication("t", "typing"), NONE, None).await, None);
        subject.publish(publication("t", "b"), KEEP, None).await;
        let page = subject.history("t", Some(first), 10).await;
        assert_eq!((texts(&page), page.complete, page.position.offset), (texts_of("b"), true, 2));
    }
}

#[tokio::test]
async fn history_has_an_end_in_time_and_the_position_stays() {
    for subject in Subject::all().await {
        let short = Retention { size: 10, ttl: Duration::from_millis(60) };
        let at = subject.publish(publication("t", "a"), short, None).await.unwrap();
        let begun = std::time::Instant::now();
        while !subject.history("t", None, 10).await.publications.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(40));
        let page = subject.history("t", Some(at), 10).await;
        assert!(page.complete && page.position == at, "nothing came after it");
    }
}

#[tokio::test]
async fn publications_keep_all_that_they_have_under_any_name() {
    for subject in Subject::all().await {
        for name in ["a{b}c", "}x", "{}", "%7B", "\u{2603} *", "a:h", "x".repeat(255).as_str()] {
            let sent = Publication {
                message: MessageRef::Binary(&[0, 13, 10, 255]).to_owned(),
                key: Some("k".into()),
                metadata: vec![("trace".into(), "1".into())],
                exclude: vec![SessionId { node: 1, number: 2 }],
                ..publication(name, "")
            };
            subject.publish(sent.clone(), KEEP, Some("} {")).await.unwrap();
            let page = subject.history(name, None, 10).await;
            let [kept] = &page.publications[..] else { panic!("one on {name}, not {page:?}") };
            assert_eq!((&kept.topic, &kept.message, kept.time), (&sent.topic, &sent.message, 5));
            assert_eq!((&kept.key, &kept.metadata, &kept.exclude), (&sent.key, &sent.metadata, &sent.exclude));
        }
    }
}

/// Of Redis alone: what arrives is what was published, in the order of its sequence.
#[tokio::test]
async fn what_is_published_arrives_in_order_and_once() {
    for subject in Subject::shared().await {
        let Broker::Redis(broker) = &subject.broker else { continue };
        // In a Cluster these are not all on the same server.
        let topics: Vec<_> = (0..12).map(|number| format!("t{number}")).collect();
        let channels: Vec<_> = topics.iter().map(|topic| broker.redis.keys.channel(topic)).collect();
        for channel in &channels {
            broker.redis.want(channel);
            broker.redis.confirmed(channel).await.unwrap();
        }
        for number in 0..60 {
            let keep = if number % 3 == 0 { NONE } else { KEEP };
            for topic in &topics {
                subject.publish(publication(topic, &number.to_string()), keep, None).await;
            }
        }
        server::until("all publications", async || subject.arrived.0.lock().len() == 60 * topics.len()).await;
        for (topic, channel) in topics.iter().zip(&channels) {
            let arrived = subject.arrived.0.lock();
            let of_topic: Vec<_> = arrived.iter().filter(|(from, _)| from == channel).collect();
            assert_eq!(of_topic.len(), 60);
            for (number, (_, payload)) in of_topic.into_iter().enumerate() {
                let arrival = broker.open(TopicName::parse(topic).unwrap(), payload.clone()).unwrap();
                assert_eq!(arrival.mark.sequence, number as u64 + 1);
                assert_eq!(arrival.publication.position.is_none(), number % 3 == 0);
            }
        }
        for channel in &channels {
            broker.redis.unwant(channel);
            assert!(broker.redis.confirmed(channel).await.is_err(), "nobody wants it");
        }
    }
}

/// Of Redis alone: what is kept for long is known for as long, whatever is said meanwhile.
#[tokio::test]
async fn what_no_history_keeps_does_not_shorten_what_one_does() {
    for subject in Subject::shared().await {
        let Broker::Redis(broker) = &subject.broker else { continue };
        let day = Retention { size: 10, ttl: Duration::from_secs(86_400) };
        subject.publish(publication("t", "a"), day, None).await;
        subject.publish(publication("t", "typing"), NONE, None).await;
        subject.history("t", None, 1).await;
        let (state, _) = broker.redis.keys.topic_state(&broker.redis.keys.channel("t"));
        let redis::Value::Int(left) = broker.redis.query(redis::cmd("PTTL").arg(state)).await.unwrap() else {
            panic!("a number")
        };
        assert!(left > 86_000_000, "{left}");
    }
}

#[tokio::test]
async fn without_redis_the_answer_is_no_at_once() {
    let config: RedisConfig = toml::from_str("url = \"redis://127.0.0.1:1\"").unwrap();
    let redis = Redis::new(config, 7, Arc::new(Metrics::new()), Random::default()).unwrap();
    let _running = redis.run(Arc::new(Arrived::default()), Arc::new(Default::default));
    let broker = RedisBroker::new(redis, Random::default());
    assert_eq!(broker.publish(&publication("t", "a"), KEEP, None).await, Err(BrokerError::Gone));
}
