//! The keys that may have signed a token, each for one algorithm and never another.

use std::fmt;

use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use rsa::traits::PublicKeyParts;
use sha2::Sha256;

use crate::rejection::Rejection;
use crate::token::Token;

/// So that a token costs a bounded time: one that does not name its key is tried with no more keys than this.
const MAX_TRIED: usize = 4;
pub(crate) const MAX_KEYS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    pub(crate) const NAMES: &'static str = "HS256, RS256, ES256 or EdDSA";

    /// `Ed25519` is the name that RFC 9864 gives to what `EdDSA` means with such a key.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// A key that has passed the checks of its kind. The variant is the algorithm: there is no way to use one for another.
pub(crate) enum Material {
    Secret(Hmac<Sha256>),
    Rsa(rsa::pkcs1v15::VerifyingKey<rsa::sha2::Sha256>),
    P256(p256::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

/// Keys do not belong into logs, not even by accident.
impl fmt::Debug for Material {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.algorithm().name())
    }
}

impl Material {
    /// A shared secret. RFC 7518, section 3.2, asks for as many bits as the hash has.
    pub(crate) fn secret(secret: &[u8]) -> Result<Self, String> {
        if secret.trim_ascii_start().starts_with(b"-----BEGIN") {
            return Err("holds a PEM key, which is no shared secret: whoever has the public key could sign tokens; \
                 put it into `keys` as `pem`, with its `alg`"
                .to_owned());
        }
        if secret.len() < 32 {
            return Err(format!(
                "is {} bytes long and must have 32 at least: `openssl rand -hex 32` makes a good one",
                secret.len()
            ));
        }
        let mac = Hmac::new_from_slice(secret).map_err(|_| "cannot be used as an HMAC key".to_owned())?;
        Ok(Self::Secret(mac))
    }

    /// An RSA key, from modulus and exponent.
    pub(crate) fn rsa(key: rsa::RsaPublicKey) -> Result<Self, String> {
        let bits = key.n().bits();
        if bits < 2048 {
            return Err(format!("is an RSA key of {bits} bits, which is too weak: use 2048 to 4096"));
        }
        if *key.e() < rsa::BigUint::from(65537_u32) {
            return Err("is an RSA key with a public exponent below 65537, which is too weak".to_owned());
        }
        Ok(Self::Rsa(rsa::pkcs1v15::VerifyingKey::new(key)))
    }

    /// An Ed25519 key, from its 32 bytes.
    pub(crate) fn ed25519(key: ed25519_dalek::VerifyingKey) -> Result<Self, String> {
        if key.is_weak() {
            return Err("is a weak Ed25519 key, under which anything verifies".to_owned());
        }
        Ok(Self::Ed25519(key))
    }

    /// A public key as `openssl pkey -pubout` writes it.
    pub(crate) fn pem(algorithm: Algorithm, pem: &str) -> Result<Self, String> {
        let der = spki(pem)?;
        let wrong = |kind: &str| {
            format!(
                "is not {kind}, which {} needs; `openssl pkey -pubin -noout -text -in FILE` tells what it is",
                algorithm.name()
            )
        };
        match algorithm {
            Algorithm::Hs256 => Err("is a public key, and HS256 needs a shared secret: set `secret` in its place, or \
                 `alg` to what the key is for"
                .to_owned()),
            Algorithm::Rs256 => {
                use rsa::pkcs8::DecodePublicKey;
                Self::rsa(
                    rsa::RsaPublicKey::from_public_key_der(&der)
                        .map_err(|_| wrong("an RSA public key of up to 4096 bits"))?,
                )
            }
            Algorithm::Es256 => {
                use p256::pkcs8::DecodePublicKey;
                let key = p256::ecdsa::VerifyingKey::from_public_key_der(&der);
                Ok(Self::P256(key.map_err(|_| wrong("a P-256 public key"))?))
            }
            Algorithm::EdDsa => {
                use ed25519_dalek::pkcs8::DecodePublicKey;
                Self::ed25519(
                    ed25519_dalek::VerifyingKey::from_public_key_der(&der)
                        .map_err(|_| wrong("an Ed25519 public key"))?,
                )
            }
        }
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Secret(_) => Algorithm::Hs256,
            Self::Rsa(_) => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Secret(mac) => mac.clone().chain_update(signed).verify_slice(signature).is_ok(),
            Self::Rsa(key) => {
                use rsa::signature::Verifier;
                rsa::pkcs1v15::Signature::try_from(signature)
                    .is_ok_and(|signature| key.verify(signed, &signature).is_ok())
            }
            Self::P256(key) => {
                use p256::ecdsa::signature::Verifier;
                p256::ecdsa::Signature::from_slice(signature)
                    .is_ok_and(|signature| key.verify(signed, &signature).is_ok())
            }
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(signed, &signature).is_ok()),
        }
    }
}

