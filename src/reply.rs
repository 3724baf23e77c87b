//! Answers to HTTP requests: bodies, and refusals that say why.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What goes wrong with a request, as its answer.
pub struct Refusal {
    pub status: StatusCode,
    /// The body; text unless a `content-type` is among the headers.
    pub why: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub fn answer(self) -> Response<Body> {
        let mut response = Response::new(text(self.why));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        for (name, value) in self.headers {
            if name == header::CONTENT_TYPE {
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
        response
    }
}

/// 503: not now, but soon.
pub fn unavailable(why: &str) -> Refusal {
    unavailable_for(why, Duration::from_secs(5))
}

/// 503: not before this has passed.
pub fn unavailable_for(why: &str, pause: Duration) -> Refusal {
    // Whole seconds, rounded up: whoever comes then is not too early.
    let seconds = pause.as_millis().div_ceil(1_000).max(1) as u64;
    let headers = vec![(header::RETRY_AFTER, HeaderValue::from(seconds))];
    Refusal { status: StatusCode::SERVICE_UNAVAILABLE, why: why.to_owned(), headers }
}

pub fn not_found() -> Refusal {
    let why = "nothing is here: no route and no file".to_owned();
    Refusal { status: StatusCode::NOT_FOUND, why, headers: Vec::new() }
}

pub fn internal() -> Refusal {
    Refusal { status: StatusCode::INTERNAL_SERVER_ERROR, why: "internal error".to_owned(), headers: Vec::new() }
}

pub fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

pub fn empty() -> Body {
    text(Bytes::new())
}
