//! Settings: their defaults, and the errors that name a setting and its cure.

use serde_json::json;

use super::support::*;
use crate::config::Config;
use crate::rejection::Rejection;
use crate::sources::Source;

#[test]
fn defaults() {
    let config = config(json!({}));
    assert_eq!(config.sources.allowed, [Source::Header, Source::Query, Source::Subprotocol]);
    assert_eq!(config.sources.query_parameter, "token");
    assert_eq!(config.sources.cookie, "token");
    assert_eq!(config.sources.subprotocol, "bearer");
    assert!(!config.optional);
    let policy = config.verifier.policy;
    assert_eq!((policy.leeway, policy.require_expiry, policy.user_claim.as_str()), (30_000, true, "sub"));
    assert!(policy.audience.is_empty() && policy.issuer.is_empty() && policy.attributes.is_empty());
}

#[test]
fn every_setting_arrives() {
    let config = config(json!({
        "sources": ["cookie", "header"], "query_parameter": "q", "cookie": "c", "subprotocol": "s", "optional": true,
        "leeway": 5, "require_expiry": false, "user_claim": "name", "attributes": ["role"], "audience": "a", "issuer": ["i"],
    }));
    assert_eq!(config.sources.allowed, [Source::Cookie, Source::Header]);
    let sources = config.sources;
    assert_eq!([sources.query_parameter, sources.cookie, sources.subprotocol], ["q", "c", "s"]);
    assert!(config.optional);
    let policy = config.verifier.policy;
    assert_eq!((policy.leeway, policy.require_expiry, policy.user_claim.as_str()), (5000, false, "name"));
    assert_eq!([policy.audience, policy.issuer, policy.attributes], [["a"], ["i"], ["role"]]);
}

#[test]
fn algorithms_narrow_the_keys() {
    let table = |algorithms: serde_json::Value| json!({ "secret": SECRET, "keys": [{ "alg": "ES256", "pem": P256_PEM }], "algorithms": algorithms });
    let config = config_of(table(json!(["ES256"])));
    assert_eq!(verify(&config, &token(json!({}))), Err(Rejection::Algorithm));
    verify(&config, &sign(json!({ "alg": "ES256" }), claims(json!({})), es256)).unwrap();
    let none = config_error(table(json!(["RS256"])));
    assert_eq!(none, "`algorithms` allows none of the configured keys; take the line out to allow all");
    assert!(config_error(table(json!(["none"]))).contains("would let everybody in"));
    assert!(config_error(table(json!(["HS512"]))).contains("use HS256, RS256, ES256 or EdDSA"));
    assert!(config_error(table(json!([]))).contains("is an empty list"));
}

#[test]
fn mistakes_are_named() {
    let cases = [
        (json!({}), "no key is configured"),
        (json!({ "secret": SECRET, "secert": "x" }), "`secert` is not a setting of this plugin; there are secret, "),
        (json!({ "secret": 5 }), "`secret` is a number; write secret = \"…\""),
        (json!({ "keys": {} }), "`keys` is a table; write keys = [{ … }]"),
        (json!({ "keys": ["x"] }), "`keys[0]` is a string and must be a table"),
        (json!({ "keys": [{ "pem": P256_PEM }] }), "`keys[0].alg` is missing"),
        (json!({ "keys": [{ "alg": "PS256", "pem": P256_PEM }] }), "`keys[0].alg` names \"PS256\""),
        (json!({ "keys": [{ "alg": "none" }] }), "`keys[0].alg` names `none`"),
        (json!({ "keys": [{ "alg": "ES256" }] }), "`keys[0].pem` is missing"),
        (json!({ "keys": [{ "alg": "HS256" }] }), "`keys[0].secret` is missing"),
        (json!({ "keys": [{ "alg": "ES256", "secret": SECRET }] }), "`keys[0].secret` is for HS256"),
        (
            json!({ "keys": [{ "alg": "ES256", "pem": P256_PEM, "secret": SECRET }] }),
            "`keys[0].pem` and `secret` are both",
        ),
        (json!({ "keys": [{ "alg": "ES256", "pem": P256_PEM, "kidd": "a" }] }), "`keys[0].kidd` is not a setting"),
        (json!({ "keys": [{ "alg": "ES256", "pem": P256_PEM, "kid": "" }] }), "`keys[0].kid` is empty"),
        (json!({ "jwks": { "keys": [] } }), "`jwks` is a table"),
        (json!({ "secret": SECRET, "leeway": -1 }), "`leeway` is -1; write a whole number: leeway = 30"),
        (json!({ "secret": SECRET, "leeway": "30s" }), "`leeway` is \"30s\""),
        (json!({ "secret": SECRET, "leeway": 601 }), "`leeway` is 601 seconds and may be 600 at most"),
        (
            json!({ "secret": SECRET, "require_expiry": "no" }),
            "`require_expiry` is a string; write require_expiry = false",
        ),
        (json!({ "secret": SECRET, "optional": 1 }), "`optional` is a number; write optional = true"),
        (json!({ "secret": SECRET, "sources": ["headers"] }), "`sources` names \"headers\""),
        (json!({ "secret": SECRET, "audience": [1] }), "`audience` holds a number"),
        (json!({ "secret": SECRET, "audience": "" }), "`audience` holds an empty string"),
        (json!({ "secret": SECRET, "issuer": [] }), "`issuer` is an empty list"),
        (json!({ "secret": SECRET, "cookie": "" }), "`cookie` is empty"),
        (json!({ "secret": SECRET, "attributes": ["a".repeat(65)] }), "names of up to 64 bytes"),
        (json!({ "secret": SECRET, "attributes": vec!["a"; 65] }), "more than the 64 attributes"),
    ];
    for (table, part) in cases {
        let error = config_error(table.clone());
        assert!(error.contains(part), "{table}: {error}");
    }
    let same = json!({ "kid": "a", "alg": "ES256", "pem": P256_PEM });
    let error = config_error(json!({ "keys": [same, same] }));
    assert!(error.starts_with("`keys[1].pem` is the second ES256 key named \"a\""), "{error}");
    assert!(Config::read("[]").unwrap_err().contains("is not a table"));
}
