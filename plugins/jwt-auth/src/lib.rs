//! Lets clients in by JSON Web Token: whoever shows a good one becomes the user that it names, until it expires.
//!
//! What it teaches: configuration that is checked once, in `init`, and an `authenticate` hook that reads the handshake,
//! answers it, and gives the session its user, attributes and expiry. How to configure it:
//! `docs/guides/authentication.md`. Why it has a JOSE layer of its own: `docs/decisions/0005-jwt-libraries.md`.

mod claims;
mod config;
mod fields;
mod json;
mod jwks;
mod keys;
mod rejection;
mod sources;
mod token;
mod verifier;

#[cfg(test)]
mod tests;

use tidegate_sdk::{Context, Decision, Plugin, Result, Session, clock, log};

use crate::claims::Identity;
use crate::config::Config;
use crate::rejection::Rejection;
use crate::sources::{Request, Source};

/// The plugin. It never changes once it is made.
pub struct JwtAuth {
    config: Config,
}

tidegate_sdk::export!(JwtAuth: init, authenticate, session);

impl Plugin for JwtAuth {
    fn init() -> Result<Self> {
        Ok(Self { config: Config::read(&tidegate_sdk::config::json())? })
    }

    fn authenticate(&self, session: Session) -> Result<Decision> {
        let (source, token) = match self.config.sources.find(&session) {
            Ok(Some(found)) => found,
            Ok(None) if self.config.optional => return Ok(Decision::Pass),
            Ok(None) => return refuse(session, 401, "Bearer", "A token is needed to come in"),
            Err(rejection) => return reject(session, rejection),
        };
        match self.config.verifier.verify(&token, clock::now()) {
            Ok(identity) => self.admit(session, source, identity),
            Err(rejection) => reject(session, rejection),
        }
    }

    /// Of the sessions of one user so many stay, on all nodes.
    fn opened(&self, session: Session) -> Result {
        if let (Some((sessions, keep)), Some(_)) = (self.config.sessions, session.user()) {
            session.limit_sessions(sessions, keep).context("`sessions`")?;
        }
        Ok(())
    }
}

impl JwtAuth {
    fn admit(&self, session: Session, source: Source, identity: Identity) -> Result<Decision> {
        if source == Source::Subprotocol {
            // A browser gives up a connection on which none of its subprotocols was selected.
            session.select_subprotocol(&self.config.sources.subprotocol).context("subprotocol")?;
        }
        for (name, value) in &identity.attributes {
            session.set_attribute(name, value).context(format_args!("attribute `{name}`"))?;
        }
        if identity.expiry.is_some() {
            session.set_expiry(identity.expiry);
        }
        Ok(Decision::admit(identity.user))
    }
}

/// A bad token, as RFC 6750, section 3, has it.
fn reject(session: Session, rejection: Rejection) -> Result<Decision> {
    let (status, code) = rejection.answer();
    let text = rejection.text();
    log::debug!(reason = text; "refused a token");
    refuse(session, status, &format!(r#"Bearer error="{code}", error_description="{text}""#), text)
}

fn refuse(session: Session, status: u16, challenge: &str, text: &str) -> Result<Decision> {
    session.add_header("WWW-Authenticate", challenge).context("WWW-Authenticate")?;
    session.set_body("text/plain; charset=utf-8", format!("{text}.\n"));
    Ok(Decision::Refuse(status))
}

impl Request for Session {
    fn header(&self, name: &str) -> Option<String> {
        Session::header(*self, name)
    }

    fn raw_query(&self) -> String {
        Session::raw_query(*self)
    }

    fn subprotocols(&self) -> Vec<String> {
        Session::subprotocols(*self)
    }
}
