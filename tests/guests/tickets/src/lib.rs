//! The plugin of docs/guides/http.md: a page fetches a ticket with a password, and shows it in its WebSocket's URL.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use tidegate_sdk::http::{Request, Response};
use tidegate_sdk::{Decision, Plugin, Result, Session, config, kv, random};

/// What stands under `[plugin.tickets.config]`.
#[derive(Deserialize)]
struct Settings {
    passwords: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Login {
    name: String,
    password: String,
}

/// `POST /ticket` with name and password: a ticket that is good for half a minute.
fn issue(request: Request) -> Result<Response> {
    let Ok(login) = request.json::<Login>() else { return Ok(Response::new(400)) };
    let settings: Settings = config::parse()?;
    if settings.passwords.get(&login.name) != Some(&login.password) {
        return Ok(Response::new(401));
    }
    let ticket: String = random::bytes(16).iter().map(|byte| format!("{byte:02x}")).collect();
    kv::set(&format!("ticket:{ticket}"), login.name, Some(Duration::from_secs(30)))?;
    Ok(Response::json(&serde_json::json!({ "ticket": ticket }))?.header("cache-control", "no-store"))
}

#[derive(Default)]
struct Tickets;

impl Plugin for Tickets {
    /// `GET /echo?ticket=…`: whoever shows it is who it was issued to.
    fn authenticate(&self, session: Session) -> Result<Decision> {
        let Some(ticket) = session.query("ticket") else { return Ok(Decision::Refuse(401)) };
        Ok(match kv::get(&format!("ticket:{ticket}"))? {
            Some(user) => Decision::Admit(Some(String::from_utf8(user)?)),
            None => Decision::Refuse(401),
        })
    }
}

tidegate_sdk::export!(Tickets: authenticate);
tidegate_sdk::http_handler!(issue);
