//! Keys with published private halves (RFC 7515 appendix A, RFC 8037 appendix A), and tokens signed with them.

use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};

use crate::claims::Identity;
use crate::config::Config;
use crate::rejection::Rejection;

/// 2026-01-01, in milliseconds.
pub(crate) const NOW: u64 = 1_767_225_600_000;
pub(crate) const NOW_SECONDS: u64 = NOW / 1000;
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(crate) const RSA_PEM: &str = include_str!("pem/rsa.pem");
pub(crate) const P256_PEM: &str = include_str!("pem/p256.pem");
pub(crate) const ED25519_PEM: &str = include_str!("pem/ed25519.pem");

pub(crate) const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4\
QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2Ca\
pHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RSA_D: &str = "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46su\
i395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4\
ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ";
const RSA_P: &str = "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8\
cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc";
const RSA_Q: &str = "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t\
62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc";
pub(crate) const P256_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
pub(crate) const P256_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const P256_D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";
pub(crate) const ED25519_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const ED25519_D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    Base64UrlUnpadded::encode_string(bytes.as_ref())
}

pub(crate) fn decode(text: &str) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(text).unwrap()
}

pub(crate) fn hs256(secret: impl AsRef<[u8]>) -> impl Fn(&[u8]) -> Vec<u8> {
    let secret = secret.as_ref().to_vec();
    move |signed| {
        let mac = Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
        mac.chain_update(signed).finalize().into_bytes().to_vec()
    }
}

pub(crate) fn rs256(signed: &[u8]) -> Vec<u8> {
    use rsa::signature::{SignatureEncoding, Signer};
    let [n, d, p, q] = [RSA_N, RSA_D, RSA_P, RSA_Q].map(|part| rsa::BigUint::from_bytes_be(&decode(part)));
    let key = rsa::RsaPrivateKey::from_components(n, 65537_u32.into(), d, vec![p, q]).unwrap();
    rsa::pkcs1v15::SigningKey::<rsa::sha2::Sha256>::new(key).sign(signed).to_vec()
}

pub(crate) fn es256(signed: &[u8]) -> Vec<u8> {
    use p256::ecdsa::signature::Signer;
    let key = p256::ecdsa::SigningKey::from_slice(&decode(P256_D)).unwrap();
    let signature: p256::ecdsa::Signature = key.sign(signed);
    signature.to_bytes().to_vec()
}

pub(crate) fn ed25519(signed: &[u8]) -> Vec<u8> {
    use ed25519_dalek::Signer;
    let key = ed25519_dalek::SigningKey::from_bytes(&decode(ED25519_D).try_into().unwrap());
    key.sign(signed).to_bytes().to_vec()
}

/// A token of these texts, which need not be JSON.
pub(crate) fn sign_raw(header: &str, payload: &str, signer: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encode(header), encode(payload));
    let signature = encode(signer(signed.as_bytes()));
    format!("{signed}.{signature}")
}

pub(crate) fn sign(header: Value, claims: Value, signer: impl Fn(&[u8]) -> Vec<u8>) -> String {
    sign_raw(&header.to_string(), &claims.to_string(), signer)
}

/// Claims that every policy of these tests accepts, with these laid over them. Null takes one out.
pub(crate) fn claims(changes: Value) -> Value {
    let mut claims = json!({ "sub": "ada", "exp": NOW_SECONDS + 3600 });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// An HS256 token of ours.
pub(crate) fn token(changes: Value) -> String {
    sign(json!({ "alg": "HS256", "typ": "JWT" }), claims(changes), hs256(SECRET))
}

/// A configuration with the secret of these tests, and with these settings laid over it.
pub(crate) fn config(settings: Value) -> Config {
    let mut table = json!({ "secret": SECRET });
    for (name, value) in settings.as_object().unwrap() {
        table[name] = value.clone();
    }
    Config::read(&table.to_string()).unwrap()
}

/// A configuration with these settings alone.
pub(crate) fn config_of(table: Value) -> Config {
    Config::read(&table.to_string()).unwrap()
}

pub(crate) fn config_error(table: Value) -> String {
    Config::read(&table.to_string()).unwrap_err()
}

pub(crate) fn verify(config: &Config, token: &str) -> Result<Identity, Rejection> {
    config.verifier.verify(token, NOW)
}
