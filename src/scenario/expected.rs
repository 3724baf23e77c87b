//! What must come of a step, as a scenario file says it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::keys::{Keys, check_message, duration, time};
use super::step::Event;

/// What must come of it. None: it is not looked at.
#[derive(Default)]
pub struct Expected {
    pub effects: Option<Effects>,
    pub receives: Option<BTreeMap<String, Vec<Value>>>,
    pub admitted: Option<Value>,
    pub refused: Option<Value>,
    pub responds: Option<Value>,
    pub answers: Option<Vec<Value>>,
    pub hooks: Option<Vec<Value>>,
    pub logs: Option<Vec<Value>>,
    pub kv: Option<Vec<Value>>,
    pub asks: Option<Vec<Value>>,
    pub fails: Option<String>,
    pub refuses: Option<String>,
    pub denied: Vec<Value>,
}

pub enum Effects {
    Any,
    These(Vec<Value>),
}

impl Expected {
    pub fn read(keys: &mut Keys, event: &Event) -> Result<Self, String> {
        let connects = matches!(event, Event::Connect(_));
        let effects = match keys.json("effects") {
            None => None,
            Some(Value::Array(list)) => Some(Effects::These(list.into_iter().map(effect).collect::<Result<_, _>>()?)),
            Some(Value::String(any)) if any == "any" => Some(Effects::Any),
            Some(_) => return Err("`effects` is a list, or \"any\"".to_owned()),
        };
        let receives = match keys.json("receives") {
            None => None,
            Some(Value::Object(table)) => Some(table.into_iter().map(received).collect::<Result<_, _>>()?),
            Some(_) => return Err("`receives` is a table: a list of messages for each client".to_owned()),
        };
        let expected = Self {
            effects,
            receives,
            admitted: if connects { keys.json("admitted") } else { None },
            refused: if connects { keys.json("refused") } else { None },
            responds: match event {
                Event::Request(_) => keys.json("responds").map(response).transpose()?,
                _ => None,
            },
            answers: keys.list("answers")?,
            hooks: keys.list("hooks")?,
            logs: keys.list("logs")?.map(|logs| logs.into_iter().map(log).collect()),
            kv: keys.list("kv")?.map(|calls| calls.into_iter().map(kv).collect::<Result<_, _>>()).transpose()?,
            asks: keys.list("asks")?.map(|asks| asks.into_iter().map(ask).collect::<Result<_, _>>()).transpose()?,
            fails: keys.text("fails")?,
            refuses: keys.text("refuses")?,
            denied: keys.list("denied")?.unwrap_or_default(),
        };
        if expected.admitted.is_some() && expected.refused.is_some() {
            return Err("the client is either `admitted` or `refused`".to_owned());
        }
        Ok(expected)
    }
}

/// An effect as the gateway would describe it: times in milliseconds, and what is always there.
fn effect(mut effect: Value) -> Result<Value, String> {
    let Value::Object(keys) = &mut effect else {
        return Err("an effect is a table, such as { send = \"hello\" }".to_owned());
    };
    for key in ["after", "timeout"] {
        if let Some(time) = keys.get_mut(key) {
            *time = duration(time)?.into();
        }
    }
    if let Some(ttl) = keys.get_mut("history").and_then(|history| history.get_mut("ttl")) {
        *ttl = duration(ttl)?.into();
    }
    if let Some(at) = keys.get_mut("set-expiry").filter(|at| *at != "" && *at != "${_}") {
        *at = time(at)?.into();
    }
    let closes = ["close", "disconnect-user", "disconnect-session"].iter().any(|verb| keys.contains_key(*verb));
    if closes {
        keys.entry("reason").or_insert("".into());
    }
    Ok(effect)
}

fn received((client, list): (String, Value)) -> Result<(String, Vec<Value>), String> {
    let Value::Array(mut list) = list else {
        return Err(format!("what {client} receives must be a list"));
    };
    for message in &mut list {
        match message {
            Value::Object(close) if close.contains_key("close") => {
                if !close.contains_key("reason") {
                    close.insert("...".to_owned(), 0.into());
                }
            }
            message => check_message(message)?,
        }
    }
    Ok((client, list))
}

fn log(log: Value) -> Value {
    match log {
        Value::String(message) => json!({ "message": message, "...": 0 }),
        Value::Object(mut log) => {
            log.insert("...".to_owned(), 0.into());
            log.into()
        }
        other => other,
    }
}

fn kv(mut call: Value) -> Result<Value, String> {
    let Value::Object(keys) = &mut call else {
        return Err("a call of the store is a table, such as { get = \"key\", is = \"value\" }".to_owned());
    };
    let takes_ttl = ["set", "increment", "compare-and-set"].iter().any(|verb| keys.contains_key(*verb));
    if takes_ttl {
        let ttl = keys.entry("ttl").or_insert(0.into());
        *ttl = duration(ttl)?.into();
    }
    if !keys.contains_key("is") {
        keys.insert("...".to_owned(), 0.into());
    }
    Ok(call)
}

/// What is not named is not looked at.
fn ask(mut ask: Value) -> Result<Value, String> {
    if let Value::String(request) = ask {
        ask = json!({ "request": request });
    }
    let Value::Object(keys) = &mut ask else {
        return Err(
            "what is asked is \"GET https://…\", or a table such as { upstream = \"back\", message = \"hello\" }"
                .to_owned(),
        );
    };
    keys.insert("...".to_owned(), 0.into());
    if let Some(Value::Object(headers)) = keys.get_mut("headers") {
        headers.insert("...".to_owned(), 0.into());
    }
    Ok(ask)
}

/// A status alone, or a table.
fn response(response: Value) -> Result<Value, String> {
    let wrong = || "`responds` is a status, or a table with `status`, `headers` and `body`".to_owned();
    let keys = match response {
        Value::Number(_) => return Ok(json!({ "status": response })),
        Value::Object(keys) => keys,
        _ => return Err(wrong()),
    };
    for (key, value) in &keys {
        match key.as_str() {
            "status" if value.is_number() => {}
            "headers" if value.is_object() => {}
            "body" => check_message(value)?,
            _ => return Err(wrong()),
        }
    }
    Ok(keys.into())
}
