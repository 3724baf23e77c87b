//! What a genuine token must claim to let its bearer in, and what is taken from it.

use serde_json::Value;

use crate::json::Object;
use crate::rejection::Rejection;

/// The last second of the year 9999. A date beyond it was written in milliseconds, or is a mistake of another kind.
const LAST_DATE: u64 = 253_402_300_799;

/// What is asked of every token.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Any of these. Empty: a token that is meant for somebody in particular is not meant for us (RFC 7519, 4.1.3).
    pub(crate) audience: Vec<String>,
    /// Any of these. Empty: not looked at.
    pub(crate) issuer: Vec<String>,
    /// How far the issuer's clock may be off, in milliseconds.
    pub(crate) leeway: u64,
    pub(crate) require_expiry: bool,
    pub(crate) user_claim: String,
    /// Claims to copy into attributes of the session.
    pub(crate) attributes: Vec<String>,
}

/// Whom a good token speaks of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) attributes: Vec<(String, String)>,
    /// When the session ends: Unix time in milliseconds.
    pub(crate) expiry: Option<u64>,
}

impl Policy {
    /// `now` is Unix time in milliseconds.
    pub(crate) fn check(&self, claims: &Object, now: u64) -> Result<Identity, Rejection> {
        let expiry = self.expiry(claims, now)?;
        if let Some(not_before) = date(claims, "nbf")?
            && now.saturating_add(self.leeway) < not_before
        {
            return Err(Rejection::NotYetValid);
        }
        // Nothing hangs on it, but a token whose dates make no sense should not be trusted in the rest.
        date(claims, "iat")?;
        self.check_issuer(claims)?;
        self.check_audience(claims)?;
        Ok(Identity { user: self.user(claims)?, attributes: self.attributes(claims)?, expiry })
    }

    /// The leeway forgives a clock that is ahead, as long as somebody comes in; a session that is in ends with its
    /// token, unless it came in on the leeway: then with that.
    fn expiry(&self, claims: &Object, now: u64) -> Result<Option<u64>, Rejection> {
        match date(claims, "exp")? {
            None if self.require_expiry => Err(Rejection::NoExpiry),
            None => Ok(None),
            Some(at) if now < at => Ok(Some(at)),
            Some(at) if now < at.saturating_add(self.leeway) => Ok(Some(at.saturating_add(self.leeway))),
            Some(_) => Err(Rejection::Expired),
        }
    }

    fn check_issuer(&self, claims: &Object) -> Result<(), Rejection> {
        if self.issuer.is_empty() {
            return Ok(());
        }
        match claims.get("iss") {
            Some(Value::String(issuer)) if self.issuer.contains(issuer) => Ok(()),
            _ => Err(Rejection::Issuer),
        }
    }

    fn check_audience(&self, claims: &Object) -> Result<(), Rejection> {
        let ours = |audience: &Value| audience.as_str().is_some_and(|name| self.audience.iter().any(|own| own == name));
        let accepted = match claims.get("aud") {
            None => self.audience.is_empty(),
            Some(Value::Array(audiences)) => audiences.iter().any(ours),
            Some(audience) => ours(audience),
        };
        if accepted { Ok(()) } else { Err(Rejection::Audience) }
    }

    /// A string, or a whole number, which many issuers use as user ids.
    fn user(&self, claims: &Object) -> Result<String, Rejection> {
        let user = match claims.get(&self.user_claim) {
            Some(Value::String(user)) => user.clone(),
            Some(Value::Number(user)) if user.is_u64() || user.is_i64() => user.to_string(),
            _ => return Err(Rejection::User),
        };
        match user.len() {
            1..=255 => Ok(user),
            _ => Err(Rejection::User),
        }
    }

    /// Strings as they are, everything else as JSON; what is not there or null is left out.
    fn attributes(&self, claims: &Object) -> Result<Vec<(String, String)>, Rejection> {
        let mut attributes = Vec::new();
        for name in &self.attributes {
            let value = match claims.get(name) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
            };
            if value.len() > 4096 {
                return Err(Rejection::Attribute);
            }
            attributes.push((name.clone(), value));
        }
        Ok(attributes)
    }
}

/// A NumericDate (RFC 7519, section 2): seconds, perhaps with a fraction. In milliseconds here.
fn date(claims: &Object, name: &str) -> Result<Option<u64>, Rejection> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let malformed = Rejection::Malformed("A date of the token (exp, nbf or iat) is not a Unix time in seconds");
    if let Some(seconds) = value.as_u64() {
        return if seconds <= LAST_DATE { Ok(Some(seconds * 1000)) } else { Err(malformed) };
    }
    match value.as_f64() {
        Some(seconds) if (0.0..=LAST_DATE as f64).contains(&seconds) => Ok(Some((seconds * 1000.0) as u64)),
        _ => Err(malformed),
    }
}
