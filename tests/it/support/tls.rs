//! Certificates of an authority of our own, and clients that speak TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio_tungstenite::WebSocketStream;

use super::PATIENCE;

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate with its key.
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than that of what it signs, or OpenSSL takes the one for the other.
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// For these DNS names.
    pub(crate) fn sign(&self, names: &[&str]) -> Identity {
        self.sign_with(names, |_| {})
    }

    pub(crate) fn sign_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { cert, key: key.serialize_pem() }
    }

    /// A client's: a common name and a URI.
    pub(crate) fn sign_client(&self, name: &str, uri: &str) -> Identity {
        self.sign_with(&[], |params| {
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        })
    }
}

impl Identity {
    /// Writes `NAME.pem` and `NAME.key`, each in one step.
    pub(crate) fn write(&self, directory: &Path, name: &str) {
        for (ending, text) in [("pem", &self.cert), ("key", &self.key)] {
            let new = directory.join(format!("{name}.{ending}.new"));
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, directory.join(format!("{name}.{ending}"))).unwrap();
        }
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

pub(crate) const TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];
pub(crate) const TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// Clients that trust an authority, with the same memory of sessions.
#[derive(Clone)]
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    pub(crate) fn trusting(authority: &Authority) -> Self {
        Self::with(authority, TLS13, &[], None)
    }

    pub(crate) fn with(
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
        identity: Option<&Identity>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![identity.der()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    /// Asks for a name.
    pub(crate) async fn connect(&self, address: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        self.over(TcpStream::connect(address).await.unwrap(), name).await
    }

    /// The same on a connection that is there.
    pub(crate) async fn over(&self, stream: TcpStream, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connecting = TlsConnector::from(self.0.clone()).connect(name, stream);
        timeout(PATIENCE, connecting).await.expect("the TLS handshake does not end")
    }

    /// A WebSocket on a path.
    pub(crate) async fn websocket(
        &self,
        address: SocketAddr,
        path: &str,
    ) -> Result<WebSocketStream<TlsStream<TcpStream>>, String> {
        let stream = self.connect(address, "localhost").await.map_err(|error| error.to_string())?;
        let url = format!("wss://localhost{path}");
        let upgraded = timeout(PATIENCE, tokio_tungstenite::client_async(url, stream)).await;
        // With TLS 1.3 a client learns only now that its certificate is refused.
        upgraded.expect("no answer to the handshake").map(|(socket, _)| socket).map_err(|error| error.to_string())
    }
}
