//! What an X.509 certificate says, for whoever decides by it: names in the forms that can be compared.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

/// Bytes of a certificate, at most: what is larger is not looked into.
const BYTES: usize = 64 << 10;
/// Names that a certificate is said to have, at most.
const NAMES: usize = 128;

/// The certificate that a client has shown and that was verified, as it came: DER.
#[derive(Clone)]
pub struct ClientCertificate(pub Arc<[u8]>);

/// What a certificate says of its subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// As RFC 4514 writes it: the last part first, with what could be mistaken for structure escaped.
    pub subject: String,
    /// The subject's alternative names.
    pub dns: Vec<String>,
    pub uris: Vec<String>,
    pub emails: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// The workload's identity, if the certificate has exactly one URI and it is one.
    pub spiffe: Option<String>,
    /// Unix time in seconds.
    pub not_before: i64,
    pub not_after: i64,
}

impl Facts {
    /// None: this cannot be read.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der.get(..BYTES).map_or(Some(der), |_| None)?).ok()?;
        let mut facts = Self {
            subject: subject(certificate.subject())?,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            ..Self::default()
        };
        // A second extension of the kind makes the certificate malformed.
        let names = certificate.subject_alternative_name().ok()?;
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        if names.len() > NAMES {
            return None;
        }
        for name in names {
            match name {
                GeneralName::DNSName(name) => facts.dns.push(name.to_ascii_lowercase()),
                GeneralName::URI(uri) => facts.uris.push((*uri).to_owned()),
                GeneralName::RFC822Name(email) => facts.emails.push((*email).to_owned()),
                GeneralName::IPAddress(bytes) => facts.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        // More than one URI makes it no SPIFFE certificate (X509-SVID section 2).
        facts.spiffe = match &facts.uris[..] {
            [uri] if is_spiffe(uri) => Some(uri.clone()),
            _ => None,
        };
        Some(facts)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// SPIFFE-ID sections 2 and 2.1 to 2.3: a trust domain in lower case, a path without empty, `.` and `..` segments.
fn is_spiffe(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("spiffe://").filter(|_| uri.len() <= 2_048) else { return false };
    let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    let segment = |segment: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        !matches!(segment, "" | "." | "..") && segment.bytes().all(fits)
    };
    (1..=255).contains(&domain.len())
        && domain.bytes().all(fits)
        && path.strip_prefix('/').is_none_or(|path| path.split('/').all(segment))
}

/// RFC 4514 section 2.
fn subject(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.iter_rdn() {
        let mut text = String::new();
        for attribute in part.iter() {
            if !text.is_empty() {
                text.push('+');
            }
            let oid = attribute.attr_type();
            match oid2abbrev(oid, oid_registry()) {
                Ok(short) => text.push_str(short),
                Err(_) => text.push_str(&oid.to_id_string()),
            }
            text.push('=');
            match attribute.as_str() {
                Ok(value) => escape(value, &mut text),
                Err(_) => {
                    text.push('#');
                    for byte in attribute.as_slice() {
                        write!(text, "{byte:02x}").ok()?;
                    }
                }
            }
        }
        parts.push(text);
    }
    parts.reverse();
    Some(parts.join(","))
}

/// RFC 4514 section 2.4, and control characters too, which have no business in a log.
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => text.extend(['\\', c]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(text, "\\{byte:02x}");
                }
            }
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn a_certificate_says_who_its_subject_is() {
        let der = made(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "Tide, Ltd.");
            params.distinguished_name.push(DnType::CommonName, "#ann = admin\u{0} ");
            params.subject_alt_names = vec![
                SanType::DnsName("Ann.example.org".try_into().unwrap()),
                SanType::Rfc822Name("ann@example.org".try_into().unwrap()),
                SanType::IpAddress("192.0.2.7".parse().unwrap()),
                SanType::IpAddress("2001:db8::7".parse().unwrap()),
                uri("spiffe://example.org/ns/a/sa/ann"),
            ];
        });
        let facts = Facts::of(&der).unwrap();
        assert_eq!(facts.subject, "CN=\\#ann \\= admin\\00\\ ,O=Tide\\, Ltd.");
        assert_eq!((facts.dns, facts.emails), (vec!["ann.example.org".to_owned()], vec!["ann@example.org".to_owned()]));
        let addresses: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        assert_eq!(facts.addresses, addresses);
        assert_eq!(facts.spiffe.as_deref(), Some("spiffe://example.org/ns/a/sa/ann"));
        assert!(facts.not_before < facts.not_after);
    }

    #[test]
    fn a_spiffe_id_is_the_only_uri_and_well_formed() {
        let of = |uris: &[&str]| {
            let der = made(|params| params.subject_alt_names = uris.iter().map(|text| uri(text)).collect());
            Facts::of(&der).unwrap().spiffe
        };
        assert_eq!(of(&["spiffe://td/a"]).as_deref(), Some("spiffe://td/a"));
        assert_eq!(of(&["spiffe://td"]).as_deref(), Some("spiffe://td"));
        assert_eq!(of(&["spiffe://td/a", "https://example.org"]), None);
        for wrong in [
            "https://td/a",
            "spiffe:///a",
            "spiffe://TD/a",
            "spiffe://td/",
            "spiffe://td//a",
            "spiffe://td/../a",
            "spiffe://td/a?b",
            "spiffe://u@td/a",
            "spiffe://td:1/a",
        ] {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        let der = made(|params| params.subject_alt_names = vec![uri("spiffe://td/a")]);
        assert_eq!(Facts::of(&[]), None);
        assert_eq!(Facts::of(&vec![0x30; BYTES + 1]), None);
        for end in 0..der.len() {
            assert_eq!(Facts::of(&der[..end]), None, "{end}");
        }
        // Whatever is changed, there is an answer.
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 0xff;
            let _ = Facts::of(&changed);
        }
    }
}
