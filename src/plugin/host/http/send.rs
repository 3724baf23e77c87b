//! Requests to other servers: to granted hosts, a number at a time, within the time and size that the plugin has.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{HeaderMap, Request, Response, Uri};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::fields::strip;
use super::wit::outgoing_handler;
use super::wit::types::{DnsErrorPayload, ErrorCode, HostFutureIncomingResponse, HostRequestOptions};
use super::{IncomingResponse, OutgoingRequest, State};
use crate::client::{Bounds, ClientError};
use crate::plugin::describe;
use crate::plugin::script::{Heard, Script};

/// Nanoseconds, where the guest has said so.
#[derive(Default)]
pub struct RequestOptions {
    connect: Option<u64>,
    first_byte: Option<u64>,
    between_bytes: Option<u64>,
}

/// An answer that is on its way; the request is broken off with the value.
pub enum FutureResponse {
    Pending(Task),
    Ready(Result<Response<Bytes>, ErrorCode>),
    Consumed,
}

pub struct Task {
    handle: JoinHandle<Result<Response<Bytes>, ClientError>>,
    /// Where a recording keeps the answer.
    kept: Option<(Arc<Script>, usize)>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

#[async_trait]
impl Pollable for FutureResponse {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }
}

impl FutureResponse {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Self::Pending(task) = self else { return Poll::Ready(()) };
        let Poll::Ready(result) = Pin::new(&mut task.handle).poll(context) else { return Poll::Pending };
        let result = match result {
            Ok(result) => result.map_err(|error| code(&error)),
            Err(_) => Err(ErrorCode::ConnectionTerminated),
        };
        if let Some((script, place)) = task.kept.take() {
            script.add(place, "is", told(&result));
        }
        *self = Self::Ready(result);
        Poll::Ready(())
    }
}

fn code(error: &ClientError) -> ErrorCode {
    match error {
        ClientError::NotSent => ErrorCode::HttpRequestBodySize(None),
        ClientError::Dns(why) => ErrorCode::DnsError(DnsErrorPayload { rcode: Some(why.clone()), info_code: None }),
        ClientError::Connect(_) => ErrorCode::ConnectionRefused,
        ClientError::ConnectTimeout => ErrorCode::ConnectionTimeout,
        ClientError::Tls(_) => ErrorCode::TlsCertificateError,
        ClientError::FirstByteTimeout => ErrorCode::HttpResponseTimeout,
        ClientError::ReadTimeout => ErrorCode::ConnectionReadTimeout,
        ClientError::TooLarge(limit) => ErrorCode::HttpResponseBodySize(Some(*limit as u64)),
        ClientError::Broken(_) => ErrorCode::HttpProtocolError,
    }
}

impl State {
    /// The guest's timeouts. None is longer than four fifths of what its call may take, so that there is time left to do
    /// something about a server that does not answer.
    fn bounds(&self, options: &RequestOptions) -> Bounds {
        let most = self.context.limits.wall.0 / 5 * 4;
        let within = |asked: Option<u64>| asked.map_or(most, |asked| Duration::from_nanos(asked).min(most));
        Bounds {
            connect: within(options.connect),
            first_byte: within(options.first_byte),
            between_bytes: within(options.between_bytes),
            body: self.context.limits.http_response.0,
        }
    }

