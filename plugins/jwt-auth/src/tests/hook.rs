//! The hook, in a gateway: where the token may be, what a refusal looks like, what the session becomes.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_sdk::Decision;
use tidegate_sdk::testing::{Answer, Gateway, Grants};

use super::support::*;
use crate::JwtAuth;

fn gateway(settings: Value) -> Gateway<JwtAuth> {
    let mut table = json!({ "secret": SECRET });
    for (name, value) in settings.as_object().unwrap() {
        table[name] = value.clone();
    }
    Gateway::new().config(table).grants(granted()).at(NOW)
}

/// What the guide says to grant, and nothing more.
fn granted() -> Grants {
    let headers = ["authorization", "cookie"].map(str::to_owned).to_vec();
    Grants { headers, ..Grants::none() }
}

fn everywhere() -> Gateway<JwtAuth> {
    gateway(json!({ "sources": ["header", "query", "cookie", "subprotocol"] }))
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let [(_, value)] = answer
        .headers
        .iter()
        .filter(|(other, _)| other == name)
        .collect::<Vec<_>>()
        .try_into()
        .expect("one such header");
    value
}

fn body(answer: &Answer) -> &str {
    let (content_type, body) = answer.body.as_ref().expect("a body");
    assert_eq!(content_type, "text/plain; charset=utf-8");
    std::str::from_utf8(body).unwrap()
}

/// Admitted as ada, and nothing else said.
fn admitted(answer: &Answer) {
    assert_eq!((answer.status, answer.user.as_deref()), (101, Some("ada")), "{answer}");
    assert!(answer.headers.is_empty() && answer.body.is_none());
}

