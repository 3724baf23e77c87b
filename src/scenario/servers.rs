//! The servers that plugins ask in a scenario: what they answer stands in the file, for all of it or for one step.

use bytes::Bytes;
use hyper::{Method, Request, Response};
use parking_lot::Mutex;
use serde_json::json;
use toml::Table;

use super::backends::{Asked, content, headers};
use super::keys::Keys;
use super::pattern::Names;
use super::reply::Reply;
use crate::client::{Answering, Bounds, ClientError};

/// `url`, perhaps `method`, and `replies`.
#[derive(Clone, Debug)]
pub struct Server {
    /// None: any.
    method: Option<String>,
    /// As an expected text.
    url: String,
    reply: Reply,
}

pub struct Servers {
    always: Vec<Server>,
    step: Mutex<OfStep>,
    asked: Asked,
}

#[derive(Default)]
struct OfStep {
    servers: Vec<Server>,
    names: Names,
    unanswered: Vec<String>,
}

impl Server {
    pub fn read(table: Table) -> Result<Self, String> {
        let mut keys = Keys(table);
        let url = keys.text("url")?.ok_or("a server needs a `url`, such as \"https://api.example.org/${_}\"")?;
        let Some(place) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
            return Err(format!("{url:?} is no URL: it begins with http:// or https://"));
        };
        let url = if place.contains('/') { url } else { url + "/" };
        let method = keys.text("method")?;
        if let Some(method) = method.as_ref().filter(|method| Method::from_bytes(method.as_bytes()).is_err()) {
            return Err(format!("{method:?} is no method of HTTP"));
        }
        let reply = keys.0.remove("replies");
        let reply = reply.ok_or_else(|| format!("what does {url} answer? Add `replies = {{ body = \"…\" }}`"))?;
        let reply = Reply::read(reply)?;
        keys.done("a server")?;
        Ok(Self { method, url, reply })
    }

    fn is_asked(&self, method: &str, url: &str, names: &Names) -> bool {
        let is_method = self.method.as_deref().is_none_or(|known| known == method);
        is_method && names.clone().compare(&self.url.as_str().into(), &url.into()).is_ok()
    }
}

impl Servers {
    pub fn new(always: Vec<Server>, asked: Asked) -> Self {
        Self { always, step: Mutex::default(), asked }
    }

    /// A step begins, with servers of its own and what its names stand for.
    pub fn begin(&self, servers: &[Server], names: &Names) {
        let (servers, names) = (servers.to_vec(), names.clone());
        *self.step.lock() = OfStep { servers, names, unanswered: Vec::new() };
    }

    /// What was asked of servers that there are not.
    pub fn unanswered(&self) -> Vec<String> {
        std::mem::take(&mut self.step.lock().unanswered)
    }

    fn asked(&self, request: &Request<Bytes>, bounds: Bounds) -> Result<Response<Bytes>, ClientError> {
        let (method, url) = (request.method().as_str(), request.uri().to_string());
        let mut told = json!({ "request": format!("{method} {url}") });
        if !request.body().is_empty() {
            told["body"] = content(request.body());
        }
        let headers = headers(request, &[]);
        if !headers.is_empty() {
            told["headers"] = headers.into();
        }
        self.asked.lock().push(told);
        let mut step = self.step.lock();
        let known = step.servers.iter().chain(&self.always).find(|server| server.is_asked(method, &url, &step.names));
        let why = match known.map(|server| server.reply.filled(&step.names)) {
            Some(Ok(given)) => return given.result(bounds),
            Some(Err(error)) => format!("{method} {url}: {error:#}"),
            None => format!(
                "{method} {url}: add [[server]] with `url = \"{url}\"` and what it `replies`, or `servers` to the step"
            ),
        };
        step.unanswered.push(why);
        Err(ClientError::Connect("the scenario has no such server".to_owned()))
    }
}

impl crate::client::Servers for Servers {
    fn answer(&self, request: Request<Bytes>, bounds: Bounds) -> Answering<'_> {
        Box::pin(async move { self.asked(&request, bounds) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Result<Server, String> {
        Server::read(toml::from_str(text).unwrap())
    }

    #[test]
    fn a_server_is_found_by_method_and_url() {
        let asked = |text: &str, method: &str, url: &str| {
            let server = server(&format!("{text}\nreplies = 200")).unwrap();
            server.is_asked(method, url, &Names::default())
        };
        assert!(asked("url = \"https://a.test\"", "GET", "https://a.test/"));
        assert!(asked("url = \"https://a.test/${_}\"", "GET", "https://a.test/b?c=d"));
        assert!(!asked("url = \"https://a.test/${_}\"", "GET", "https://a.test:8443/"));
        assert!(asked("url = \"http://a.test/\"\nmethod = \"PUT\"", "PUT", "http://a.test/"));
        assert!(!asked("url = \"http://a.test/\"\nmethod = \"PUT\"", "GET", "http://a.test/"));
    }

    #[test]
    fn a_server_that_is_not_whole_is_refused() {
        for (text, expected) in [
            ("replies = 200", "a server needs a `url`"),
            ("url = \"a.test\"\nreplies = 200", "\"a.test\" is no URL"),
            ("url = \"http://a.test\"", "what does http://a.test/ answer?"),
            ("url = \"http://a.test\"\nreplies = 200\nmethod = \"a b\"", "is no method"),
            ("url = \"http://a.test\"\nreplies = 200\nmehtod = \"GET\"", "`mehtod` is no word of a server"),
        ] {
            let told = server(text).unwrap_err();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }
}
