//! Dates and their leeway, audience, issuer, user and attributes.

use serde_json::{Value, json};

use super::support::*;
use crate::claims::Identity;
use crate::rejection::Rejection;

const LEEWAY: u64 = 30;

fn check(settings: Value, changes: Value) -> Result<Identity, Rejection> {
    verify(&config(settings), &token(changes))
}

#[test]
fn a_token_ends_and_the_session_with_it() {
    assert_eq!(check(json!({}), json!({ "exp": NOW_SECONDS + 1 })).unwrap().expiry, Some(NOW + 1000));
    assert_eq!(check(json!({ "leeway": 0 }), json!({ "exp": NOW_SECONDS })), Err(Rejection::Expired));
    assert_eq!(check(json!({ "leeway": 0 }), json!({ "exp": NOW_SECONDS + 1 })).unwrap().expiry, Some(NOW + 1000));
    // A fraction counts, and an exponent is a number like any other.
    assert_eq!(check(json!({}), json!({ "exp": NOW_SECONDS as f64 + 0.5 })).unwrap().expiry, Some(NOW + 500));
    assert_eq!(check(json!({}), json!({ "exp": 1.8e9 })).unwrap().expiry, Some(1_800_000_000_000));
}

#[test]
fn the_leeway_lets_in_until_it_is_over() {
    let within = check(json!({}), json!({ "exp": NOW_SECONDS - LEEWAY + 1 })).unwrap();
    assert_eq!(within.expiry, Some(NOW + 1000), "it ends with the leeway that let it in");
    assert_eq!(check(json!({}), json!({ "exp": NOW_SECONDS })).unwrap().expiry, Some(NOW + LEEWAY * 1000));
    assert_eq!(check(json!({}), json!({ "exp": NOW_SECONDS - LEEWAY })), Err(Rejection::Expired));
    assert_eq!(
        check(json!({ "leeway": 31 }), json!({ "exp": NOW_SECONDS - LEEWAY })).unwrap().expiry,
        Some(NOW + 1000)
    );
    assert_eq!(check(json!({}), json!({ "exp": 0 })), Err(Rejection::Expired));

    check(json!({}), json!({ "nbf": NOW_SECONDS })).unwrap();
    check(json!({}), json!({ "nbf": NOW_SECONDS + LEEWAY })).unwrap();
    assert_eq!(check(json!({}), json!({ "nbf": NOW_SECONDS + LEEWAY + 1 })), Err(Rejection::NotYetValid));
    check(json!({ "leeway": 0 }), json!({ "nbf": NOW_SECONDS })).unwrap();
    assert_eq!(check(json!({ "leeway": 0 }), json!({ "nbf": NOW_SECONDS + 1 })), Err(Rejection::NotYetValid));
}

#[test]
fn a_token_without_an_end_needs_permission() {
    assert_eq!(check(json!({}), json!({ "exp": null })), Err(Rejection::NoExpiry));
    assert_eq!(check(json!({ "require_expiry": false }), json!({ "exp": null })).unwrap().expiry, None);
    // An end that is there counts all the same.
    assert_eq!(check(json!({ "require_expiry": false }), json!({ "exp": NOW_SECONDS - 60 })), Err(Rejection::Expired));
}

#[test]
fn dates_are_seconds() {
    for name in ["exp", "nbf", "iat"] {
        for value in [
            json!("1800000000"),
            json!(true),
            json!([1_800_000_000]),
            json!(-1),
            json!(-0.5),
            // Milliseconds.
            json!(NOW),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1e300),
        ] {
            let result = check(json!({}), json!({ name: value.clone() }));
            assert!(matches!(result, Err(Rejection::Malformed(_))), "{name} = {value}: {result:?}");
        }
    }
    // `null` is not the same as not there. The token is built by hand, because `claims` takes nulls out.
    let mut nulled = claims(json!({}));
    nulled["exp"] = Value::Null;
    let nulled = sign(json!({ "alg": "HS256" }), nulled, hs256(SECRET));
    assert!(matches!(verify(&config(json!({ "require_expiry": false })), &nulled), Err(Rejection::Malformed(_))));
    assert_eq!(check(json!({}), json!({ "exp": 253_402_300_799_u64 })).unwrap().expiry, Some(253_402_300_799_000));
}

