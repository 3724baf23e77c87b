//! TLS towards clients: handshakes with a deadline, and certificates that can be replaced while the gateway serves.

mod identity;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, HandshakeKind, RootCertStore, ServerConfig, version};
use tokio_rustls::server::TlsStream;

use crate::certificate::{ClientCertificate, Facts};
use crate::config::{ClientAuth, Config, Http2Mode, Pem, TlsConfig, TlsVersion};
use crate::metrics::Metrics;
use identity::{Identities, Identity};

/// What a connection may hold that was encrypted and not yet written, or decrypted and not yet read: a record and its frame.
const BUFFER: usize = 20 << 10;

/// Speaks TLS with clients.
pub struct Tls {
    ready: ArcSwap<Ready>,
    metrics: Arc<Metrics>,
}

/// What a configuration says of TLS, checked: nothing in it can fail any more.
pub struct Ready {
    server: Arc<ServerConfig>,
    identities: Arc<Identities>,
    timeout: Duration,
    clients: (ClientAuth, Pem),
    tickets: Arc<dyn ProducesTickets>,
}

/// A client whose handshake is done.
pub struct Accepted {
    pub stream: TlsStream<TcpStream>,
    /// It has chosen HTTP/2.
    pub http2: bool,
    pub certificate: Option<ClientCertificate>,
}

/// A certificate as `tidegate check` and the log tell of it.
pub struct Shown {
    pub file: String,
    pub names: String,
    /// Seconds from now; below 0 where it has expired.
    pub expires_in: i64,
    /// Seconds from now until it is valid; 0 or less where it is.
    pub valid_in: i64,
}

impl Ready {
    /// None: the configuration has no TLS. What `before` has given to clients still counts where it may.
    pub fn new(config: &Config, before: Option<&Self>) -> anyhow::Result<Option<Self>> {
        let Some(tls) = &config.tls else { return Ok(None) };
        let provider = Arc::new(ring::default_provider());
        let identities: Vec<_> =
            tls.certificates.iter().map(|one| Identity::new(one, &provider)).collect::<anyhow::Result<_>>()?;
        let identities = Arc::new(Identities(identities));
        let versions: &[_] = match tls.min_version {
            TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            TlsVersion::Tls13 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)?;
        let mut server = match verifier(tls, provider)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        }
        .with_cert_resolver(identities.clone());
        server.alpn_protocols = match config.http2.mode {
            Http2Mode::Off => vec![b"http/1.1".to_vec()],
            Http2Mode::Tls | Http2Mode::ClearText => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let clients = (tls.client_auth, tls.authorities.clone());
        // A resumed session has the client's certificate in its ticket, which nobody verifies again: where other
        // authorities count now, older tickets do not.
        let tickets = match before.filter(|before| before.clients == clients) {
            Some(before) => before.tickets.clone(),
            None => ring::Ticketer::new().context("tls: no randomness for session tickets")?,
        };
        server.ticketer = tickets.clone();
        // Tickets are all that resumption needs; nothing is kept here for clients that may never come again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let timeout = tls.handshake_timeout.0;
        Ok(Some(Self { server: Arc::new(server), identities, timeout, clients, tickets }))
    }

    /// What clients are shown.
    pub fn shown(&self) -> Vec<Shown> {
        let now = unix_now();
        let shown = |Identity { file, facts, .. }: &Identity| Shown {
            file: file.display().to_string(),
            names: if facts.dns.is_empty() { facts.subject.clone() } else { facts.dns.join(" ") },
            expires_in: facts.not_after - now,
            valid_in: facts.not_before - now,
        };
        self.identities.0.iter().map(shown).collect()
    }
}

/// None: clients are asked for no certificate.
fn verifier(
    config: &TlsConfig,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> anyhow::Result<Option<Arc<dyn ClientCertVerifier>>> {
    let Some(file) = config.client_ca.as_ref().filter(|_| config.client_auth != ClientAuth::Off) else {
        return Ok(None);
    };
    let file = file.display();
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&config.authorities.0) {
        let authority = authority.with_context(|| format!("tls: {file} is no certificate in PEM"))?;
        roots.add(authority).with_context(|| format!("tls: {file} has a certificate that cannot be read"))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match config.client_auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional | ClientAuth::Off => builder.allow_unauthenticated(),
    };
    builder.build().map(Some).with_context(|| format!("tls: no client can be verified by {file}"))
}

