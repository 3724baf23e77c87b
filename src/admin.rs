//! What operators ask: is it alive, is it ready, what does it count, which plugins serve. On an address of its own.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;

use crate::config::ConfigStatus;
use crate::drain::Drain;
use crate::node::Node;
use crate::plugin::Catalog;
use crate::reply::{Body, text};

/// Answers on the admin address.
pub struct Admin {
    pub node: Arc<Node>,
    pub catalog: Arc<Catalog>,
    pub config: Arc<Mutex<ConfigStatus>>,
    pub drain: Drain,
}

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

impl Admin {
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Ok(answer(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET is served here\n".to_owned()));
        }
        Ok(match request.uri().path() {
            "/" => answer(StatusCode::OK, PLAIN, "/live\n/ready\n/metrics\n/plugins\n/config\n/topics\n".to_owned()),
            "/live" => answer(StatusCode::OK, PLAIN, "alive\n".to_owned()),
            "/ready" if self.drain.is_draining() => {
                answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "draining\n".to_owned())
            }
            "/ready" => answer(StatusCode::OK, PLAIN, "ready\n".to_owned()),
            "/metrics" => answer(StatusCode::OK, "text/plain; version=0.0.4", self.node.metrics.text()),
            "/plugins" => json(&self.catalog.status()),
            "/config" => json(&*self.config.lock()),
            "/topics" => {
                let topics: Vec<_> = self
                    .node
                    .hub
                    .largest(100)
                    .into_iter()
                    .map(|(topic, subscribers)| serde_json::json!({ "topic": topic.as_str(), "subscribers": subscribers }))
                    .collect();
                json(&topics)
            }
            _ => answer(StatusCode::NOT_FOUND, PLAIN, "nothing is here; see /\n".to_owned()),
        })
    }
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => answer(StatusCode::OK, JSON, text + "\n"),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(text(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
