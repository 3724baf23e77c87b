//! Requests to other servers: pooled connections, and a limit for each wait and for the size of an answer.
//!
//! Redirects are not followed: where a request may go was decided by whoever made it. A scenario brings servers of its
//! own, and nothing is connected then.

use std::error::Error as _;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client as Pool, Error, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Idle connections that are kept for one server, and for how long.
const IDLE: usize = 16;
const IDLE_TIME: Duration = Duration::from_secs(30);
/// A connection that takes longer is given up even if somebody waits longer.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// What one request may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub connect: Duration,
    /// From the connection to the answer's headers.
    pub first_byte: Duration,
    pub between_bytes: Duration,
    /// Bytes of the answer's body.
    pub body: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the request was never finished")]
    NotSent,
    #[error("the name has no address: {0}")]
    Dns(String),
    #[error("no connection: {0}")]
    Connect(String),
    #[error("no connection in time")]
    ConnectTimeout,
    #[error("no secure connection: {0}")]
    Tls(String),
    #[error("no answer in time")]
    FirstByteTimeout,
    #[error("the answer broke off: nothing came for too long")]
    ReadTimeout,
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("the answer broke off: {0}")]
    Broken(String),
}

/// Servers that a scenario makes up. They keep the limit of an answer's size as those on the network do.
pub trait Servers: Send + Sync {
    fn answer(&self, request: Request<Bytes>, bounds: Bounds) -> Answering<'_>;
}

pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, ClientError>> + Send + 'a>>;

/// The node's connections to other servers. Made when the first request is, since most gateways make none.
#[derive(Clone)]
pub struct Client {
    connections: Arc<OnceLock<Connections>>,
    /// Who answers instead of the network.
    invented: Option<Arc<dyn Servers>>,
    /// Connections outlive the requests that they were made for, and are driven here.
    runtime: Handle,
}

enum Connections {
    Secure(Pool<HttpsConnector<HttpConnector>, Full<Bytes>>),
    /// This machine trusts no certificates, for this reason.
    Plain(Pool<HttpConnector, Full<Bytes>>, String),
}

impl Connections {
    fn new() -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_MAX));
        let mut pool = Pool::builder(TokioExecutor::new());
        pool.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIME).pool_max_idle_per_host(IDLE);
        match HttpsConnectorBuilder::new().with_native_roots() {
            Ok(builder) => Self::Secure(pool.build(builder.https_or_http().enable_http1().wrap_connector(http))),
            Err(error) => {
                tracing::warn!(%error, "no certificates are trusted on this machine: requests by https will fail; install the package ca-certificates");
                Self::Plain(pool.build(http), error.to_string())
            }
        }
    }

    fn start(&self, request: Request<Full<Bytes>>) -> Result<ResponseFuture, ClientError> {
        match self {
            Self::Secure(pool) => Ok(pool.request(request)),
            Self::Plain(_, why) if request.uri().scheme_str() == Some("https") => Err(ClientError::Tls(why.clone())),
            Self::Plain(pool, _) => Ok(pool.request(request)),
        }
    }
}

impl Client {
    pub fn new(runtime: Handle) -> Self {
        Self { connections: Arc::default(), invented: None, runtime }
    }

    /// One whose requests never leave the process.
    pub fn invented(servers: Arc<dyn Servers>, runtime: Handle) -> Self {
        Self { invented: Some(servers), ..Self::new(runtime) }
    }

    /// Makes the request that is awaited first. Its URI has scheme and authority; the answer is read as a whole. `done`
    /// is told of it, and dropped where the task is aborted.
    pub fn spawn(
        &self,
        request: impl Future<Output = Option<Request<Bytes>>> + Send + 'static,
        bounds: Bounds,
        done: impl FnOnce(&Result<Response<Bytes>, ClientError>) + Send + 'static,
    ) -> JoinHandle<Result<Response<Bytes>, ClientError>> {
        let client = self.clone();
        self.runtime.spawn(async move {
            let result = match request.await {
                Some(request) => client.send(request, bounds).await,
                None => Err(ClientError::NotSent),
            };
            done(&result);
            result
        })
    }

    pub async fn send(&self, request: Request<Bytes>, bounds: Bounds) -> Result<Response<Bytes>, ClientError> {
        if let Some(servers) = &self.invented {
            return servers.answer(request, bounds).await;
        }
        let mut request = request.map(Full::new);
        let mut connection = capture_connection(&mut request);
        let mut answer = pin!(self.connections.get_or_init(Connections::new).start(request)?);
        let connected = async {
            drop(connection.wait_for_connection_metadata().await);
        };
        let response = tokio::select! {
            biased;
            response = answer.as_mut() => response.map_err(failed)?,
            connected = timeout(bounds.connect, connected) => {
                connected.map_err(|_| ClientError::ConnectTimeout)?;
                let response = timeout(bounds.first_byte, answer).await;
                response.map_err(|_| ClientError::FirstByteTimeout)?.map_err(failed)?
            }
        };
        let (parts, body) = response.into_parts();
        Ok(Response::from_parts(parts, read(body, bounds).await?))
    }
}

async fn read(mut body: Incoming, bounds: Bounds) -> Result<Bytes, ClientError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bounds.body {
        return Err(ClientError::TooLarge(bounds.body));
    }
    let mut read = BytesMut::new();
    loop {
        let frame = timeout(bounds.between_bytes, body.frame()).await.map_err(|_| ClientError::ReadTimeout)?;
        match frame {
            None => return Ok(read.freeze()),
            Some(Err(error)) => return Err(ClientError::Broken(error.to_string())),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if read.len() + data.len() > bounds.body {
                    return Err(ClientError::TooLarge(bounds.body));
                }
                read.extend_from_slice(&data);
            }
        }
    }
}

/// What went wrong before the answer's headers were there.
fn failed(error: Error) -> ClientError {
    let mut cause = error.source();
    let mut text = error.to_string();
    let mut kind = None;
    while let Some(inner) = cause {
        text = inner.to_string();
        if text.starts_with("dns error") {
            return ClientError::Dns(inner.source().map_or(text, ToString::to_string));
        }
        // An error of this type may hold another, which is not among its sources.
        let mut io = inner.downcast_ref::<std::io::Error>();
        while let Some(error) = io {
            kind = Some(error.kind());
            io = error.get_ref().and_then(|error| error.downcast_ref());
        }
        cause = inner.source();
    }
    match kind {
        _ if !error.is_connect() => ClientError::Broken(text),
        Some(ErrorKind::TimedOut) => ClientError::ConnectTimeout,
        // What rustls has against the other side comes as this kind.
        Some(ErrorKind::InvalidData | ErrorKind::InvalidInput) => ClientError::Tls(text),
        _ => ClientError::Connect(text),
    }
}