    /// The request's place, if the plugin may ask there.
    fn granted_uri(&self, request: &OutgoingRequest) -> Result<Uri, ErrorCode> {
        let authority = request.authority.clone().ok_or(ErrorCode::HttpRequestUriInvalid)?;
        let (scheme, default) = if request.https { (Scheme::HTTPS, 443) } else { (Scheme::HTTP, 80) };
        let port = authority.port_u16();
        if port.is_none() && authority.port().is_some() {
            return Err(ErrorCode::HttpRequestUriInvalid);
        }
        if !self.context.granted.host(authority.host(), port.unwrap_or(default), default) {
            self.denied("http", authority.as_str());
            return Err(ErrorCode::HttpRequestDenied);
        }
        let target = request.target.clone().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target);
        uri.build().map_err(|_| ErrorCode::HttpRequestUriInvalid)
    }

    fn send(&self, request: OutgoingRequest, options: &RequestOptions) -> Result<FutureResponse, ErrorCode> {
        let uri = self.granted_uri(&request)?;
        let context = &self.context;
        // What a shadow would change elsewhere has been asked for already, by the generation that serves.
        if context.shadow && !request.method.is_safe() {
            return Err(ErrorCode::DestinationUnavailable);
        }
        let script = self.script().cloned();
        let with = || {
            let headers = describe::headers(&request.headers);
            json!({ "method": request.method.as_str(), "url": uri.to_string(), "headers": headers })
        };
        if let Some(script) = script.as_ref().filter(|script| script.is_replaying()) {
            return replayed(script, with, request.body);
        }
        let kept = script.map(|script| (script.keep("http.request", with, || ("is", Value::Null)), script));
        let metrics = &context.node.metrics;
        let Ok(permit) = context.http_requests.clone().try_acquire_owned() else {
            metrics.http_requests.with_label_values(&[&*context.name, "limit"]).inc();
            return Err(ErrorCode::ConnectionLimitReached);
        };
        let OutgoingRequest { method, headers, body, .. } = request;
        let body_kept = kept.clone();
        let whole = async move {
            let body = match body {
                Some(body) => body.await.ok()?,
                None => Bytes::new(),
            };
            if let Some((place, script)) = body_kept.filter(|_| !body.is_empty()) {
                script.add(place, "body", describe::message(describe::text_or_binary(&body)));
            }
            let mut request = Request::new(body);
            *request.method_mut() = method;
            *request.uri_mut() = uri;
            *request.headers_mut() = strip(Arc::unwrap_or_clone(headers));
            // The client writes the body's own length.
            request.headers_mut().remove(hyper::header::CONTENT_LENGTH);
            Some(request)
        };
        let counters =
            [("answered"), ("failed")].map(|result| metrics.http_requests.with_label_values(&[&*context.name, result]));
        let plugin = context.name.clone();
        let handle = context.node.client.spawn(whole, self.bounds(options), move |result| {
            let [answered, failed] = counters;
            match result {
                Ok(_) => answered.inc(),
                Err(error) => {
                    failed.inc();
                    tracing::debug!(plugin = &*plugin, %error, "a plugin's request was not answered");
                }
            }
            drop(permit);
        });
        let kept = kept.map(|(place, script)| (script, place));
        Ok(FutureResponse::Pending(Task { handle, kept }))
    }
}

/// The answer that was recorded. Nobody is asked.
fn replayed(
    script: &Arc<Script>,
    with: impl Fn() -> Value,
    body: Option<oneshot::Receiver<Bytes>>,
) -> Result<FutureResponse, ErrorCode> {
    let place = script.done("http.request", &with);
    if let Some(mut body) = body {
        // It is finished before the call ends, or never.
        script.later(place, "body", move || {
            let body = body.try_recv().ok().filter(|body| !body.is_empty())?;
            Some(describe::message(describe::text_or_binary(&body)))
        });
    }
    let heard = match script.ask("http.request", &with, false) {
        Heard::Recorded(question) => question.get("is").and_then(heard),
        Heard::Live | Heard::Nothing => None,
    };
    Ok(FutureResponse::Ready(heard.unwrap_or(Err(ErrorCode::DestinationUnavailable))))
}

/// An answer as recordings keep it.
fn told(result: &Result<Response<Bytes>, ErrorCode>) -> Value {
    match result {
        Ok(response) => json!({
            "status": response.status().as_u16(),
            "headers": describe::headers(response.headers()),
            "body": describe::message(describe::text_or_binary(response.body())),
        }),
        Err(code) => {
            json!({ "failed": FAILURES.iter().find(|(known, _)| same(known, code)).map_or("unknown", |(_, name)| name) })
        }
    }
}

/// None: it is no such answer.
fn heard(value: &Value) -> Option<Result<Response<Bytes>, ErrorCode>> {
    if let Some(failed) = value.get("failed").and_then(Value::as_str) {
        let known = FAILURES.iter().find(|(_, name)| *name == failed);
        return Some(Err(known.map_or(ErrorCode::ConnectionTerminated, |(code, _)| code.clone())));
    }
    let mut response = Response::new(describe::read_bytes(value.get("body")?)?);
    *response.status_mut() = u16::try_from(value.get("status")?.as_u64()?).ok()?.try_into().ok()?;
    *response.headers_mut() = describe::read_headers(value.get("headers")).ok()?;
    Some(Ok(response))
}

