//! Keys: which are taken, which are refused, and how a token finds its own.

use serde_json::{Value, json};

use super::support::*;
use crate::keys::MAX_KEYS;
use crate::rejection::Rejection;

/// From RFC 7517, appendix A.1: a key whose private half is not at hand here.
const OTHER_RSA_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRX\
jBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQ\
vRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

fn jwks(keys: Value) -> Value {
    json!({ "jwks": json!({ "keys": keys }).to_string() })
}

fn rsa_jwk(kid: &str) -> Value {
    json!({ "kty": "RSA", "kid": kid, "n": RSA_N, "e": "AQAB", "alg": "RS256", "use": "sig" })
}

fn with_kid(kid: &str, signer: impl Fn(&[u8]) -> Vec<u8>, alg: &str) -> String {
    sign(json!({ "alg": alg, "kid": kid }), claims(json!({})), signer)
}

#[test]
fn a_key_set_serves_several_keys() {
    let config = config_of(jwks(json!([
        { "kty": "RSA", "kid": "old", "n": OTHER_RSA_N, "e": "AQAB" },
        rsa_jwk("new"),
        { "kty": "EC", "crv": "P-256", "kid": "ec", "x": P256_X, "y": P256_Y, "alg": "ES256", "key_ops": ["verify"] },
        { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": ED25519_X, "alg": "Ed25519" },
        { "kty": "oct", "kid": "mac", "k": encode(SECRET) },
    ])));
    verify(&config, &with_kid("new", rs256, "RS256")).unwrap();
    verify(&config, &with_kid("ec", es256, "ES256")).unwrap();
    verify(&config, &with_kid("ed", ed25519, "EdDSA")).unwrap();
    verify(&config, &with_kid("mac", hs256(SECRET), "HS256")).unwrap();
    assert_eq!(verify(&config, &with_kid("old", rs256, "RS256")), Err(Rejection::Signature));
    assert_eq!(verify(&config, &with_kid("newer", rs256, "RS256")), Err(Rejection::UnknownKey));
    // Without a name, each key of the algorithm is tried.
    verify(&config, &sign(json!({ "alg": "RS256" }), claims(json!({})), rs256)).unwrap();
}

#[test]
fn keys_for_others_are_passed_over() {
    let config = config_of(jwks(json!([
        { "kty": "FUTURE", "kid": "a", "n": 1 },
        { "kty": "EC", "crv": "P-384", "kid": "b", "x": "AA", "y": "AA" },
        { "kty": "OKP", "crv": "X25519", "kid": "c", "x": ED25519_X },
        { "kty": "RSA", "kid": "d", "alg": "RS512", "n": RSA_N, "e": "AQAB" },
        { "kty": "RSA", "kid": "e", "alg": "RSA-OAEP", "use": "enc", "n": RSA_N, "e": "AQAB" },
        { "kty": "RSA", "kid": "f", "use": "enc", "n": RSA_N, "e": "AQAB" },
        { "kty": "RSA", "kid": "g", "key_ops": ["encrypt"], "n": RSA_N, "e": "AQAB" },
        rsa_jwk("ours"),
    ])));
    verify(&config, &with_kid("ours", rs256, "RS256")).unwrap();
    for kid in ["a", "b", "c", "d", "e", "f", "g"] {
        assert_eq!(verify(&config, &with_kid(kid, rs256, "RS256")), Err(Rejection::UnknownKey), "{kid}");
    }
}

#[test]
fn a_bad_key_set_is_named() {
    let weak_n = encode([[0xc3; 127].as_slice(), &[1]].concat());
    let cases = [
        (json!({ "jwks": "nonsense" }), "is not the JSON of a key set"),
        (json!({ "jwks": r#"{"keys":[],"keys":[]}"# }), "named twice"),
        (json!({ "jwks": "{}" }), "has no `keys` list"),
        (json!({ "jwks": rsa_jwk("a").to_string() }), "also with a single key"),
        (jwks(json!([])), "holds no signature key for HS256, RS256, ES256 or EdDSA"),
        (jwks(json!([{ "kty": "FUTURE" }])), "holds no signature key"),
        (jwks(json!([1])), "a key, number 1, that is not an object"),
        (jwks(json!([{}])), "number 1, that has no `kty`"),
        (jwks(json!([{ "kty": 1 }])), "`kty` that is not a string"),
        (jwks(json!([rsa_jwk("a"), rsa_jwk("a")])), "number 2, that is the second RS256 key named \"a\""),
        (jwks(json!([{ "kty": "RSA", "e": "AQAB" }])), "has no `n`"),
        (jwks(json!([{ "kty": "RSA", "n": "!", "e": "AQAB" }])), "`n` that is not base64url"),
        (jwks(json!([{ "kty": "RSA", "n": weak_n, "e": "AQAB" }])), "RSA key of 1024 bits, which is too weak"),
        (jwks(json!([{ "kty": "RSA", "n": RSA_N, "e": "Aw" }])), "public exponent below 65537"),
        (jwks(json!([{ "kty": "RSA", "n": RSA_N, "e": "AA" }])), "is not an RSA public key"),
        (jwks(json!([{ "kty": "RSA", "n": RSA_N, "e": "AQAB", "d": "AQ" }])), "holds a private key (`d`)"),
        (jwks(json!([{ "kty": "EC", "crv": "P-256", "x": P256_X, "y": P256_X }])), "not a point on the curve P-256"),
        (jwks(json!([{ "kty": "EC", "crv": "P-256", "x": "AA", "y": P256_Y }])), "`x` of 1 bytes where 32 are needed"),
        (jwks(json!([{ "kty": "OKP", "crv": "Ed25519", "x": "AA" }])), "`x` of 1 bytes where 32 are needed"),
        (jwks(json!([{ "kty": "OKP", "crv": "Ed25519", "x": encode([[1].as_slice(), &[0; 31]].concat()) }])), "weak"),
        (jwks(json!([{ "kty": "oct", "k": encode("short") }])), "is 5 bytes long and must have 32 at least"),
        (jwks(json!([{ "kty": "RSA", "kid": 1, "n": RSA_N, "e": "AQAB" }])), "`kid` that is not a string"),
        (jwks(json!([{ "kty": "RSA", "key_ops": "verify", "n": RSA_N, "e": "AQAB" }])), "`key_ops` that is not a list"),
    ];
    for (table, part) in cases {
        let error = config_error(table);
        assert!(error.starts_with("`jwks` ") && error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_bad_pem_is_named_with_its_cure() {
    let entry = |alg: &str, pem: &str| json!({ "keys": [{ "kid": "a", "alg": alg, "pem": pem }] });
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let two = format!("{P256_PEM}{P256_PEM}");
    let cases = [
        (entry("RS256", ""), "is not PEM"),
        (entry("RS256", "key.pem"), "starts with -----BEGIN PUBLIC KEY-----"),
        (entry("RS256", private), "openssl pkey -in FILE -pubout"),
        (entry("RS256", &private.replace("PRIVATE", "EC PRIVATE")), "holds a private key"),
        (entry("RS256", include_str!("pem/rsa-pkcs1.pem")), "openssl rsa -RSAPublicKey_in"),
        (entry("RS256", "-----BEGIN CERTIFICATE-----\n"), "openssl x509 -in FILE -noout -pubkey"),
        (entry("RS256", "-----BEGIN DH PARAMETERS-----\n"), "is not a public key"),
        (entry("RS256", &RSA_PEM[..200]), "is cut off"),
        (entry("RS256", &RSA_PEM.replacen("MII", "M!I", 1)), "is not base64"),
        (entry("RS256", &RSA_PEM.replacen("MIIB", "MIIC", 1)), "is not an RSA public key"),
        (entry("ES256", &two), "holds more than one key"),
        (entry("RS256", include_str!("pem/rsa-1024.pem")), "RSA key of 1024 bits, which is too weak"),
        (entry("RS256", include_str!("pem/rsa-exponent-3.pem")), "public exponent below 65537"),
        (entry("RS256", include_str!("pem/rsa-8192.pem")), "is not an RSA public key of up to 4096 bits"),
        (entry("RS256", P256_PEM), "is not an RSA public key"),
        (entry("ES256", RSA_PEM), "is not a P-256 public key, which ES256 needs"),
        (entry("ES256", include_str!("pem/p384.pem")), "is not a P-256 public key"),
        (entry("ES256", ED25519_PEM), "is not a P-256 public key"),
        (entry("EdDSA", P256_PEM), "is not an Ed25519 public key"),
        (entry("HS256", RSA_PEM), "HS256 needs a shared secret"),
    ];
    for (table, part) in cases {
        let error = config_error(table);
        assert!(error.starts_with("`keys[0].pem` ") && error.contains(part), "{part}: {error}");
    }
    // Line ends of the other system, text around the key and a lost line break do no harm.
    let crlf = format!("my key\r\n{}\r\n", P256_PEM.replace('\n', "\r\n"));
    for pem in [crlf, P256_PEM.replace('\n', ""), P256_PEM.replace('\n', " ")] {
        let config = config_of(entry("ES256", &pem));
        verify(&config, &with_kid("a", es256, "ES256")).unwrap();
    }
}

#[test]
fn a_secret_is_long_and_no_public_key() {
    let short = config_error(json!({ "secret": "0123456789abcdef0123456789abcde" }));
    assert!(short.starts_with("`secret` is 31 bytes long and must have 32 at least: `openssl rand"), "{short}");
    assert!(!short.contains("0123456789"), "an error is no place for a secret");
    assert!(config_error(json!({ "secret": "" })).contains("0 bytes"));
    assert!(config_error(json!({ "secret": RSA_PEM })).contains("holds a PEM key"));
    assert!(config_error(json!({ "secret": format!("\n{RSA_PEM}") })).contains("holds a PEM key"));
    assert!(config_error(json!({ "secret_base64": "c2hvcnQ=" })).starts_with("`secret_base64` is 5 bytes"));
    assert!(config_error(json!({ "secret_base64": "?" })).contains("is not base64"));
    assert!(config_error(json!({ "secret": SECRET, "secret_base64": "AA" })).contains("are both set"));
}

#[test]
fn a_secret_may_be_base64_of_any_spelling() {
    let secret = [0xfb, 0xff].repeat(17);
    let token = sign(json!({ "alg": "HS256" }), claims(json!({})), hs256(&secret));
    let url = encode(&secret);
    let plain = url.replace('-', "+").replace('_', "/");
    assert!(url != plain && secret.len() % 3 != 0);
    for spelling in [url.clone(), plain.clone(), format!("{url}=="), format!("{plain}==\n")] {
        assert_eq!(verify(&config_of(json!({ "secret_base64": spelling })), &token).unwrap().user, "ada");
    }
}

#[test]
fn secrets_can_be_rotated() {
    let second = "fedcba9876543210fedcba9876543210";
    let config = config_of(json!({ "secret": SECRET, "keys": [{ "alg": "HS256", "secret": second }] }));
    for secret in [SECRET, second] {
        verify(&config, &sign(json!({ "alg": "HS256" }), claims(json!({})), hs256(secret))).unwrap();
    }
    // A key without a name answers to none: a name is a promise about which key it is.
    assert_eq!(verify(&config, &with_kid("a", hs256(SECRET), "HS256")), Err(Rejection::UnknownKey));
}

#[test]
fn the_work_for_a_token_is_bounded() {
    let keys = |count: usize| {
        let keys: Vec<Value> = (0..count).map(|index| rsa_jwk(&format!("key-{index}"))).collect();
        jwks(Value::Array(keys))
    };
    let unnamed = sign(json!({ "alg": "RS256" }), claims(json!({})), rs256);
    verify(&config_of(keys(4)), &unnamed).unwrap();
    let many = config_of(keys(MAX_KEYS));
    assert_eq!(verify(&many, &unnamed), Err(Rejection::UnnamedKey));
    verify(&many, &with_kid("key-63", rs256, "RS256")).unwrap();
    assert!(config_error(keys(MAX_KEYS + 1)).contains("one key too many: 64 is the limit"));
}

#[test]
fn keys_are_not_printed() {
    let config = config_of(json!({ "secret": SECRET, "keys": [{ "alg": "ES256", "pem": P256_PEM }] }));
    let printed = format!("{config:?}");
    assert!(printed.contains("material: HS256") && printed.contains("material: ES256"), "{printed}");
    assert!(!printed.contains("0123"), "{printed}");
}