impl Tls {
    pub fn new(ready: Ready, metrics: Arc<Metrics>) -> Self {
        let tls = Self { ready: ArcSwap::from_pointee(ready), metrics };
        tls.tell();
        tls
    }

    /// What serves now, to begin the next from.
    pub fn ready(&self) -> Arc<Ready> {
        self.ready.load_full()
    }

    /// New handshakes find this; connections that are there stay what they are.
    pub fn install(&self, ready: Ready) {
        self.ready.store(Arc::new(ready));
        self.tell();
    }

    fn tell(&self) {
        let ready = self.ready.load();
        self.metrics.tls_expires.reset();
        for (identity, shown) in ready.identities.0.iter().zip(ready.shown()) {
            self.metrics.tls_expires.with_label_values(&[&shown.file]).set(identity.facts.not_after);
            shown.log();
        }
    }

    /// The handshake, within its time. None: it has failed, which is counted.
    pub async fn accept(&self, stream: TcpStream) -> Option<Accepted> {
        let ready = self.ready.load_full();
        let acceptor = TlsAcceptor::from(ready.server.clone());
        let handshake = acceptor.accept_with(stream, |connection| connection.set_buffer_limit(Some(BUFFER)));
        // Boxed: a handshake is large, and over soon.
        let result = match tokio::time::timeout(ready.timeout, Box::pin(handshake)).await {
            Err(_) => Err("timeout"),
            Ok(Err(error)) => Err(why(&error)),
            Ok(Ok(stream)) => accepted(stream),
        };
        let (accepted, result) = match result {
            Ok((accepted, result)) => (Some(accepted), result),
            Err(why) => (None, why),
        };
        self.metrics.tls_handshakes.with_label_values(&[result]).inc();
        accepted
    }
}

fn accepted(stream: TlsStream<TcpStream>) -> Result<(Accepted, &'static str), &'static str> {
    let (_, connection) = stream.get_ref();
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    if let Some(certificate) = certificate.filter(|_| resumed)
        && Facts::of(certificate).is_none_or(|facts| facts.not_after < unix_now())
    {
        return Err("certificate");
    }
    let certificate = certificate.map(|certificate| ClientCertificate(certificate.as_ref().into()));
    let http2 = connection.alpn_protocol() == Some(b"h2");
    Ok((Accepted { stream, http2, certificate }, if resumed { "resumed" } else { "full" }))
}

/// The metric's label for a handshake that has failed.
fn why(error: &std::io::Error) -> &'static str {
    use rustls::Error;
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return "closed" };
    tracing::debug!(%error, "a TLS handshake has failed");
    match error {
        Error::NoCertificatesPresented => "no-certificate",
        Error::InvalidCertificate(_) => "certificate",
        Error::AlertReceived(_) => "alert",
        Error::NoApplicationProtocol => "protocol",
        Error::PeerIncompatible(_) => "incompatible",
        Error::InvalidMessage(_) => "not-tls",
        _ => "broken",
    }
}

impl Shown {
    /// What an operator must know of it, if anything.
    pub fn warning(&self) -> Option<String> {
        const DAY: i64 = 86_400;
        match self {
            Self { expires_in: ..0, .. } => Some("has expired: clients will refuse it; replace the files".to_owned()),
            Self { valid_in: 1.., .. } => Some("is not valid yet: clients will refuse it".to_owned()),
            Self { expires_in, .. } if *expires_in < 7 * DAY => {
                Some(format!("expires in {} hours: replace the files", expires_in / 3_600))
            }
            _ => None,
        }
    }

    fn log(&self) {
        let Self { file, names, expires_in, .. } = self;
        match self.warning() {
            Some(warning) => tracing::warn!(file, names, "the certificate {warning}"),
            None => tracing::info!(file, names, days = expires_in / 86_400, "a certificate is shown to clients"),
        }
    }
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
