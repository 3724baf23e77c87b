//! The plugin's configuration: read once for each instance, and refused as a whole when any of it is wrong.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::Value;

use tidegate_sdk::Keep;

use crate::claims::Policy;
use crate::fields::Fields;
use crate::jwks;
use crate::keys::{Algorithm, Key, KeySet, Material};
use crate::sources::{Source, Sources};
use crate::verifier::{Verifier, media_type};

/// More is no clock skew, but a token that lives on.
const MAX_LEEWAY_SECONDS: u64 = 600;

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) verifier: Verifier,
    pub(crate) sources: Sources,
    /// Whether a client without a token is left to the next plugin of the chain.
    pub(crate) optional: bool,
    /// How many sessions a user may have, and which stay.
    pub(crate) sessions: Option<(u32, Keep)>,
}

impl Config {
    /// From the plugin's table as JSON. The error names the setting and the cure.
    pub(crate) fn read(json: &str) -> Result<Self, String> {
        let Ok(Value::Object(table)) = serde_json::from_str(json) else {
            return Err("the configuration of this plugin is not a table".to_owned());
        };
        let mut fields = Fields::new(String::new(), table);
        let keys = keys(&mut fields)?;
        let policy = policy(&mut fields)?;
        let types = fields.texts("types")?.unwrap_or_else(|| vec!["jwt".to_owned(), "at+jwt".to_owned()]);
        let types = types.iter().map(|typ| media_type(typ)).collect();
        let sources = sources(&mut fields)?;
        let optional = fields.flag("optional", false)?;
        let sessions = sessions(&mut fields)?;
        fields.finish()?;
        Ok(Self { verifier: Verifier { keys, types, policy }, sources, optional, sessions })
    }
}

fn sessions(fields: &mut Fields) -> Result<Option<(u32, Keep)>, String> {
    let keep = match fields.text("keep")?.as_deref() {
        None => None,
        Some("newest") => Some(Keep::Newest),
        Some("oldest") => Some(Keep::Oldest),
        Some(other) => {
            return Err(fields.error("keep", format!("is {other:?}: which sessions stay, \"newest\" or \"oldest\"?")));
        }
    };
    match (fields.number("sessions", 0)?, keep) {
        (0, None) => Ok(None),
        (0, Some(_)) => Err(fields.error("keep", "says which sessions stay, but not how many: set `sessions`")),
        (sessions @ 1..=100, keep) => Ok(Some((sessions as u32, keep.unwrap_or(Keep::Newest)))),
        (sessions, _) => {
            Err(fields.error("sessions", format!("is {sessions}: a user may have 1 to 100, or any number without it")))
        }
    }
}

fn keys(fields: &mut Fields) -> Result<KeySet, String> {
    let mut keys = KeySet::default();
    if let Some((name, material)) = secret(fields)? {
        keys.add(Key { kid: None, material }).map_err(|error| fields.error(name, error))?;
    }
    for mut entry in fields.tables("keys")? {
        let (name, key) = key(&mut entry)?;
        keys.add(key).map_err(|error| entry.error(name, error))?;
        entry.finish()?;
    }
    if let Some(text) = fields.text("jwks")? {
        jwks::read(&text, &mut keys).map_err(|error| fields.error("jwks", error))?;
    }
    let allowed = algorithms(fields)?;
    if keys.is_empty() {
        return Err("no key is configured, so no token could be verified: set `secret` for HS256, `keys` for public \
             keys as PEM, or `jwks` for the key set of an identity provider"
            .to_owned());
    }
    if let Some(allowed) = allowed {
        keys.retain(&allowed);
        if keys.is_empty() {
            return Err(
                fields.error("algorithms", "allows none of the configured keys; take the line out to allow all")
            );
        }
    }
    Ok(keys)
}

/// `secret` or `secret_base64`, at the top or in an entry of `keys`.
fn secret(fields: &mut Fields) -> Result<Option<(&'static str, Material)>, String> {
    let (name, secret) = match (fields.text("secret")?, fields.text("secret_base64")?) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(fields.error("secret", "and `secret_base64` are both set; keep one of them")),
        (Some(text), None) => ("secret", text.into_bytes()),
        (None, Some(text)) => {
            let bytes = base64(&text)
                .ok_or_else(|| fields.error("secret_base64", "is not base64; `openssl rand -base64 32` writes it"))?;
            ("secret_base64", bytes)
        }
    };
    let material = Material::secret(&secret).map_err(|error| fields.error(name, error))?;
    Ok(Some((name, material)))
}

