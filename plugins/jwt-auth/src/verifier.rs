//! A token in, an identity out: the whole judgement, with no gateway around it.

use crate::claims::{Identity, Policy};
use crate::keys::KeySet;
use crate::rejection::Rejection;
use crate::token::Token;

#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) keys: KeySet,
    /// The `typ` headers of tokens that are meant for this, in lower case. A token without one passes.
    pub(crate) types: Vec<String>,
    pub(crate) policy: Policy,
}

impl Verifier {
    /// `now` is Unix time in milliseconds.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Identity, Rejection> {
        let token = Token::parse(token)?;
        if let Some(typ) = &token.typ
            && !self.types.contains(&media_type(typ))
        {
            return Err(Rejection::Type);
        }
        self.keys.verify(&token)?;
        self.policy.check(&token.claims()?, now)
    }
}

/// `application/` may be left out, and case does not count (RFC 7515, section 4.1.9).
pub(crate) fn media_type(typ: &str) -> String {
    let typ = typ.to_ascii_lowercase();
    match typ.strip_prefix("application/") {
        Some(rest) if !rest.contains('/') => rest.to_owned(),
        _ => typ,
    }
}
