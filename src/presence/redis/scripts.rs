//! The scripts on a topic's members, and what they answer.

use std::fmt::Write as _;

use redis::Value;

use super::own::{Batch, Look, Mark, Sent, What};
use crate::message::{SessionId, TopicName};
use crate::presence::{CHANGES, Change, Counts, Member};
use crate::redis::{Fault, Redis, Script};

/// How long somebody may take to tell one change before somebody else does.
pub const TELLS: &str = "30000";
/// How long a topic's counters outlive its last member: the marks of those who repeat a batch.
const EMPTY: &str = "600000";
/// How long it is remembered that a node was taken for dead.
const GRAVE: &str = "3600000";
/// Sessions of a dead node that are buried in one step.
const CORTEGE: &str = "500";

pub struct Scripts {
    change: Script,
    bury: Script,
    next: Script,
    members: Script,
    forget: Script,
    counts: Script,
    pub lease: Script,
}

/// What a script has done.
pub struct Done<T> {
    pub what: T,
    /// The caller is to tell the changes that wait.
    pub tells: bool,
    /// Changes that are not told.
    pub dropped: u64,
}

/// What came of a batch, seen from Redis.
pub enum Changed {
    Sent(Sent),
    /// This incarnation was taken for dead: nothing more is taken from it.
    Over,
}

/// A node and one of its incarnations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// As in its sessions' ids.
    pub node: String,
    pub number: u64,
}

/// Who tells changes, if they are told.
pub struct Told<'a> {
    pub watched: bool,
    pub token: &'a str,
}

/// Deletes a node's mark on a topic where it has nobody any more.
const FORGET: &str = "
if redis.call('HGET', KEYS[1], 'n:' .. ARGV[1]) == ARGV[2] and redis.call('EXISTS', KEYS[2]) == 0 then
  return redis.call('HDEL', KEYS[1], 'n:' .. ARGV[1])
end
return 0";

/// Sessions, those without a user, and users.
const COUNTS: &str = "
local counts = redis.call('HMGET', KEYS[1], 'sessions', 'anonymous')
return { tonumber(counts[1] or 0), tonumber(counts[2] or 0), redis.call('HLEN', KEYS[2]) }";

impl Default for Scripts {
    fn default() -> Self {
        Self {
            change: Script::new(concat!(include_str!("seats.lua"), include_str!("change.lua"))),
            bury: Script::new(concat!(include_str!("seats.lua"), include_str!("bury.lua"))),
            next: Script::new(include_str!("next.lua")),
            members: Script::new(include_str!("members.lua")),
            lease: Script::new(include_str!("lease.lua")),
            forget: Script::new(FORGET),
            counts: Script::new(COUNTS),
        }
    }
}

impl Scripts {
    pub async fn change(
        &self,
        redis: &Redis,
        topic: &TopicName,
        who: &Incarnation,
        told: Told<'_>,
        batch: &Batch,
    ) -> Result<Done<Changed>, Fault> {
        let keys = redis.keys.presence(topic.as_str(), &who.node);
        let mut arguments = common(who, &told);
        arguments.extend([batch.before.map_or(String::new(), written), written(batch.mark)]);
        for op in &batch.ops {
            let (kind, seat) = match &op.what {
                What::Joined { member, tell: true } => ("J", seat(member)),
                What::Joined { member, tell: false } => ("j", seat(member)),
                What::Left(_) => ("L", String::new()),
                What::Lost(member) => ("l", seat(member)),
            };
            arguments.extend([kind.to_owned(), op.session.to_string(), seat]);
        }
        let done = done(self.invoke(redis, &self.change, &keys, &arguments).await?)?;
        let what = match &done.what {
            Value::BulkString(word) if word == b"ok" => Changed::Sent(Sent::Done),
            Value::BulkString(word) if word == b"lost" => Changed::Sent(Sent::Lost),
            Value::BulkString(word) if word == b"over" => Changed::Over,
            _ => return Err(unknown()),
        };
        Ok(Done { what, tells: done.tells, dropped: done.dropped })
    }

