//! What has been used against verifiers of tokens (RFC 8725), and must not work here.

use serde_json::json;

use super::support::*;
use crate::rejection::Rejection;
use crate::token::MAX_BYTES;

fn is_malformed(result: Result<crate::claims::Identity, Rejection>) -> bool {
    matches!(result, Err(Rejection::Malformed(_)))
}

#[test]
fn none_is_no_algorithm_in_any_spelling() {
    let config = config(json!({}));
    for alg in ["none", "None", "NONE", "nOnE", "", " none", "none\u{0}", "hs256", "HS256 ", "HS384", "HS512"] {
        let header = json!({ "alg": alg }).to_string();
        let unsigned = sign_raw(&header, &claims(json!({})).to_string(), |_| Vec::new());
        assert_eq!(verify(&config, &unsigned), Err(Rejection::Algorithm), "{alg}");
        let signed = sign(json!({ "alg": alg }), claims(json!({})), hs256(SECRET));
        assert_eq!(verify(&config, &signed), Err(Rejection::Algorithm), "{alg}");
    }
    for header in [json!({}), json!({ "alg": null }), json!({ "alg": ["HS256"] }), json!({ "alg": 0 })] {
        assert!(is_malformed(verify(&config, &sign(header, claims(json!({})), hs256(SECRET)))));
    }
}

#[test]
fn an_empty_signature_or_secret_does_not_pass() {
    let config = config(json!({}));
    let good = token(json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    assert_eq!(verify(&config, &format!("{signed}.")), Err(Rejection::Signature));
    let empty = sign(json!({ "alg": "HS256" }), claims(json!({})), hs256(""));
    assert_eq!(verify(&config, &empty), Err(Rejection::Signature));
    // All but the last byte of the right one.
    let shortened =
        sign(json!({ "alg": "HS256", "typ": "JWT" }), claims(json!({})), |signed| hs256(SECRET)(signed)[..31].to_vec());
    assert_eq!(verify(&config, &shortened), Err(Rejection::Signature));
}

/// The classic: sign with HS256 and the public key, which everybody has, as the secret.
#[test]
fn a_public_key_is_no_secret() {
    let one = config_of(json!({ "keys": [{ "kid": "a", "alg": "RS256", "pem": RSA_PEM }] }));
    // Also where a shared secret is configured beside it.
    let two = config_of(json!({ "secret": SECRET, "keys": [{ "kid": "a", "alg": "RS256", "pem": RSA_PEM }] }));
    for secret in [RSA_PEM.as_bytes(), RSA_PEM.trim().as_bytes(), decode(RSA_N).as_slice()] {
        for header in [json!({ "alg": "HS256" }), json!({ "alg": "HS256", "kid": "a" })] {
            let forged = sign(header, claims(json!({})), hs256(secret));
            assert_eq!(verify(&one, &forged), Err(Rejection::Algorithm));
            assert!(matches!(verify(&two, &forged), Err(Rejection::Algorithm | Rejection::Signature)));
        }
    }
}

/// A good signature under another of our own algorithms' keys is still not what the named key would have made.
#[test]
fn each_key_is_for_one_algorithm() {
    let config = config_of(json!({ "keys": [
        { "kid": "rsa", "alg": "RS256", "pem": RSA_PEM },
        { "kid": "ec", "alg": "ES256", "pem": P256_PEM },
        { "kid": "ed", "alg": "EdDSA", "pem": ED25519_PEM },
        { "kid": "mac", "alg": "HS256", "secret": SECRET },
    ] }));
    type Signer<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let signers: [(&str, &str, Signer<'_>); 4] = [
        ("rsa", "RS256", &rs256),
        ("ec", "ES256", &es256),
        ("ed", "EdDSA", &ed25519),
        ("mac", "HS256", &hs256(SECRET)),
    ];
    for (own, alg, signer) in signers {
        for (kid, _, _) in signers {
            let result = verify(&config, &sign(json!({ "alg": alg, "kid": kid }), claims(json!({})), signer));
            match kid == own {
                true => assert_eq!(result.unwrap().user, "ada"),
                false => assert_eq!(result, Err(Rejection::Algorithm), "{alg} with key {kid}"),
            }
        }
    }
}

/// Signed by the right key, so that nothing but the `kid` can be the reason.
#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let config = config_of(json!({ "keys": [{ "kid": "2026-01", "alg": "HS256", "secret": SECRET }] }));
    let with = |kid: &str| sign(json!({ "alg": "HS256", "kid": kid }), claims(json!({})), hs256(SECRET));
    assert_eq!(verify(&config, &with("2026-01")).unwrap().user, "ada");
    for kid in [
        "../../../../dev/null",
        "/etc/passwd",
        "x' UNION SELECT '0123456789abcdef0123456789abcdef",
        "2026-01\u{0}",
        "2026-0",
        "2026-01 ",
        "",
        "*",
        "http://attacker.example/jwks.json",
        "$(id)",
    ] {
        assert_eq!(verify(&config, &with(kid)), Err(Rejection::UnknownKey), "{kid}");
    }
    for kid in [json!(null), json!(1), json!(["2026-01"]), json!({ "a": 1 })] {
        let token = sign(json!({ "alg": "HS256", "kid": kid }), claims(json!({})), hs256(SECRET));
        assert!(is_malformed(verify(&config, &token)));
    }
    // What an attacker would have the lookup end in: an empty file as the secret.
    let empty = sign(json!({ "alg": "HS256", "kid": "../../../../dev/null" }), claims(json!({})), hs256(""));
    assert_eq!(verify(&config, &empty), Err(Rejection::UnknownKey));
}

/// A token that brings the key which it was signed with.
#[test]
fn a_key_in_the_header_is_not_looked_at() {
    let config = config_of(json!({ "keys": [{ "alg": "ES256", "pem": P256_PEM }] }));
    let header = json!({
        "alg": "EdDSA", "jwk": { "kty": "OKP", "crv": "Ed25519", "x": ED25519_X },
        "jku": "https://attacker.example/jwks.json", "x5u": "https://attacker.example/cert.pem", "x5c": ["MII="],
    });
    assert_eq!(verify(&config, &sign(header, claims(json!({})), ed25519)), Err(Rejection::Algorithm));
}

#[test]
fn extensions_that_must_be_understood_are_not() {
    let config = config(json!({}));
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!("exp"), json!(null), json!(["alg"])] {
        let header = json!({ "alg": "HS256", "crit": crit, "exp": 1, "b64": false });
        assert_eq!(verify(&config, &sign(header, claims(json!({})), hs256(SECRET))), Err(Rejection::Extension));
    }
}