/// What requests fail with, by the names of recordings.
const FAILURES: [(ErrorCode, &str); 11] = [
    (ErrorCode::HttpRequestBodySize(None), "request-body"),
    (ErrorCode::DnsError(DnsErrorPayload { rcode: None, info_code: None }), "dns"),
    (ErrorCode::ConnectionRefused, "connection-refused"),
    (ErrorCode::ConnectionTimeout, "connection-timeout"),
    (ErrorCode::TlsCertificateError, "tls"),
    (ErrorCode::HttpResponseTimeout, "response-timeout"),
    (ErrorCode::ConnectionReadTimeout, "read-timeout"),
    (ErrorCode::HttpResponseBodySize(None), "response-body"),
    (ErrorCode::HttpProtocolError, "protocol"),
    (ErrorCode::ConnectionTerminated, "terminated"),
    (ErrorCode::DestinationUnavailable, "unavailable"),
];

fn same(one: &ErrorCode, other: &ErrorCode) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

impl outgoing_handler::Host for State {
    fn handle(
        &mut self,
        request: Resource<OutgoingRequest>,
        options: Option<Resource<RequestOptions>>,
    ) -> Result<Result<Resource<FutureResponse>, ErrorCode>> {
        self.enter()?;
        let options = match options {
            Some(options) => self.table.delete(options)?,
            None => RequestOptions::default(),
        };
        let request = self.table.delete(request)?;
        match self.send(request, &options) {
            Ok(response) => Ok(Ok(self.table.push(response)?)),
            Err(code) => Ok(Err(code)),
        }
    }
}

impl HostFutureIncomingResponse for State {
    fn subscribe(&mut self, response: Resource<FutureResponse>) -> Result<Resource<DynPollable>> {
        self.enter()?;
        subscribe(&mut self.table, response)
    }

    fn get(
        &mut self,
        response: Resource<FutureResponse>,
    ) -> Result<Option<Result<Result<Resource<IncomingResponse>, ErrorCode>, ()>>> {
        self.enter()?;
        let response = self.table.get_mut(&response)?;
        if response.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Ok(None);
        }
        let result = match std::mem::replace(response, FutureResponse::Consumed) {
            FutureResponse::Ready(result) => result,
            _ => return Ok(Some(Err(()))),
        };
        Ok(Some(Ok(match result {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                let headers: Arc<HeaderMap> = Arc::new(strip(parts.headers));
                let response = IncomingResponse { status: parts.status.as_u16(), headers, body: Some(body) };
                Ok(self.table.push(response)?)
            }
            Err(code) => Err(code),
        })))
    }

    fn drop(&mut self, response: Resource<FutureResponse>) -> Result<()> {
        self.table.delete(response)?;
        Ok(())
    }
}

impl HostRequestOptions for State {
    fn new(&mut self) -> Result<Resource<RequestOptions>> {
        self.enter()?;
        Ok(self.table.push(RequestOptions::default())?)
    }

    fn connect_timeout(&mut self, options: Resource<RequestOptions>) -> Result<Option<u64>> {
        self.enter()?;
        Ok(self.table.get(&options)?.connect)
    }

    fn set_connect_timeout(&mut self, options: Resource<RequestOptions>, time: Option<u64>) -> Result<Result<(), ()>> {
        self.enter()?;
        self.table.get_mut(&options)?.connect = time;
        Ok(Ok(()))
    }

    fn first_byte_timeout(&mut self, options: Resource<RequestOptions>) -> Result<Option<u64>> {
        self.enter()?;
        Ok(self.table.get(&options)?.first_byte)
    }

    fn set_first_byte_timeout(
        &mut self,
        options: Resource<RequestOptions>,
        time: Option<u64>,
    ) -> Result<Result<(), ()>> {
        self.enter()?;
        self.table.get_mut(&options)?.first_byte = time;
        Ok(Ok(()))
    }

    fn between_bytes_timeout(&mut self, options: Resource<RequestOptions>) -> Result<Option<u64>> {
        self.enter()?;
        Ok(self.table.get(&options)?.between_bytes)
    }

    fn set_between_bytes_timeout(
        &mut self,
        options: Resource<RequestOptions>,
        time: Option<u64>,
    ) -> Result<Result<(), ()>> {
        self.enter()?;
        self.table.get_mut(&options)?.between_bytes = time;
        Ok(Ok(()))
    }

    fn drop(&mut self, options: Resource<RequestOptions>) -> Result<()> {
        self.table.delete(options)?;
        Ok(())
    }
}
