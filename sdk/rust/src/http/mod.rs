//! Plain HTTP, with the feature `http`: answer requests on the plugin's route, ask other servers.
//!
//! A handler is a function from a request to a response. What it publishes and sends is applied when it has answered,
//! before the client hears the answer:
//!
//! ```
//! use tidegate_sdk::{Result, http::{Request, Response}, topics};
//!
//! fn publish(request: Request) -> Result<Response> {
//!     if request.method() != "POST" {
//!         return Ok(Response::new(405).header("allow", "POST"));
//!     }
//!     topics::publish("news", request.text()?)?;
//!     Ok(Response::new(202))
//! }
//!
//! tidegate_sdk::http_handler!(publish);
//! # fn main() {}
//! ```
//!
//! It stands alone or beside a [`Plugin`](crate::Plugin) in the same crate, which keeps the sessions of the route.

#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub mod wasm;

use std::fmt;
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::Result;

/// Register the function that answers plain HTTP requests: `fn(Request) -> Result<Response>`.
///
/// Its error is for the log; the client is told no more than 500, and nothing that the handler asked for is applied.
#[macro_export]
macro_rules! http_handler {
    ($handle:path) => {
        const _: fn($crate::http::Request) -> $crate::Result<$crate::http::Response> = $handle;

        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "exports are unmangled names")]
        const _: () = {
            struct Handler;

            impl $crate::http::wasi::exports::http::incoming_handler::Guest for Handler {
                fn handle(
                    request: $crate::http::wasi::http::types::IncomingRequest,
                    answer: $crate::http::wasi::http::types::ResponseOutparam,
                ) {
                    $crate::http::wasm::answer($handle, request, answer);
                }
            }

    $crate::http::wasi::http::proxy::export!(Handler with_types_in $crate::http::wasi);
        };
    };
}

#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub use wasip2 as wasi;

/// A request: one that came, or one to be sent.
#[derive(Clone, Debug, Default)]
pub struct Request {
    method: String,
    /// What comes before the path: scheme and authority of a request to be sent, empty in one that came.
    origin: String,
    /// Path and query.
    target: String,
    headers: Headers,
    body: Vec<u8>,
    timeout: Option<Duration>,
}

/// A response: one to be sent, or one that came.
#[derive(Clone, Debug, Default)]
pub struct Response {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// Text that is not UTF-8 gets replacement characters.
    fn get(&self, name: &str) -> Option<String> {
        let value = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    }

    fn member(&self, name: &str, member: &str) -> Option<String> {
        let json: serde_json::Value = serde_json::from_str(&self.get(name)?).ok()?;
        json.get(member)?.as_str().map(str::to_owned)
    }
}

impl Request {
    /// A request with any method, to a URL such as `https://api.example.org/users?id=7`.
    pub fn new(method: &str, url: &str) -> Self {
        let authority = url.find("://").map_or(0, |scheme| scheme + 3);
        let path = url[authority..].find(['/', '?']).map_or(url.len(), |path| authority + path);
        let (origin, target) = url.split_at(path);
        let slash = if target.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{target}");
        Self { method: method.to_owned(), origin: origin.to_owned(), target, ..Self::default() }
    }

    /// A GET.
    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    /// A POST.
    pub fn post(url: &str) -> Self {
        Self::new("POST", url)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.0.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to `value` as JSON, with its content type.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn body_json<T: Serialize + ?Sized>(self, value: &T) -> serde_json::Result<Self> {
        Ok(self.header("content-type", "application/json").body(serde_json::to_vec(value)?))
    }

    /// Gives up after this time. Otherwise after four fifths of what a call of the plugin may take.
    #[must_use]
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = Some(time);
        self
    }

    /// Sends it and waits for the answer. The plugin needs a grant for the host.
    ///
    /// # Errors
    /// There is no answer.
    pub fn send(self) -> Result<Response, Error> {
        #[cfg(target_arch = "wasm32")]
        return wasm::send(self);
        #[cfg(not(target_arch = "wasm32"))]
        Err(Error::Failed(format!("{} {}{} was not sent: this is a test", self.method, self.origin, self.target)))
    }

    /// `GET`, `POST`, ….
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path as it came, percent-encoded, without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The query as it came, without the question mark.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The first value of a header, in whatever case.
    pub fn header_value(&self, name: &str) -> Option<String> {
        self.headers.get(name)
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.body)
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// It is not JSON, or not of this type.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }

    /// Who asks, as the route's `authenticate` has admitted them. None: nobody was asked, or somebody without a name.
    pub fn user(&self) -> Option<String> {
        self.headers.get("tidegate-user")
    }

    /// An attribute that `authenticate` has set.
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.headers.member("tidegate-attributes", name)
    }

    /// A parameter of the route's path, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.headers.member("tidegate-parameters", name)
    }

    /// The client's IP address.
    pub fn peer_address(&self) -> Option<String> {
        self.headers.get("tidegate-peer-address")
    }
}

impl Response {
    /// A response of this status, without a body.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// 200 with text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(200).header("content-type", "text/plain; charset=utf-8").body(text.into())
    }

    /// 200 with `value` as JSON.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Self> {
        Ok(Self::new(200).header("content-type", "application/json").body(serde_json::to_vec(value)?))
    }

    /// Sets the status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.0.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first value of a header, in whatever case.
    pub fn header_value(&self, name: &str) -> Option<String> {
        self.headers.get(name)
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// It is not JSON, or not of this type.
    pub fn read_json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The plugin has no grant for the host.
    Denied,
    /// There was no answer in time; the server may have seen the request.
    Timeout,
    /// The answer is larger than the plugin may have.
    TooLarge,
    /// Anything else, in words for the log.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("denied: the plugin's `grants` do not name the host (`http`)"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::TooLarge => f.write_str("the answer is too large (`http_response`)"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let request = Request::get("https://api.example.org:8443/users?id=7");
        assert_eq!(
            (&*request.origin, request.path(), request.query()),
            ("https://api.example.org:8443", "/users", "id=7")
        );
        assert_eq!(Request::get("http://a").target, "/");
        assert_eq!(Request::get("http://a?b").target, "/?b");
        assert_eq!(Request::get("/publish").path(), "/publish");
    }

    #[test]
    fn what_the_gateway_says_of_who_asks_is_read() {
        let request = Request::post("/rooms/blue")
            .header("Tidegate-User", "alice")
            .header("tidegate-attributes", r#"{"role":"admin"}"#)
            .header("tidegate-parameters", r#"{"room":"blue"}"#)
            .body("[1, 2]");
        assert_eq!(request.user().unwrap(), "alice");
        assert_eq!(request.attribute("role").unwrap(), "admin");
        assert_eq!(request.parameter("room").unwrap(), "blue");
        assert_eq!((request.attribute("other"), request.peer_address()), (None, None));
        assert_eq!(request.json::<Vec<u8>>().unwrap(), [1, 2]);
    }
}