    /// Takes some of a dead node's sessions from a topic. So many may be left.
    pub async fn bury(
        &self,
        redis: &Redis,
        topic: &TopicName,
        who: &Incarnation,
        told: Told<'_>,
    ) -> Result<Done<i64>, Fault> {
        let keys = redis.keys.presence(topic.as_str(), &who.node);
        let mut arguments = common(who, &told);
        arguments.extend([CORTEGE.to_owned(), GRAVE.to_owned()]);
        let Done { what, tells, dropped } = done(self.invoke(redis, &self.bury, &keys, &arguments).await?)?;
        let Value::Int(what) = what else { return Err(unknown()) };
        Ok(Done { what, tells, dropped })
    }

    /// What Redis knows of a node's members; None: it takes this incarnation for dead.
    pub async fn look(&self, redis: &Redis, topic: &TopicName, who: &Incarnation) -> Result<Option<Look>, Fault> {
        let [counters, _, _, _, grave, sessions] = redis.keys.presence(topic.as_str(), &who.node);
        let mark = redis.query(redis::cmd("HGET").arg(&counters).arg(format!("n:{}", who.node))).await?;
        let buried = redis.query(redis::cmd("GET").arg(grave)).await?;
        let buried = text(&buried).and_then(|number| number.parse::<u64>().ok());
        if buried.is_some_and(|buried| buried >= who.number) {
            return Ok(None);
        }
        let sessions = redis.query(redis::cmd("HKEYS").arg(sessions)).await?;
        let Value::Array(sessions) = sessions else { return Err(unknown()) };
        Ok(Some(Look {
            mark: text(&mark).and_then(mark_of),
            buried: buried.is_some(),
            sessions: sessions.iter().filter_map(|id| SessionId::parse(text(id)?)).collect(),
        }))
    }

    pub async fn forget(&self, redis: &Redis, topic: &TopicName, node: &str, mark: Mark) -> Result<(), Fault> {
        let [counters, .., sessions] = redis.keys.presence(topic.as_str(), node);
        let arguments = [node.as_bytes(), written(mark).as_bytes()].map(<[u8]>::to_vec);
        let arguments: Vec<_> = arguments.iter().map(Vec::as_slice).collect();
        redis.invoke(&self.forget, &[&counters, &sessions], &arguments).await.map(drop)
    }

    /// The change that comes after `told`, as Redis has it; None: there is none for this token.
    pub async fn next(
        &self,
        redis: &Redis,
        topic: &TopicName,
        token: &str,
        told: &[u8],
    ) -> Result<Option<Vec<u8>>, Fault> {
        let [_, _, changes, teller, ..] = redis.keys.presence(topic.as_str(), "");
        let arguments = [token.as_bytes(), TELLS.as_bytes(), told];
        match redis.invoke(&self.next, &[&changes, &teller], &arguments).await? {
            Value::Nil => Ok(None),
            Value::BulkString(change) => Ok(Some(change)),
            _ => Err(unknown()),
        }
    }

    pub async fn counts(&self, redis: &Redis, topic: &str) -> Result<Counts, Fault> {
        let [counters, users, ..] = redis.keys.presence(topic, "");
        let answer = redis.invoke(&self.counts, &[&counters, &users], &[]).await?;
        let Value::Array(counts) = answer else { return Err(unknown()) };
        let [Value::Int(sessions), Value::Int(anonymous), Value::Int(users)] = counts[..] else {
            return Err(unknown());
        };
        let count = |count: i64| u32::try_from(count.max(0)).unwrap_or(u32::MAX);
        Ok(Counts { sessions: count(sessions), users: count(users.saturating_add(anonymous)) })
    }

    pub async fn has_user(&self, redis: &Redis, topic: &str, user: &str) -> Result<bool, Fault> {
        let [_, users, ..] = redis.keys.presence(topic, "");
        match redis.query(redis::cmd("HEXISTS").arg(users).arg(user)).await? {
            Value::Int(is) => Ok(is == 1),
            _ => Err(unknown()),
        }
    }

    pub async fn members(&self, redis: &Redis, topic: &str, limit: usize) -> Result<Vec<Member>, Fault> {
        let [counters, ..] = redis.keys.presence(topic, "");
        let limit = limit.to_string();
        let Value::Array(parts) = redis.invoke(&self.members, &[&counters], &[limit.as_bytes()]).await? else {
            return Err(unknown());
        };
        let member = |pair: &[Value]| {
            let [session, seat] = pair else { return None };
            let (Value::BulkString(seat), Some(session)) = (seat, SessionId::parse(text(session)?)) else {
                return None;
            };
            let (user, info) = seated(seat)?;
            Some(Member { session, user, info })
        };
        Ok(parts.chunks(2).filter_map(member).collect())
    }

