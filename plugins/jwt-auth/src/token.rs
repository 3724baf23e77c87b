//! A token taken apart: the compact serialization of RFC 7515, and nothing beside it.
//!
//! Only the header is read here. What the token claims stays encoded until its signature has been found good.

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::json::{self, Object};
use crate::keys::Algorithm;
use crate::rejection::Rejection;

/// Longer tokens are refused unread. Real ones have 300 bytes to 2 KiB.
pub(crate) const MAX_BYTES: usize = 8 * 1024;

#[derive(Debug)]
pub(crate) struct Token<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    pub(crate) typ: Option<String>,
    /// What was signed: header and payload as they came, with the dot between them.
    pub(crate) signed: &'a str,
    pub(crate) signature: Vec<u8>,
    payload: &'a str,
}

impl<'a> Token<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Rejection> {
        if text.len() > MAX_BYTES {
            return Err(Rejection::TooLong);
        }
        let malformed = Rejection::Malformed("The token does not have the form header.payload.signature");
        let (signed, signature) = text.rsplit_once('.').ok_or(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(malformed)?;
        if header.is_empty() || payload.is_empty() || payload.contains('.') {
            return Err(malformed);
        }

        let header = decode_object(header)
            .ok_or(Rejection::Malformed("The token's header is not base64url of one JSON object with unique names"))?;
        // `none` and whatever else is not one of ours ends here, before a key is looked at.
        let algorithm = match header.get("alg").and_then(|alg| alg.as_str()) {
            Some(name) => Algorithm::of_name(name).ok_or(Rejection::Algorithm)?,
            None => {
                return Err(Rejection::Malformed("The token's header has no alg, or one that is not a string"));
            }
        };
        if header.contains_key("crit") {
            return Err(Rejection::Extension);
        }
        // `jku`, `jwk`, `x5u` and `x5c` would let the token bring its own key: they are never looked at.
        let kid = optional_text(&header, "kid").ok_or(Rejection::Malformed("The token's kid is not a string"))?;
        let typ = optional_text(&header, "typ").ok_or(Rejection::Malformed("The token's typ is not a string"))?;

        let signature =
            decode(signature).ok_or(Rejection::Malformed("The token's signature is not base64url without padding"))?;
        Ok(Self { algorithm, kid, typ, signed, signature, payload })
    }

    /// The claims. Ask for them when the signature has been found good, not before.
    pub(crate) fn claims(&self) -> Result<Object, Rejection> {
        decode_object(self.payload)
            .ok_or(Rejection::Malformed("The token's payload is not base64url of one JSON object with unique names"))
    }
}

/// Canonical base64url only: no padding, no white space, no stray bits in the last character.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    Base64UrlUnpadded::decode_vec(text).ok()
}

fn decode_object(text: &str) -> Option<Object> {
    json::object(&decode(text)?).ok()
}

fn optional_text(header: &Object, name: &str) -> Option<Option<String>> {
    match header.get(name) {
        None => Some(None),
        Some(value) => value.as_str().map(|text| Some(text.to_owned())),
    }
}
