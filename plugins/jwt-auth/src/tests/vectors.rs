//! The examples of RFC 7515 (appendix A), RFC 7519 (section 3.1) and RFC 8037 (appendix A), as printed there.

use serde_json::json;

use super::support::*;
use crate::rejection::Rejection;
use crate::token::Token;

const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
/// When the `exp` of these examples, 2011-03-22, was an hour away.
const THEN: u64 = (1_300_819_380 - 3600) * 1000;
const HS256_KEY: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

fn hs256_example() -> String {
    format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
}

#[test]
fn rfc_7515_a_1_and_rfc_7519_3_1_hs256() {
    let config = config_of(json!({ "secret_base64": HS256_KEY, "user_claim": "iss", "issuer": "joe",
        "attributes": ["http://example.com/is_root"] }));
    let identity = config.verifier.verify(&hs256_example(), THEN).unwrap();
    assert_eq!(identity.user, "joe");
    assert_eq!(identity.attributes, [("http://example.com/is_root".to_owned(), "true".to_owned())]);
    assert_eq!(identity.expiry, Some(1_300_819_380_000));
    assert_eq!(config.verifier.verify(&hs256_example(), NOW), Err(Rejection::Expired));
}

#[test]
fn rfc_7515_a_2_rs256() {
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJd\
bF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-\
eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let token = format!("eyJhbGciOiJSUzI1NiJ9.{JOE}.{signature}");
    let config = config_of(json!({ "keys": [{ "alg": "RS256", "pem": RSA_PEM }], "user_claim": "iss" }));
    assert_eq!(config.verifier.verify(&token, THEN).unwrap().user, "joe");
    let jwks = json!({ "keys": [{ "kty": "RSA", "n": RSA_N, "e": "AQAB" }] }).to_string();
    let config = config_of(json!({ "jwks": jwks, "user_claim": "iss" }));
    assert_eq!(config.verifier.verify(&token, THEN).unwrap().user, "joe");
}

#[test]
fn rfc_7515_a_3_es256() {
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let token = format!("eyJhbGciOiJFUzI1NiJ9.{JOE}.{signature}");
    let config = config_of(json!({ "keys": [{ "alg": "ES256", "pem": P256_PEM }], "user_claim": "iss" }));
    assert_eq!(config.verifier.verify(&token, THEN).unwrap().user, "joe");
    let jwks = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": P256_X, "y": P256_Y }] }).to_string();
    let config = config_of(json!({ "jwks": jwks, "user_claim": "iss" }));
    assert_eq!(config.verifier.verify(&token, THEN).unwrap().user, "joe");
}

/// The example signs a sentence and not claims, so only the signature can be asked about.
#[test]
fn rfc_8037_a_4_eddsa() {
    let signed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let good =
        format!("{signed}.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg");
    let bad =
        format!("{signed}.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0LAg");
    let jwks = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": ED25519_X }] }).to_string();
    for config in
        [config_of(json!({ "keys": [{ "alg": "EdDSA", "pem": ED25519_PEM }] })), config_of(json!({ "jwks": jwks }))]
    {
        assert_eq!(config.verifier.keys.verify(&Token::parse(&good).unwrap()), Ok(()));
        assert_eq!(config.verifier.keys.verify(&Token::parse(&bad).unwrap()), Err(Rejection::Signature));
        let not_claims =
            Rejection::Malformed("The token's payload is not base64url of one JSON object with unique names");
        assert_eq!(verify(&config, &good), Err(not_claims));
    }
}

/// RFC 7515 A.5 and RFC 7519 6.1: an unsecured token, as printed.
#[test]
fn rfc_7519_6_1_unsecured() {
    let config = config_of(json!({ "secret_base64": HS256_KEY, "user_claim": "iss" }));
    let token = format!("eyJhbGciOiJub25lIn0.{JOE}.");
    assert_eq!(config.verifier.verify(&token, THEN), Err(Rejection::Algorithm));
}

/// Every signature of ours is judged by every bit: the algorithms are bound to all of header, payload and signature.
#[test]
fn no_changed_character_passes() {
    let all = config_of(json!({ "secret": SECRET, "keys": [
        { "alg": "RS256", "pem": RSA_PEM }, { "alg": "ES256", "pem": P256_PEM }, { "alg": "EdDSA", "pem": ED25519_PEM },
    ] }));
    let tokens = [
        sign(json!({ "alg": "HS256" }), claims(json!({})), hs256(SECRET)),
        sign(json!({ "alg": "RS256" }), claims(json!({})), rs256),
        sign(json!({ "alg": "ES256" }), claims(json!({})), es256),
        sign(json!({ "alg": "EdDSA" }), claims(json!({})), ed25519),
        sign(json!({ "alg": "Ed25519" }), claims(json!({})), ed25519),
    ];
    for token in tokens {
        assert_eq!(verify(&all, &token).unwrap().user, "ada", "{token}");
        for at in (0..token.len()).step_by(7).chain(token.len() - 3..token.len()) {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            verify(&all, &changed).expect_err(&changed);
        }
    }
}