#[test]
fn the_audience_must_be_ours() {
    let ours = || json!({ "audience": ["chat", "chat-staging"] });
    check(ours(), json!({ "aud": "chat" })).unwrap();
    check(ours(), json!({ "aud": ["other", "chat-staging"] })).unwrap();
    check(json!({ "audience": "chat" }), json!({ "aud": "chat" })).unwrap();
    for aud in [json!("other"), json!(["other"]), json!([]), json!("Chat"), json!("cha"), json!(1), json!([["chat"]])] {
        assert_eq!(check(ours(), json!({ "aud": aud })), Err(Rejection::Audience));
    }
    assert_eq!(check(ours(), json!({})), Err(Rejection::Audience));
    // RFC 7519, section 4.1.3: a token for somebody is not for a gateway that has no name.
    assert_eq!(check(json!({}), json!({ "aud": "chat" })), Err(Rejection::Audience));
}

#[test]
fn the_issuer_must_be_one_of_ours() {
    let ours = || json!({ "issuer": ["https://a.example/", "https://b.example/"] });
    check(ours(), json!({ "iss": "https://b.example/" })).unwrap();
    for iss in [json!("https://b.example"), json!("https://c.example/"), json!(["https://a.example/"]), json!(1)] {
        assert_eq!(check(ours(), json!({ "iss": iss })), Err(Rejection::Issuer));
    }
    assert_eq!(check(ours(), json!({})), Err(Rejection::Issuer));
    check(json!({}), json!({ "iss": "anybody" })).unwrap();
}

#[test]
fn the_user_has_a_name_of_1_to_255_bytes() {
    assert_eq!(check(json!({}), json!({ "sub": "u".repeat(255) })).unwrap().user.len(), 255);
    assert_eq!(check(json!({}), json!({ "sub": "é".repeat(127) })).unwrap().user.len(), 254);
    for sub in [json!(""), json!("u".repeat(256)), json!("é".repeat(128)), json!(true), json!(1.5), json!(["ada"])] {
        assert_eq!(check(json!({}), json!({ "sub": sub })), Err(Rejection::User));
    }
    assert_eq!(check(json!({}), json!({ "sub": null })), Err(Rejection::User));
    assert_eq!(check(json!({}), json!({ "sub": 42 })).unwrap().user, "42");
    assert_eq!(check(json!({ "user_claim": "name" }), json!({ "name": "Ada" })).unwrap().user, "Ada");
    assert_eq!(check(json!({ "user_claim": "name" }), json!({})), Err(Rejection::User));
}

#[test]
fn claims_become_attributes() {
    let settings = || json!({ "attributes": ["role", "level", "admin", "groups", "absent", "nothing"] });
    let mut all = claims(json!({ "role": "editor", "level": 3, "admin": false, "groups": ["a", "b"], "other": "x" }));
    all["nothing"] = Value::Null;
    let identity = verify(&config(settings()), &sign(json!({ "alg": "HS256" }), all, hs256(SECRET))).unwrap();
    let expected = [("role", "editor"), ("level", "3"), ("admin", "false"), ("groups", r#"["a","b"]"#)];
    assert_eq!(identity.attributes, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

    check(settings(), json!({ "role": "r".repeat(4096) })).unwrap();
    assert_eq!(check(settings(), json!({ "role": "r".repeat(4097) })), Err(Rejection::Attribute));
}

/// What is said of a token is said by its issuer only: the claims of one that is not genuine are not told about.
#[test]
fn the_signature_comes_first() {
    let forged = sign(json!({ "alg": "HS256" }), claims(json!({ "exp": 1 })), hs256("f".repeat(32)));
    assert_eq!(verify(&config(json!({})), &forged), Err(Rejection::Signature));
}