/// One entry of `keys`, and the name of the field that holds the key itself.
fn key(entry: &mut Fields) -> Result<(&'static str, Key), String> {
    let kid = entry.text("kid")?;
    if kid.as_ref().is_some_and(String::is_empty) {
        return Err(entry.error("kid", "is empty; leave it out when the tokens name no key"));
    }
    let algorithm = match entry.text("alg")? {
        None => {
            return Err(entry.error("alg", format!("is missing; write what the key is for: {}", Algorithm::NAMES)));
        }
        Some(name) => algorithm(&name).map_err(|error| entry.error("alg", error))?,
    };
    let (name, material) = match (entry.text("pem")?, secret(entry)?) {
        (Some(pem), None) => ("pem", Material::pem(algorithm, &pem).map_err(|error| entry.error("pem", error))?),
        (None, Some((name, material))) if algorithm == Algorithm::Hs256 => (name, material),
        (None, Some((name, _))) => {
            return Err(
                entry.error(name, format!("is for HS256, and `alg` is {}: set `pem` instead", algorithm.name()))
            );
        }
        (Some(_), Some((name, _))) => return Err(entry.error("pem", format!("and `{name}` are both set; keep one"))),
        (None, None) if algorithm == Algorithm::Hs256 => {
            return Err(entry.error("secret", "is missing; write secret = { env = \"NAME\" }"));
        }
        (None, None) => return Err(entry.error("pem", "is missing; write pem = { file = \"key.pem\" }")),
    };
    Ok((name, Key { kid, material }))
}

fn algorithms(fields: &mut Fields) -> Result<Option<Vec<Algorithm>>, String> {
    let Some(names) = fields.texts("algorithms")? else {
        return Ok(None);
    };
    let algorithms: Result<Vec<Algorithm>, String> = names.iter().map(|name| algorithm(name)).collect();
    algorithms.map(Some).map_err(|error| fields.error("algorithms", error))
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    Algorithm::of_name(name).ok_or_else(|| match name.eq_ignore_ascii_case("none") {
        true => "names `none`, which would let everybody in".to_owned(),
        false => format!("names {name:?}, which is not supported: use {}", Algorithm::NAMES),
    })
}

fn policy(fields: &mut Fields) -> Result<Policy, String> {
    let audience = fields.texts("audience")?.unwrap_or_default();
    let issuer = fields.texts("issuer")?.unwrap_or_default();
    let leeway = fields.number("leeway", 30)?;
    if leeway > MAX_LEEWAY_SECONDS {
        let error =
            format!("is {leeway} seconds and may be {MAX_LEEWAY_SECONDS} at most: it is for clocks that differ");
        return Err(fields.error("leeway", error));
    }
    let require_expiry = fields.flag("require_expiry", true)?;
    let user_claim = fields.text("user_claim")?.unwrap_or_else(|| "sub".to_owned());
    let attributes = fields.texts("attributes")?.unwrap_or_default();
    if let Some(name) = attributes.iter().find(|name| name.len() > 64) {
        return Err(fields.error("attributes", format!("names {name:?}, and attributes have names of up to 64 bytes")));
    }
    if attributes.len() > 64 {
        return Err(fields.error("attributes", "names more than the 64 attributes that a session can have"));
    }
    Ok(Policy { audience, issuer, leeway: leeway * 1000, require_expiry, user_claim, attributes })
}

fn sources(fields: &mut Fields) -> Result<Sources, String> {
    let allowed = match fields.texts("sources")? {
        None => vec![Source::Header, Source::Query, Source::Subprotocol],
        Some(names) => {
            let source = |name: &String| {
                Source::of_name(name).ok_or_else(|| {
                    let error =
                        format!("names {name:?}: there are \"header\", \"query\", \"cookie\" and \"subprotocol\"");
                    fields.error("sources", error)
                })
            };
            names.iter().map(source).collect::<Result<_, _>>()?
        }
    };
    let mut name = |field, default: &str| match fields.text(field)? {
        Some(name) if name.is_empty() => Err(fields.error(field, "is empty; take the line out for the default")),
        name => Ok(name.unwrap_or_else(|| default.to_owned())),
    };
    Ok(Sources {
        query_parameter: name("query_parameter", "token")?,
        cookie: name("cookie", "token")?,
        subprotocol: name("subprotocol", "bearer")?,
        allowed,
    })
}

/// In any of its spellings: either alphabet, padded or not, with the line break that tools write after it.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text: String = text
        .trim()
        .trim_end_matches('=')
        .chars()
        .map(|character| match character {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    Base64UrlUnpadded::decode_vec(&text).ok()
}
