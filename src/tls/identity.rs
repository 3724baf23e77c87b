//! Which certificate a client is shown: by the names that the certificates themselves have.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::certificate::Facts;
use crate::config::CertificateConfig;

/// A certificate with its key, and what it says.
#[derive(Debug)]
pub struct Identity {
    /// The certificate's file.
    pub file: PathBuf,
    pub facts: Facts,
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Fails where the key is another certificate's, or a file is no PEM.
    pub fn new(config: &CertificateConfig, provider: &CryptoProvider) -> anyhow::Result<Self> {
        let (cert, key) = (config.cert.display(), config.key.display());
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&config.chain.0)
            .collect::<Result<_, _>>()
            .with_context(|| format!("tls: {cert} is no certificate in PEM"))?;
        let first = chain.first().with_context(|| format!("tls: there is no certificate in {cert}"))?;
        let facts = Facts::of(first).with_context(|| format!("tls: the certificate in {cert} cannot be read"))?;
        let secret = PrivateKeyDer::from_pem_slice(&config.secret.0)
            .with_context(|| format!("tls: {key} is no private key in PEM"))?;
        let certified = CertifiedKey::from_der(chain, secret, provider)
            .with_context(|| format!("tls: the key {key} does not fit the certificate {cert}"))?;
        Ok(Self { file: config.cert.clone(), facts, key: Arc::new(certified) })
    }

    /// RFC 6125 section 6.4: a star stands for the whole first label.
    fn is_for(&self, name: &str) -> bool {
        self.facts.dns.iter().any(|known| match known.strip_prefix("*.") {
            Some(parent) => name.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest == parent),
            None => known == name,
        })
    }
}

/// The certificates, in the order of the configuration.
#[derive(Debug)]
pub struct Identities(pub Vec<Identity>);

impl Identities {
    fn choose(&self, name: Option<&str>, can: impl Fn(&Identity) -> bool) -> Option<&Identity> {
        let named = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let mut fitting = self.0.iter().filter(|identity| named.as_deref().is_some_and(|name| identity.is_for(name)));
        // There may be one with each kind of key for the same name.
        fitting.find(|identity| can(identity)).or_else(|| self.0.iter().find(|identity| can(identity)))
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let can = |identity: &Identity| identity.key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.choose(hello.server_name(), can).map(|identity| identity.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::crypto::ring::default_provider;

    use super::*;
    use crate::config::Pem;

    fn identity(names: &[&str]) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
        let config = CertificateConfig {
            cert: names[0].clone().into(),
            key: "key".into(),
            chain: Pem(made.cert.pem().into_bytes()),
            secret: Pem(made.signing_key.serialize_pem().into_bytes()),
        };
        Identity::new(&config, &default_provider()).unwrap()
    }

    #[test]
    fn a_client_gets_what_fits_the_name_it_asks_for() {
        let all = Identities(vec![
            identity(&["first.example"]),
            identity(&["*.example.org", "example.org"]),
            identity(&["api.example.org"]),
        ]);
        let of = |name: Option<&str>| all.choose(name, |_| true).unwrap().file.display().to_string();
        assert_eq!(of(Some("www.EXAMPLE.org")), "*.example.org");
        assert_eq!(of(Some("example.org.")), "*.example.org");
        assert_eq!(of(Some("a.b.example.org")), "first.example");
        assert_eq!(of(Some("evilexample.org")), "first.example");
        assert_eq!(of(Some("api.example.org")), "*.example.org", "the first that fits");
        assert_eq!(of(Some("unknown")), "first.example");
        assert_eq!(of(None), "first.example");
        let not_the_second = |identity: &Identity| identity.file.as_os_str() != "*.example.org";
        let found = all.choose(Some("api.example.org"), not_the_second).unwrap();
        assert_eq!(found.file.as_os_str(), "api.example.org");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let made = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (one, other) = (made("one"), made("other"));
        let (cert, key) = (one.cert.pem(), other.signing_key.serialize_pem());
        let refused = |chain: &str, secret: &str| {
            let pem = |text: &str| Pem(text.as_bytes().to_vec());
            let config =
                CertificateConfig { cert: "a.pem".into(), key: "a.key".into(), chain: pem(chain), secret: pem(secret) };
            format!("{:#}", Identity::new(&config, &default_provider()).unwrap_err())
        };
        assert!(refused(&cert, &key).starts_with("tls: the key a.key does not fit the certificate a.pem"));
        assert!(refused("", &key).starts_with("tls: there is no certificate in a.pem"));
        assert!(refused(&cert, "").starts_with("tls: a.key is no private key in PEM"));
        let half = &cert[..cert.len() / 2];
        assert!(refused(half, &one.signing_key.serialize_pem()).contains("a.pem"));
    }
}