#[test]
fn tokens_of_another_type_are_for_another_use() {
    let config = config(json!({}));
    let with = |typ: &str| sign(json!({ "alg": "HS256", "typ": typ }), claims(json!({})), hs256(SECRET));
    for typ in ["JWT", "jwt", "at+jwt", "application/at+JWT", "application/jwt"] {
        assert_eq!(verify(&config, &with(typ)).unwrap().user, "ada", "{typ}");
    }
    for typ in ["logout+jwt", "dpop+jwt", "JWE", "", "application/application/jwt"] {
        assert_eq!(verify(&config, &with(typ)), Err(Rejection::Type), "{typ}");
    }
    let config = super::support::config(json!({ "types": ["application/session+jwt"] }));
    assert_eq!(verify(&config, &with("session+jwt")).unwrap().user, "ada");
    assert_eq!(verify(&config, &with("JWT")), Err(Rejection::Type));
}

#[test]
fn too_long_is_refused_unread() {
    let config = config(json!({}));
    let mut padding = MAX_BYTES;
    let fits = loop {
        let candidate = token(json!({ "x": "a".repeat(padding) }));
        if candidate.len() <= MAX_BYTES {
            break candidate;
        }
        padding -= 1;
    };
    assert!(fits.len() > MAX_BYTES - 4);
    assert_eq!(verify(&config, &fits).unwrap().user, "ada");
    let over = token(json!({ "x": "a".repeat(padding + 4) }));
    assert_eq!(verify(&config, &over), Err(Rejection::TooLong));
    assert_eq!(verify(&config, &".".repeat(10_000_000)), Err(Rejection::TooLong));
}

