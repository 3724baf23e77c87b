//! Connections of HTTP/2.

use std::net::SocketAddr;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::PATIENCE;

/// A WebSocket as a stream of it (RFC 8441).
pub(crate) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// A connection of HTTP/2.
pub(crate) struct Connection {
    send: SendRequest<Empty<Bytes>>,
    pub(crate) driver: JoinHandle<hyper::Result<()>>,
}

impl Connection {
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let shaken = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await;
        let (send, connection) = shaken.unwrap();
        let mut connection = Self { send, driver: tokio::spawn(connection) };
        // The gateway's settings have arrived with the first answer: they allow an extended CONNECT.
        assert_eq!(connection.ask(Request::get("https://localhost/nothing")).await.status(), 404);
        connection
    }

    pub(crate) async fn clear(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn ask(&mut self, request: hyper::http::request::Builder) -> Response<Incoming> {
        let request = request.body(Empty::new()).unwrap();
        timeout(PATIENCE, self.send.send_request(request)).await.expect("no answer").unwrap()
    }

    /// Asks for a WebSocket, with more headers.
    pub(crate) async fn connect(&mut self, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("https://localhost{path}"))
            .extension(Protocol::from_static("websocket"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request).await
    }

    pub(crate) async fn websocket(&mut self, path: &str) -> Socket {
        let response = self.connect(path, &[("sec-websocket-version", "13")]).await;
        assert_eq!(response.status(), StatusCode::OK);
        let upgraded = hyper::upgrade::on(response).await.unwrap();
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
    }
}