    async fn invoke(
        &self,
        redis: &Redis,
        script: &Script,
        keys: &[String; 6],
        arguments: &[String],
    ) -> Result<Value, Fault> {
        let keys = keys.each_ref().map(String::as_str);
        let arguments: Vec<_> = arguments.iter().map(String::as_bytes).collect();
        redis.invoke(script, &keys, &arguments).await
    }
}

/// What seats.lua reads.
fn common(who: &Incarnation, told: &Told<'_>) -> Vec<String> {
    let watched = if told.watched { "1" } else { "0" };
    let number = who.number.to_string();
    let common = [&who.node, &number, watched, &CHANGES.to_string(), told.token, TELLS, EMPTY];
    common.map(str::to_owned).into()
}

fn done(answer: Value) -> Result<Done<Value>, Fault> {
    let Value::Array(parts) = answer else { return Err(unknown()) };
    let Ok([what, Value::Int(tells), Value::Int(dropped)]) = <[Value; 3]>::try_from(parts) else {
        return Err(unknown());
    };
    Ok(Done { what, tells: tells == 1, dropped: dropped.try_into().unwrap_or(0) })
}

fn unknown() -> Fault {
    Fault::Refused("a script on presence answers something unknown: do nodes of two versions share it?".to_owned())
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

fn written(mark: Mark) -> String {
    format!("{} {}", mark.incarnation, mark.number)
}

fn mark_of(text: &str) -> Option<Mark> {
    let (incarnation, number) = text.split_once(' ')?;
    Some(Mark { incarnation: incarnation.parse().ok()?, number: number.parse().ok()? })
}

/// A member as seats.lua reads it.
fn seat(member: &Member) -> String {
    let mut seat = String::with_capacity(member.info.len() + 32);
    // Writing to a String cannot fail.
    let _ = match &member.user {
        Some(user) => write!(seat, "{} {user}", user.len()),
        None => write!(seat, "- "),
    };
    seat.push_str(&member.info);
    seat
}

fn seated(seat: &[u8]) -> Option<(Option<std::sync::Arc<str>>, std::sync::Arc<str>)> {
    let (length, rest) = std::str::from_utf8(seat).ok()?.split_once(' ')?;
    if length == "-" {
        return Some((None, rest.into()));
    }
    let (user, info) = rest.split_at_checked(length.parse().ok()?)?;
    Some((Some(user.into()), info.into()))
}

/// A change as seats.lua writes it.
pub fn change_of(text: &[u8]) -> Option<Change> {
    let mut parts = text.splitn(4, |byte| *byte == b' ');
    let mut part = || std::str::from_utf8(parts.next()?).ok();
    let joined = match part()? {
        "J" => true,
        "L" => false,
        _ => return None,
    };
    let (session, sessions_of_user) = (SessionId::parse(part()?)?, part()?.parse().ok()?);
    let (user, info) = seated(parts.next()?)?;
    Some(Change { joined, member: Member { session, user, info }, sessions_of_user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_read_as_they_were_written() {
        let session = SessionId { node: 1, number: 2 };
        for (user, info) in
            [(Some("ann b"), "{\"a\": 1}"), (None, "12 x"), (Some(""), ""), (Some("caf\u{e9}\n\0"), " ")]
        {
            let member = Member { session, user: user.map(Into::into), info: info.into() };
            let seat = seat(&member);
            assert_eq!(seated(seat.as_bytes()), Some((member.user.clone(), member.info.clone())));
            let change = change_of(format!("L {session} 3 {seat}").as_bytes()).unwrap();
            assert_eq!(change, Change { joined: false, member, sessions_of_user: 3 });
        }
        for wrong in ["", "x", "J", "J 1 2 3", "9 ab", "J 0000000000000001-0000000000000002 x - "] {
            assert_eq!(change_of(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(mark_of("3 14"), Some(Mark { incarnation: 3, number: 14 }));
    }
}