#[test]
fn only_the_compact_form_is_read() {
    let config = config(json!({}));
    let good = token(json!({}));
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    for text in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a".to_owned(),
        format!("{header}.{payload}"),
        format!(".{payload}.{signature}"),
        format!("{header}..{signature}"),
        // A fifth and fourth part, as an encrypted token has.
        format!("{good}.a.b"),
        format!("{good}."),
        format!(".{good}"),
        // Padding, white space, the other alphabet.
        format!("{header}=.{payload}.{signature}"),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{header}.{payload}.{}", signature.replacen(|c: char| c.is_ascii_lowercase(), "+", 1)),
        format!("{header}.{payload}.é{signature}"),
        format!("{header}%2E{payload}.{signature}"),
        // The JSON serialization.
        json!({ "protected": header, "payload": payload, "signature": signature }).to_string(),
    ] {
        assert!(is_malformed(verify(&config, &text)), "{text}");
    }
}

/// Two spellings of one signature would be two tokens for a list of revoked ones.
#[test]
fn stray_bits_at_the_end_are_refused() {
    let config = config(json!({}));
    let good = token(json!({}));
    let last = good.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 32 bytes are 43 characters, the last of which carries four bits and two that must be zero.
    let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    assert!(is_malformed(verify(&config, &format!("{}{next}", &good[..good.len() - 1]))));
}

