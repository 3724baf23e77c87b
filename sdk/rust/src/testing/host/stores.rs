//! Of `history`, `publication`, `presence` and `kv`.

use super::check;
use crate::Refusal;
use crate::testing::call::{self, Call};
use crate::testing::state::fits;

/// The grant and the rule of a topic that is to be read.
fn readable(call: &Call, topic: &str) -> Result<crate::testing::Topic, Refusal> {
    check::topic(topic)?;
    let state = call.state();
    check::granted(state.grants.subscribe.iter().any(|pattern| fits(pattern, topic)))?;
    if state.broker_away {
        return Err(Refusal::Unavailable);
    }
    Ok(state.rule(topic))
}

pub(crate) mod history {
    use super::{call, readable};
    use crate::host::data::Page;
    use crate::{Refusal, history::Position};

    pub(crate) fn read(topic: &str, since: Option<Position>, limit: u32) -> Result<Page, Refusal> {
        call::with(|call| {
            if readable(call, topic)?.history == 0 {
                return Err(Refusal::Unsupported);
            }
            let position = call.state().room(topic).position();
            let limit = limit.min(1000) as usize;
            let (page, complete): (Vec<_>, _) = match since {
                Some(since) => {
                    let (after, complete) = call.state().after(topic, since);
                    (after.into_iter().take(limit).collect(), complete)
                }
                None => {
                    let all = call.state().kept(topic);
                    let skip = all.len().saturating_sub(limit);
                    (all.into_iter().skip(skip).collect(), true)
                }
            };
            let publications = page.into_iter().map(|kept| call.keep(kept)).collect();
            Ok(Page { publications, position, complete })
        })
    }
}

pub(crate) mod publication {
    use super::call;
    use crate::{Message, history::Position};

    pub(crate) fn topic(publication: u64) -> String {
        call::with(|call| call.publication(publication).topic.clone())
    }

    pub(crate) fn content(publication: u64) -> Message {
        call::with(|call| call.publication(publication).message.clone())
    }

    pub(crate) fn history_position(publication: u64) -> Option<Position> {
        call::with(|call| call.publication(publication).position)
    }

    pub(crate) fn time(publication: u64) -> u64 {
        call::with(|call| call.publication(publication).time)
    }

    pub(crate) fn key(publication: u64) -> Option<String> {
        call::with(|call| call.publication(publication).key.clone())
    }

    pub(crate) fn metadata(publication: u64, name: &str) -> Option<String> {
        call::with(|call| {
            let metadata = &call.publication(publication).metadata;
            metadata.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
        })
    }
}

pub(crate) mod presence {
    use std::collections::BTreeSet;

    use super::{Call, call, readable};
    use crate::Refusal;
    use crate::host::data::{Counts, Member};
    use crate::presence;

    fn all(call: &Call, topic: &str) -> Result<Vec<presence::Member>, Refusal> {
        match readable(call, topic)?.presence {
            true => Ok(call.state().room(topic).members.clone()),
            false => Err(Refusal::Unsupported),
        }
    }

    pub(crate) fn count(topic: &str) -> Result<Counts, Refusal> {
        let members = call::with(|call| all(call, topic))?;
        let users: BTreeSet<_> = members.iter().filter_map(|member| member.user.as_deref()).collect();
        Ok(Counts { sessions: members.len() as u32, users: users.len() as u32 })
    }

    pub(crate) fn members(topic: &str, limit: u32) -> Result<Vec<Member>, Refusal> {
        let members = call::with(|call| all(call, topic))?;
        let limit = limit.min(1000) as usize;
        let member = |m: presence::Member| Member { session_id: m.session_id, user: m.user, info: m.info };
        Ok(members.into_iter().take(limit).map(member).collect())
    }

    pub(crate) fn has_user(topic: &str, user: &str) -> Result<bool, Refusal> {
        let members = call::with(|call| all(call, topic))?;
        Ok(members.iter().any(|member| member.user.as_deref() == Some(user)))
    }
}

pub(crate) mod kv {
    use super::{call, check};
    use crate::Refusal;
    use crate::testing::state::State;

    const VALUE: usize = 64 * 1024;

    fn store<T>(key: &str, act: impl FnOnce(&mut State) -> Result<T, Refusal>) -> Result<T, Refusal> {
        check::id(key)?;
        call::with(|call| {
            let mut state = call.state();
            check::granted(state.grants.kv.iter().any(|prefix| key.starts_with(prefix)))?;
            if state.broker_away {
                return Err(Refusal::Unavailable);
            }
            let now = state.now;
            state.keys.retain(|_, (_, expires)| expires.is_none_or(|at| at > now));
            act(&mut state)
        })
    }

    fn put(state: &mut State, key: &str, value: &[u8], ttl: u64) -> Result<(), Refusal> {
        if value.len() > VALUE {
            return Err(Refusal::TooLarge);
        }
        let expires = (ttl > 0).then(|| state.now.saturating_add(ttl));
        state.keys.insert(key.to_owned(), (value.to_vec(), expires));
        Ok(())
    }

    pub(crate) fn get(key: &str) -> Result<Option<Vec<u8>>, Refusal> {
        store(key, |state| Ok(state.keys.get(key).map(|(value, _)| value.clone())))
    }

    pub(crate) fn set(key: &str, value: &[u8], ttl: u64) -> Result<(), Refusal> {
        store(key, |state| put(state, key, value, ttl))
    }

    pub(crate) fn delete(key: &str) -> Result<(), Refusal> {
        store(key, |state| {
            state.keys.remove(key);
            Ok(())
        })
    }

    pub(crate) fn increment(key: &str, by: i64, ttl: u64) -> Result<i64, Refusal> {
        store(key, |state| {
            let Some((value, _)) = state.keys.get_mut(key) else {
                put(state, key, by.to_string().as_bytes(), ttl)?;
                return Ok(by);
            };
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
            let sum = number.and_then(|number| number.checked_add(by)).ok_or(Refusal::Invalid)?;
            *value = sum.to_string().into_bytes();
            Ok(sum)
        })
    }

    pub(crate) fn compare_and_set(key: &str, expected: Option<&[u8]>, value: &[u8], ttl: u64) -> Result<bool, Refusal> {
        store(key, |state| {
            let same = state.keys.get(key).map(|(value, _)| value.as_slice()) == expected;
            if same {
                put(state, key, value, ttl)?;
            }
            Ok(same)
        })
    }
}