fn refused(answer: &Answer, status: u16, code: &str, text: &str) {
    assert_eq!(answer.status, status, "{answer}");
    assert_eq!(header(answer, "WWW-Authenticate"), format!(r#"Bearer error="{code}", error_description="{text}""#));
    assert_eq!(body(answer), format!("{text}.\n"));
    assert!(answer.user.is_none() && answer.expiry.is_none() && answer.attributes.is_empty());
}

#[test]
fn the_token_may_be_in_the_header() {
    let gateway = gateway(json!({}));
    let token = token(json!({}));
    for value in [format!("Bearer {token}"), format!("bearer {token}"), format!("BEARER   {token} ")] {
        admitted(&gateway.connect().header("Authorization", &value).authenticate());
    }
}

#[test]
fn the_token_may_be_in_the_query() {
    admitted(&gateway(json!({})).connect().query("token", &token(json!({}))).authenticate());
    let renamed = gateway(json!({ "query_parameter": "access token" }));
    admitted(&renamed.connect().query("x", "y").query("access token", &token(json!({}))).authenticate());
    assert_eq!(renamed.connect().query("token", &token(json!({}))).authenticate().status, 401);
}

#[test]
fn a_header_that_is_not_granted_holds_no_token() {
    let token = token(json!({}));
    let none = || everywhere().grants(Grants::none());
    let header = none().connect().header("Authorization", &format!("Bearer {token}")).authenticate();
    let cookie = none().connect().cookie("token", &token).authenticate();
    assert_eq!((header.status, cookie.status), (401, 401));
    admitted(&none().connect().query("token", &token).authenticate());
}

#[test]
fn the_token_may_be_in_a_cookie_where_that_is_configured() {
    let token = token(json!({}));
    admitted(&everywhere().connect().header("Cookie", &format!("a=b; token={token}; c=d")).authenticate());
    admitted(&everywhere().connect().cookie("a", "b").cookie("token", &token).authenticate());
    let by_default = gateway(json!({})).connect().cookie("token", &token).authenticate();
    assert_eq!((by_default.status, header(&by_default, "WWW-Authenticate")), (401, "Bearer"));
}

#[test]
fn the_token_may_be_a_subprotocol() {
    let gateway = gateway(json!({}));
    let token = token(json!({}));
    let answer = gateway.connect().subprotocol("bearer").subprotocol(&token).authenticate();
    admitted(&answer);
    assert_eq!(answer.subprotocol.as_deref(), Some("bearer"));
    let among_others = gateway.connect().subprotocol("v1").subprotocol("bearer").subprotocol(&token).subprotocol("v2");
    let answer = among_others.authenticate();
    admitted(&answer);
    assert_eq!(answer.subprotocol.as_deref(), Some("bearer"));
    // A token from elsewhere selects nothing.
    assert_eq!(gateway.connect().query("token", &token).subprotocol("v1").authenticate().subprotocol, None);
    // Without the word before it, it is a subprotocol like any other.
    assert_eq!(header(&gateway.connect().subprotocol(&token).authenticate(), "WWW-Authenticate"), "Bearer");
    let cut_off = gateway.connect().subprotocol("bearer").authenticate();
    refused(&cut_off, 401, "invalid_token", "The token does not have the form header.payload.signature");
    assert_eq!(cut_off.subprotocol, None);
}

#[test]
fn sources_that_are_not_allowed_are_not_read() {
    let token = token(json!({}));
    let only_header = gateway(json!({ "sources": "header" }));
    let answer = only_header.connect().query("token", &token).cookie("token", &token).subprotocol("bearer");
    assert_eq!(header(&answer.subprotocol(&token).authenticate(), "WWW-Authenticate"), "Bearer");
    admitted(
        &only_header.connect().query("token", "x").header("authorization", &format!("Bearer {token}")).authenticate(),
    );
}

#[test]
fn no_token_is_asked_for_one() {
    for connect in [
        gateway(json!({})).connect(),
        gateway(json!({})).connect().header("Authorization", "Basic YWRhOnNlY3JldA=="),
        gateway(json!({})).connect().query("tokens", "x").subprotocol("v1"),
    ] {
        let answer = connect.authenticate();
        assert_eq!(answer.decision, Ok(Decision::Refuse(401)));
        assert_eq!(header(&answer, "WWW-Authenticate"), "Bearer");
        assert_eq!(body(&answer), "A token is needed to come in.\n");
    }
}

#[test]
fn optional_leaves_strangers_to_the_next_plugin_and_liars_out() {
    let gateway = gateway(json!({ "optional": true }));
    let stranger = gateway.connect().authenticate();
    assert_eq!(stranger.decision, Ok(Decision::Pass));
    assert!(stranger.headers.is_empty() && stranger.body.is_none());
    admitted(&gateway.connect().query("token", &token(json!({}))).authenticate());
    let liar = gateway.connect().query("token", &token(json!({ "exp": 1 }))).authenticate();
    refused(&liar, 401, "invalid_token", "The token has expired");
    assert_eq!(gateway.connect().query("token", "").authenticate().decision, Ok(Decision::Refuse(401)));
}

#[test]
fn two_tokens_are_one_too_many() {
    let text = "More than one token was sent; send one, in one place";
    let gateway = everywhere();
    let (ada, eve) = (token(json!({})), token(json!({ "sub": "eve" })));
    let connect = || gateway.connect().query("token", &ada);
    for answer in [
        connect().query("token", &eve).authenticate(),
        connect().query("token", "").authenticate(),
        connect().cookie("token", &eve).authenticate(),
        connect().header("Authorization", &format!("Bearer {eve}")).authenticate(),
        connect().subprotocol("bearer").subprotocol(&eve).authenticate(),
        gateway.connect().cookie("token", &ada).cookie("token", &eve).authenticate(),
    ] {
        refused(&answer, 400, "invalid_request", text);
    }
    admitted(&connect().cookie("token", &ada).header("Authorization", &format!("Bearer {ada}")).authenticate());
    // Two headers reach the plugin as one, which is no token.
    let twice = gateway.connect().header("Authorization", &format!("Bearer {ada}"));
    let twice = twice.header("Authorization", &format!("Bearer {ada}")).authenticate();
    assert_eq!(twice.decision, Ok(Decision::Refuse(401)));
}

#[test]
fn a_refusal_says_why_in_general_terms() {
    let gateway = gateway(json!({ "audience": "chat", "issuer": "us" }));
    let ours = |changes: Value| {
        let mut all = json!({ "aud": "chat", "iss": "us" });
        for (name, value) in changes.as_object().unwrap() {
            all[name] = value.clone();
        }
        token(all)
    };
    admitted(&gateway.connect().query("token", &ours(json!({}))).authenticate());
    let forged = sign(json!({ "alg": "HS256" }), claims(json!({})), hs256("f".repeat(32)));
    let unsigned = sign(json!({ "alg": "none" }), claims(json!({})), |_| Vec::new());
    for (token, text) in [
        (ours(json!({ "exp": NOW_SECONDS - 31 })), "The token has expired"),
        (ours(json!({ "exp": null })), "The token has no expiry time (exp)"),
        (ours(json!({ "nbf": NOW_SECONDS + 31 })), "The token is not yet valid (nbf)"),
        (ours(json!({ "aud": "mail" })), "The token is meant for another audience (aud)"),
        (ours(json!({ "iss": "them" })), "The token's issuer (iss) is not accepted"),
        (ours(json!({ "sub": "" })), "The token does not name a user of 1 to 255 bytes"),
        (forged, "The token's signature is not valid"),
        (unsigned, "The token's algorithm (alg) is not accepted"),
        ("x".repeat(8193), "The token is longer than 8 KiB"),
        ("nonsense".to_owned(), "The token does not have the form header.payload.signature"),
    ] {
        refused(&gateway.connect().query("token", &token).authenticate(), 401, "invalid_token", text);
    }
    assert!(gateway.failures().is_empty());
}

/// Quotes and backslashes would end the header's parameter, or hide its end.
#[test]
fn every_text_fits_into_a_quoted_header_parameter() {
    use crate::rejection::Rejection::*;
    for rejection in [
        SeveralTokens,
        TooLong,
        Extension,
        Type,
        Algorithm,
        UnknownKey,
        UnnamedKey,
        Signature,
        NoExpiry,
        Expired,
        NotYetValid,
        Issuer,
        Audience,
        User,
        Attribute,
    ] {
        let text = rejection.text();
        assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')), "{text}");
    }
}

#[test]
fn the_session_gets_user_attributes_and_expiry() {
    let gateway = gateway(json!({ "attributes": ["role", "groups"] }));
    let token = token(json!({ "role": "editor", "groups": ["a"], "exp": NOW_SECONDS + 60, "secret_claim": "x" }));
    let answer = gateway.connect().query("token", &token).authenticate();
    admitted(&answer);
    assert_eq!(answer.expiry, Some(NOW + 60_000));
    let attributes: Vec<_> = answer.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(attributes, [("groups", r#"["a"]"#), ("role", "editor")]);
}

#[test]
fn the_session_ends_with_its_token() {
    let gateway = gateway(json!({}));
    let token = token(json!({ "exp": NOW_SECONDS + 60 }));
    let ada = gateway.connect().query("token", &token).open().unwrap();
    gateway.advance(Duration::from_millis(59_999));
    assert_eq!(ada.closed(), None);
    gateway.advance(Duration::from_millis(1));
    assert_eq!(ada.closed().map(|close| close.code), Some(3000));
    // The clock is the gateway's: what was good a minute ago is judged anew.
    let late = gateway.connect().query("token", &token).authenticate();
    assert_eq!(late.expiry, Some(NOW + 90_000), "let in by the leeway, until it is over");
    gateway.advance(Duration::from_secs(30));
    refused(&gateway.connect().query("token", &token).authenticate(), 401, "invalid_token", "The token has expired");
}

#[test]
fn a_session_without_an_end_where_that_is_allowed() {
    let gateway = gateway(json!({ "require_expiry": false }));
    let answer = gateway.connect().query("token", &token(json!({ "exp": null }))).authenticate();
    admitted(&answer);
    assert_eq!(answer.expiry, None);
}

#[test]
fn a_bad_configuration_is_no_generation() {
    let start = |table: Value| Gateway::<JwtAuth>::new().config(table).start().unwrap_err().message().to_owned();
    assert!(start(json!({})).contains("no key is configured"));
    assert!(start(json!({ "secret": "short" })).contains("`secret` is 5 bytes long and must have 32 at least"));
    assert!(start(json!({ "secret": SECRET, "leway": 5 })).contains("`leway` is not a setting"));
}