/// A key under the name by which tokens ask for it.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) kid: Option<String>,
    pub(crate) material: Material,
}

/// The configured keys. A token's `kid` is compared with theirs and goes nowhere else: no path, no query, no address.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    pub(crate) fn add(&mut self, key: Key) -> Result<(), String> {
        if self.keys.len() == MAX_KEYS {
            return Err(format!("is one key too many: {MAX_KEYS} is the limit, so take out old ones"));
        }
        if let Some(kid) = &key.kid
            && self.keys.iter().any(|other| other.kid == key.kid && other.algorithm() == key.algorithm())
        {
            return Err(format!("is the second {} key named {kid:?}: give each its own `kid`", key.algorithm().name()));
        }
        self.keys.push(key);
        Ok(())
    }

    pub(crate) fn retain(&mut self, allowed: &[Algorithm]) {
        self.keys.retain(|key| allowed.contains(&key.algorithm()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether one of these keys has signed this token.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Result<(), Rejection> {
        let of_algorithm = |key: &&Key| key.algorithm() == token.algorithm;
        let candidates: Vec<&Key> = match &token.kid {
            Some(kid) => {
                let mut named = self.keys.iter().filter(|key| key.kid.as_ref() == Some(kid)).peekable();
                if named.peek().is_none() {
                    return Err(Rejection::UnknownKey);
                }
                named.filter(of_algorithm).collect()
            }
            None => self.keys.iter().filter(of_algorithm).collect(),
        };
        if candidates.is_empty() {
            return Err(Rejection::Algorithm);
        }
        if candidates.len() > MAX_TRIED {
            return Err(Rejection::UnnamedKey);
        }
        let signed = token.signed.as_bytes();
        match candidates.iter().any(|key| key.material.verifies(signed, &token.signature)) {
            true => Ok(()),
            false => Err(Rejection::Signature),
        }
    }
}

impl Key {
    fn algorithm(&self) -> Algorithm {
        self.material.algorithm()
    }
}

/// The DER inside `-----BEGIN PUBLIC KEY-----`.
fn spki(pem: &str) -> Result<Vec<u8>, String> {
    let label = pem.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once("-----"));
    let (label, rest) = label.ok_or("is not PEM: it starts with -----BEGIN PUBLIC KEY-----")?;
    match label {
        "PUBLIC KEY" => {}
        label if label.ends_with("PRIVATE KEY") => {
            return Err("holds a private key, which has no business here: give the public one, which \
                 `openssl pkey -in FILE -pubout` writes"
                .to_owned());
        }
        "RSA PUBLIC KEY" => {
            return Err("is an RSA key in the older PKCS#1 form: `openssl rsa -RSAPublicKey_in -in FILE -pubout` \
                 turns it into what is read here"
                .to_owned());
        }
        "CERTIFICATE" => {
            return Err(
                "is a certificate: `openssl x509 -in FILE -noout -pubkey` takes the public key out of it".to_owned()
            );
        }
        _ => return Err("is not a public key: it starts with -----BEGIN PUBLIC KEY-----".to_owned()),
    }
    let (body, after) =
        rest.split_once("-----END PUBLIC KEY-----").ok_or("is cut off: it ends with -----END PUBLIC KEY-----")?;
    if after.contains("-----BEGIN ") {
        return Err("holds more than one key: give each an entry of its own in `keys`".to_owned());
    }
    let body: String = body.split_ascii_whitespace().collect();
    Base64::decode_vec(&body).map_err(|_| "is not PEM: what stands between its BEGIN and END is not base64".to_owned())
}