#[test]
fn json_is_one_object_with_unique_names() {
    let config = config(json!({}));
    let exp = NOW_SECONDS + 3600;
    for payload in [
        String::new(),
        "null".to_owned(),
        "[]".to_owned(),
        "\"ada\"".to_owned(),
        "{".to_owned(),
        format!(r#"{{"sub":"ada","exp":{exp}}} x"#),
        format!(r#"{{"sub":"ada","exp":{exp}}}{{}}"#),
        format!(r#"{{"sub":"ada","sub":"eve","exp":{exp}}}"#),
        format!(r#"{{"sub":"ada","s\u0075b":"eve","exp":{exp}}}"#),
        format!(r#"{{"sub":"ada","exp":1,"exp":{exp}}}"#),
        format!(r#"{{"sub":"ada","exp":{exp},"deep":[{{"a":{{"b":1,"b":2}}}}]}}"#),
        format!(r#"{{"sub":"ada","exp":{exp},"deep":{}1{}}}"#, "[".repeat(1000), "]".repeat(1000)),
        format!(r#"{{"sub":"ada","exp":{exp},}}"#),
        format!("{{\"sub\":\"a\nb\",\"exp\":{exp}}}"),
    ] {
        let token = sign_raw(r#"{"alg":"HS256"}"#, &payload, hs256(SECRET));
        assert!(is_malformed(verify(&config, &token)), "{payload}");
    }
    for header in [
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
        r#"{"alg":"HS256"}{"alg":"HS256"}"#,
        r#"["HS256"]"#,
        r#""HS256""#,
        "\u{feff}{\"alg\":\"HS256\"}",
    ] {
        let token = sign_raw(header, &claims(json!({})).to_string(), hs256(SECRET));
        assert!(is_malformed(verify(&config, &token)), "{header}");
    }
    // Bytes that are not UTF-8.
    let signed = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(b"{\"sub\":\"\xff\",\"exp\":9999999999}"));
    let token = format!("{signed}.{}", encode(hs256(SECRET)(signed.as_bytes())));
    assert!(is_malformed(verify(&config, &token)));
}

/// Encoded as DER, as most tools write ECDSA signatures, or with a number that is no signature at all (CVE-2022-21449).
#[test]
fn ecdsa_signatures_are_two_numbers_of_the_curve() {
    let config = config_of(json!({ "keys": [{ "alg": "ES256", "pem": P256_PEM }] }));
    let der = |signed: &[u8]| {
        let signature = es256(signed);
        let [r, s] = [&signature[..32], &signature[32..]].map(|number| {
            let pad = number[0] >> 7;
            let mut integer = vec![2, 32 + pad];
            integer.resize(2 + usize::from(pad), 0);
            integer.extend(number);
            integer
        });
        let mut der = vec![0x30, (r.len() + s.len()) as u8];
        der.extend(r);
        der.extend(s);
        der
    };
    let header = json!({ "alg": "ES256" });
    assert_eq!(verify(&config, &sign(header.clone(), claims(json!({})), der)), Err(Rejection::Signature));
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    for bytes in [vec![0; 64], [order, order].concat(), vec![0xff; 64], Vec::new(), vec![1; 63], vec![1; 65]] {
        let token = sign(header.clone(), claims(json!({})), |_| bytes.clone());
        assert_eq!(verify(&config, &token), Err(Rejection::Signature));
    }
}

/// Lengths and values that arithmetic alone might accept.
#[test]
fn rsa_and_eddsa_signatures_have_one_form() {
    let config = config_of(json!({ "keys": [
        { "alg": "RS256", "pem": RSA_PEM }, { "alg": "EdDSA", "pem": ED25519_PEM },
    ] }));
    let modulus = decode(RSA_N);
    let with_zero = |signed: &[u8]| [vec![0], rs256(signed)].concat();
    let plus_modulus = |signed: &[u8]| {
        let sum = rsa::BigUint::from_bytes_be(&rs256(signed)) + rsa::BigUint::from_bytes_be(&modulus);
        sum.to_bytes_be()
    };
    let header = json!({ "alg": "RS256" });
    assert_eq!(verify(&config, &sign(header.clone(), claims(json!({})), with_zero)), Err(Rejection::Signature));
    assert_eq!(verify(&config, &sign(header.clone(), claims(json!({})), plus_modulus)), Err(Rejection::Signature));
    for bytes in [Vec::new(), vec![0; 256], vec![1; 256], vec![0xff; 256], modulus.clone()] {
        let token = sign(header.clone(), claims(json!({})), |_| bytes.clone());
        assert_eq!(verify(&config, &token), Err(Rejection::Signature));
    }

    // s + L: the malleability that RFC 8032, section 5.1.7, forbids.
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let malleated = |signed: &[u8]| {
        let mut signature = ed25519(signed);
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + add + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        signature
    };
    let header = json!({ "alg": "EdDSA" });
    assert_eq!(verify(&config, &sign(header.clone(), claims(json!({})), malleated)), Err(Rejection::Signature));
    for bytes in [Vec::new(), vec![0; 64], vec![0xff; 64], vec![1; 63]] {
        let token = sign(header.clone(), claims(json!({})), |_| bytes.clone());
        assert_eq!(verify(&config, &token), Err(Rejection::Signature));
    }
}

/// Nothing that a stranger sends may end in a panic: cut tokens, and bytes of a fixed pseudo-random sequence.
#[test]
fn garbage_is_refused_quietly() {
    let config = config_of(json!({ "secret": SECRET, "keys": [
        { "alg": "RS256", "pem": RSA_PEM }, { "alg": "ES256", "pem": P256_PEM }, { "alg": "EdDSA", "pem": ED25519_PEM },
    ] }));
    let good = token(json!({}));
    for end in 0..good.len() {
        verify(&config, &good[..end]).unwrap_err();
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for alg in ["HS256", "RS256", "ES256", "EdDSA"] {
        for _ in 0..200 {
            let bytes: Vec<u8> = (0..next() % 300).map(|_| next() as u8).collect();
            let token = sign(json!({ "alg": alg }), claims(json!({})), |_| bytes.clone());
            assert_eq!(verify(&config, &token), Err(Rejection::Signature));
            let text = String::from_utf8_lossy(&bytes).into_owned();
            verify(&config, &text).unwrap_err();
        }
    }
}
