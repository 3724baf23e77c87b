//! A scenario's plain HTTP request, and its answer.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;

use super::backends::content;

/// How long the gateway may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(30);

/// The answer to a request.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case, values of one name joined.
    pub headers: Vec<(String, String)>,
    /// As a message.
    pub body: Value,
}

impl Response {
    /// In the words of a scenario file. What the server itself says of each answer is left out.
    pub fn told(&self) -> Value {
        let ours = ["date", "content-length"];
        let others = self.headers.iter().filter(|(name, _)| !ours.contains(&name.as_str()));
        let headers: Map<_, _> = others.map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        json!({ "status": self.status, "headers": headers, "body": self.body })
    }
}

pub async fn ask(stream: TcpStream, request: Request<Full<Bytes>>) -> anyhow::Result<Response> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let whole = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        Ok::<_, hyper::Error>((parts, body.collect().await?.to_bytes()))
    };
    let answered = tokio::time::timeout(PATIENCE, whole).await;
    driving.abort();
    let (parts, body) = answered.context("the gateway does not answer")?.context("the gateway's answer broke off")?;
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match headers.iter_mut().find(|(known, _)| known == name.as_str()) {
            Some((_, known)) => *known = format!("{known}, {value}"),
            None => headers.push((name.to_string(), value.into_owned())),
        }
    }
    Ok(Response { status: parts.status.as_u16(), headers, body: content(&body) })
}
