//! `tidegate token`: a development token, signed with the secret of a configuration's jwt-auth plugin.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Args;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{ConfigArgs, Unusable};
use crate::config::Config;
use crate::message::unix_now;

#[derive(Args)]
pub struct Token {
    #[command(flatten)]
    config: ConfigArgs,
    /// Whom the token is for: its `sub` claim
    #[arg(long, value_name = "NAME")]
    user: String,
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

impl Token {
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?;
        let settings = settings(&config).ok_or_else(|| {
            let file = self.config.config.display();
            Unusable(format!(
                "{file}: no plugin has a `secret` or `secret_base64` in its config: tokens are signed with HS256 here; \
                 with other keys, sign them where the private key is"
            ))
        })?;
        say!("{}", sign(&settings, &self.user, self.ttl, unix_now() / 1000)?);
        Ok(())
    }
}

/// The table of the first plugin that a secret is configured for.
fn settings(config: &Config) -> Option<Value> {
    let tables = config.plugins.values().map(Config::plugin_json);
    tables.into_iter().find(|table| table.get("secret").is_some() || table.get("secret_base64").is_some())
}

fn sign(settings: &Value, user: &str, ttl: Duration, now: u64) -> anyhow::Result<String> {
    let secret = match (&settings["secret"], &settings["secret_base64"]) {
        (Value::String(secret), _) => secret.clone().into_bytes(),
        (_, Value::String(secret)) => {
            STANDARD.decode(secret).map_err(|error| Unusable(format!("`secret_base64` is not base64: {error}")))?
        }
        _ => return Err(Unusable("`secret` must be a string".to_owned()).into()),
    };
    let user_claim = settings["user_claim"].as_str().unwrap_or("sub");
    let mut claims = json!({ user_claim: user, "iat": now, "exp": now.saturating_add(ttl.as_secs()) });
    for (key, claim) in [("audience", "aud"), ("issuer", "iss")] {
        // Of several that are accepted, one will do.
        let accepted = match &settings[key] {
            Value::Array(list) => list.first().cloned(),
            Value::String(one) => Some(one.clone().into()),
            _ => None,
        };
        if let Some(accepted) = accepted {
            claims[claim] = accepted;
        }
    }
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({ "alg": "HS256", "typ": "JWT" })), encode(&claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret).map_err(|error| Unusable(error.to_string()))?;
    mac.update(signed.as_bytes());
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_claims_that_the_configuration_asks_for() {
        let settings =
            json!({ "secret": "0123456789abcdef0123456789abcdef", "audience": ["chat", "other"], "issuer": "me" });
        let token = sign(&settings, "ann", Duration::from_secs(60), 1000).unwrap();
        let parts: Vec<_> = token.split('.').collect();
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        assert_eq!(claims, json!({ "sub": "ann", "iat": 1000, "exp": 1060, "aud": "chat", "iss": "me" }));
        assert_eq!(parts.len(), 3);
    }
}
