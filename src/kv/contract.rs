//! The contract of stores, as tests that every implementation passes.

use std::sync::Arc;
use std::time::Duration;

use super::{Kv, KvError, MemoryKv, RedisKv};
use crate::config::RedisConfig;
use crate::metrics::Metrics;
use crate::redis::{Intake, Redis, Running, server};
use crate::source::{Clock, Random};

const MINUTE: Duration = Duration::from_secs(60);
const FOR_EVER: Duration = Duration::ZERO;

/// Hears nothing.
struct Deaf;

impl Intake for Deaf {
    fn arrived(&self, _: &str, _: Vec<u8>) {}

    fn lost(&self, _: &[String]) {}

    fn back(&self, _: &[String]) {}
}

#[expect(dead_code, reason = "held for their ends")]
enum Servers {
    One(Box<server::Server>),
    Cluster(server::Cluster),
}

/// Stores, with what must live as long.
async fn all() -> Vec<(Kv, Option<(Servers, Running)>)> {
    let mut all = vec![(Kv::Memory(MemoryKv::new(16 << 20, Clock::default())), None)];
    if server::is_installed("the contract of stores on Redis") {
        let (server, cluster) = (server::Server::start().await, server::Cluster::of_masters().await);
        let urls = [server.url(), cluster.url()];
        for (url, servers) in urls.into_iter().zip([Servers::One(Box::new(server)), Servers::Cluster(cluster)]) {
            let config: RedisConfig = toml::from_str(&format!("url = {url:?}\nprobe = \"50ms\"")).unwrap();
            let redis = Redis::new(config, 7, Arc::new(Metrics::new()), Random::default()).unwrap();
            let running = redis.run(Arc::new(Deaf), Arc::new(Default::default));
            server::until("a link that carries", async || redis.trouble().is_none()).await;
            all.push((Kv::Redis(RedisKv::new(redis)), Some((servers, running))));
        }
    }
    all
}

#[tokio::test]
async fn values_are_kept_replaced_and_deleted() {
    for (kv, _held) in all().await {
        assert_eq!(kv.get("k").await, Ok(None));
        for value in [&b"a"[..], b"", &[0, 13, 10, 255], &vec![7; super::VALUE_MAX]] {
            kv.set("k", value.to_vec().into(), MINUTE).await.unwrap();
            assert_eq!(kv.get("k").await, Ok(Some(value.to_vec().into())));
        }
        kv.set("} {", "x".into(), Duration::MAX).await.unwrap();
        assert_eq!(kv.get("} {").await, Ok(Some("x".into())));
        kv.delete("k").await.unwrap();
        kv.delete("k").await.unwrap();
        assert_eq!(kv.get("k").await, Ok(None));
    }
}

#[tokio::test]
async fn values_live_as_long_as_they_were_told_to() {
    for (kv, _held) in all().await {
        let short = Duration::from_millis(60);
        let begun = std::time::Instant::now();
        kv.set("short", "a".into(), short).await.unwrap();
        kv.set("replaced", "a".into(), short).await.unwrap();
        kv.set("replaced", "b".into(), FOR_EVER).await.unwrap();
        assert_eq!(kv.increment("hits", 2, short).await, Ok(2));
        assert_eq!(kv.increment("hits", -5, MINUTE).await, Ok(-3), "the first time to live goes on");
        assert_eq!(kv.compare_and_set("swapped", None, "a".into(), short).await, Ok(true));
        for key in ["short", "hits", "swapped"] {
            while kv.get(key).await.unwrap().is_some() {
                assert!(begun.elapsed() < Duration::from_secs(10));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert_eq!(kv.get("replaced").await, Ok(Some("b".into())));
        assert_eq!(kv.increment("hits", 1, FOR_EVER).await, Ok(1), "and begins anew");
    }
}

#[tokio::test]
async fn numbers_are_checked_and_do_not_wrap() {
    for (kv, _held) in all().await {
        for word in ["x", "", "1.5", " 1", "+1", "007", "9223372036854775808"] {
            kv.set("word", word.into(), FOR_EVER).await.unwrap();
            assert_eq!(kv.increment("word", 1, FOR_EVER).await, Err(KvError::NotANumber), "{word:?}");
            assert_eq!(kv.incremented("word", 1).await, Err(KvError::NotANumber), "{word:?}");
            assert_eq!(kv.get("word").await, Ok(Some(word.into())));
        }
        assert_eq!(kv.incremented("none", 2).await, Ok(2));
        assert_eq!(kv.get("none").await, Ok(None));
        assert_eq!(kv.increment("big", i64::MAX - 1, FOR_EVER).await, Ok(i64::MAX - 1), "more than Lua's 53 bits");
        assert_eq!(kv.increment("big", 1, FOR_EVER).await, Ok(i64::MAX));
        assert_eq!(kv.increment("big", 1, FOR_EVER).await, Err(KvError::NotANumber));
        assert_eq!(kv.increment("small", i64::MIN, FOR_EVER).await, Ok(i64::MIN));
        assert_eq!(kv.get("small").await, Ok(Some(i64::MIN.to_string().into())));
    }
}

#[tokio::test]
async fn compare_and_set_sees_missing_keys() {
    for (kv, _held) in all().await {
        let swap = async |expected, value: &'static str| {
            kv.compare_and_set("k", expected, value.into(), MINUTE).await.unwrap()
        };
        assert!(!swap(Some(&b"x"[..]), "y").await);
        assert!(!swap(Some(&b""[..]), "y").await, "a missing value is no empty one");
        assert!(swap(None, "x").await);
        assert!(!swap(None, "z").await);
        assert!(swap(Some(&b"x"[..]), "").await);
        assert!(!swap(None, "z").await, "an empty value is no missing one");
        assert!(swap(Some(&b""[..]), "last").await);
        assert_eq!(kv.get("k").await, Ok(Some("last".into())));
    }
}

#[tokio::test]
async fn many_at_once_count_every_step() {
    for (kv, _held) in all().await {
        let kv = Arc::new(kv);
        let steps: Vec<_> = (0..20)
            .map(|_| {
                let kv = kv.clone();
                tokio::spawn(async move {
                    for _ in 0..25 {
                        kv.increment("n", 1, MINUTE).await.unwrap();
                    }
                })
            })
            .collect();
        for step in steps {
            step.await.unwrap();
        }
        assert_eq!(kv.get("n").await, Ok(Some("500".into())));
    }
}
