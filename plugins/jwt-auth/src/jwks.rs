//! A JSON Web Key Set (RFC 7517), the form in which identity providers publish their keys.
//!
//! A set serves many readers, so keys of kinds that are not used here are passed over (section 5). Whatever claims to
//! be one of ours and is broken, weak or private is an error instead: it would be missed only when its tokens come.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::Value;

use crate::json::{self, Object};
use crate::keys::{Algorithm, Key, KeySet, Material};

/// Add the keys of this set. Errors name the key by its place.
pub(crate) fn read(text: &str, keys: &mut KeySet) -> Result<(), String> {
    let set = json::object(text.as_bytes())
        .map_err(|error| format!("is not the JSON of a key set, {{\"keys\":[…]}}: {error}"))?;
    let Some(Value::Array(entries)) = set.get("keys") else {
        return Err("has no `keys` list: a key set looks like {\"keys\":[…]}, also with a single key".to_owned());
    };
    let mut used = 0;
    for (index, entry) in entries.iter().enumerate() {
        let at = |error: String| format!("has a key, number {}, that {error}", index + 1);
        let Value::Object(entry) = entry else {
            return Err(at("is not an object".to_owned()));
        };
        if let Some(material) = material(entry).map_err(at)? {
            keys.add(Key { kid: text_of(entry, "kid").map_err(at)?.map(str::to_owned), material }).map_err(at)?;
            used += 1;
        }
    }
    match used {
        0 => Err(format!("holds no signature key for {}", Algorithm::NAMES)),
        _ => Ok(()),
    }
}

/// None: a key for somebody else.
fn material(entry: &Object) -> Result<Option<Material>, String> {
    let algorithm = match (text_of(entry, "kty")?, text_of(entry, "crv")?) {
        (Some("oct"), _) => Algorithm::Hs256,
        (Some("RSA"), _) => Algorithm::Rs256,
        (Some("EC"), Some("P-256")) => Algorithm::Es256,
        (Some("OKP"), Some("Ed25519")) => Algorithm::EdDsa,
        (Some(_), _) => return Ok(None),
        (None, _) => return Err("has no `kty`".to_owned()),
    };
    if text_of(entry, "alg")?.is_some_and(|alg| Algorithm::of_name(alg) != Some(algorithm)) {
        return Ok(None);
    }
    if text_of(entry, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Ok(None);
    }
    if let Some(operations) = entry.get("key_ops") {
        let operations = operations.as_array().ok_or("has a `key_ops` that is not a list")?;
        if !operations.iter().any(|operation| operation == "verify") {
            return Ok(None);
        }
    }
    if algorithm != Algorithm::Hs256 && entry.contains_key("d") {
        return Err("holds a private key (`d`), which has no business here: give the public part alone".to_owned());
    }

    let material = match algorithm {
        Algorithm::Hs256 => Material::secret(&bytes(entry, "k")?),
        Algorithm::Rs256 => {
            let [n, e] = ["n", "e"].map(|name| bytes(entry, name).map(|bytes| rsa::BigUint::from_bytes_be(&bytes)));
            let key = rsa::RsaPublicKey::new(n?, e?)
                .map_err(|error| format!("is not an RSA public key of up to 4096 bits ({error})"))?;
            Material::rsa(key)
        }
        Algorithm::Es256 => {
            let mut point = vec![4];
            point.extend(exactly::<32>(entry, "x")?);
            point.extend(exactly::<32>(entry, "y")?);
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point);
            Ok(Material::P256(key.map_err(|_| "is not a point on the curve P-256")?))
        }
        Algorithm::EdDsa => {
            let key = ed25519_dalek::VerifyingKey::from_bytes(&exactly::<32>(entry, "x")?);
            Material::ed25519(key.map_err(|_| "is not a point on the curve Ed25519")?)
        }
    };
    material.map(Some)
}

fn text_of<'a>(entry: &'a Object, name: &str) -> Result<Option<&'a str>, String> {
    match entry.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("has a `{name}` that is not a string")),
    }
}

fn bytes(entry: &Object, name: &str) -> Result<Vec<u8>, String> {
    let text = text_of(entry, name)?.ok_or_else(|| format!("has no `{name}`"))?;
    Base64UrlUnpadded::decode_vec(text).map_err(|_| format!("has a `{name}` that is not base64url without padding"))
}

fn exactly<const N: usize>(entry: &Object, name: &str) -> Result<[u8; N], String> {
    let bytes = bytes(entry, name)?;
    let length = bytes.len();
    bytes.try_into().map_err(|_| format!("has a `{name}` of {length} bytes where {N} are needed"))
}
