//! `[tls]`: the certificates that clients are shown, and which they must show.

use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::load::{ConfigError, Source};
use super::{Config, Span, seconds};

/// Bytes of a PEM file, at most.
const PEM_BYTES: u64 = 1 << 20;

/// TLS towards clients. Without this table the gateway speaks plain HTTP, and TLS is left to what stands in front.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// An address of its own; `listen` stays plain then. Absent: `listen` speaks TLS and nothing else.
    pub listen: Option<SocketAddr>,
    /// `{ cert = "PATH", key = "PATH" }`, PEM files. A client gets the first whose names fit the name it asks for, and the
    /// first of all where none fits. Read again when they change.
    #[cfg_attr(test, schemars(with = "Vec<CertificateConfig>"))]
    pub certificates: Vec<CertificateConfig>,
    /// `"1.2"` or `"1.3"`: older clients are refused.
    pub min_version: TlsVersion,
    /// Whether clients show a certificate: `"off"`, `"optional"`, `"required"`. One that is shown must be good either way.
    pub client_auth: ClientAuth,
    /// The authorities that client certificates must come from, a PEM file.
    pub client_ca: Option<PathBuf>,
    /// From the accepted connection to the end of the TLS handshake.
    pub handshake_timeout: Span,
    /// What `client_ca` says.
    #[serde(skip)]
    pub authorities: Pem,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            listen: None,
            certificates: Vec::new(),
            min_version: TlsVersion::default(),
            client_auth: ClientAuth::default(),
            client_ca: None,
            handshake_timeout: seconds(5),
            authorities: Pem::default(),
        }
    }
}

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// The certificate, and behind it those that lead to the authority.
    pub cert: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// What the files say.
    #[serde(skip)]
    pub chain: Pem,
    #[serde(skip)]
    pub secret: Pem,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    #[default]
    Off,
    Optional,
    Required,
}

/// The bytes of a PEM file, which no log shows.
#[derive(Clone, Default, PartialEq)]
pub struct Pem(pub Vec<u8>);

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

impl Pem {
    fn read(file: &Path) -> Result<Self, String> {
        let cannot = |error| format!("{} cannot be read: {error}", file.display());
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file).map_err(cannot)?;
        opened.take(PEM_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() as u64 > PEM_BYTES {
            return Err(format!("{} has more than a megabyte: that is no PEM file", file.display()));
        }
        Ok(Self(bytes))
    }
}

impl TlsConfig {
    /// The files that it is made of.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.certificates.iter().flat_map(|certificate| [&certificate.cert, &certificate.key]);
        pairs.chain(&self.client_ca)
    }
}

impl Config {
    /// Makes paths whole; nothing is read yet.
    pub(super) fn place_tls(&mut self, base: &Path) {
        let Some(tls) = &mut self.tls else { return };
        for CertificateConfig { cert, key, .. } in &mut tls.certificates {
            *cert = base.join(&*cert);
            *key = base.join(&*key);
        }
        tls.client_ca = tls.client_ca.as_ref().map(|file| base.join(file));
    }

    /// Reads the files, as secrets are.
    pub(super) fn resolve_tls(&mut self, source: &Source<'_>) -> Result<(), ConfigError> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let error = |what: String| source.error(table(source), format!("tls: {what}"));
        for certificate in &mut tls.certificates {
            certificate.chain = Pem::read(&certificate.cert).map_err(error)?;
            certificate.secret = Pem::read(&certificate.key).map_err(error)?;
        }
        if let Some(file) = &tls.client_ca {
            tls.authorities = Pem::read(file).map_err(error)?;
        }
        Ok(())
    }

    pub(super) fn check_tls(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let error = |what: &str| Err(source.error(table(source), what));
        if tls.certificates.is_empty() {
            return error("tls.certificates is missing: write certificates = [{ cert = \"PATH\", key = \"PATH\" }]");
        }
        if tls.client_auth != ClientAuth::Off && tls.client_ca.is_none() {
            return error("tls.client_ca is missing: it names the authorities that client certificates come from");
        }
        if tls.client_auth == ClientAuth::Off && tls.client_ca.is_some() {
            return error(
                "tls.client_ca is never used: write client_auth = \"required\" or \"optional\" beside it, or remove it",
            );
        }
        if tls.handshake_timeout.0.is_zero() {
            return error("tls.handshake_timeout must be above 0");
        }
        Ok(())
    }
}

fn table(source: &Source<'_>) -> Option<std::ops::Range<usize>> {
    source.text.find("[tls]").or_else(|| source.text.find("[[tls.")).map(|at| at..at + 1)
}
