//! What a plugin makes: the response to a client, requests to other servers, their bodies.

use std::str::FromStr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::Method;
use hyper::header::{CONTENT_LENGTH, HeaderMap};
use hyper::http::uri::{Authority, PathAndQuery};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamError};

use super::incoming::wit_method;
use super::wit::types::{
    ErrorCode, HostOutgoingBody, HostOutgoingRequest, HostOutgoingResponse, HostResponseOutparam, Method as WitMethod,
    Scheme,
};
use super::{Fields, Output, State, mistake};

/// What a guest may write at once.
const CHUNK: usize = 64 << 10;

pub struct OutgoingResponse {
    pub status: u16,
    pub headers: Arc<HeaderMap>,
    /// None: without a body. Comes when the body is finished.
    pub body: Option<oneshot::Receiver<Bytes>>,
}

pub struct OutgoingRequest {
    pub method: Method,
    pub https: bool,
    pub authority: Option<Authority>,
    pub target: Option<PathAndQuery>,
    pub headers: Arc<HeaderMap>,
    pub body: Option<oneshot::Receiver<Bytes>>,
}

/// The way to answer the request of one call.
pub struct ResponseOutparam {
    pub call: u64,
}

/// A body that is being written.
pub struct OutgoingBody {
    written: Arc<Mutex<BytesMut>>,
    /// As the headers announce it.
    length: Option<u64>,
    of_request: bool,
    has_stream: bool,
    finished: oneshot::Sender<Bytes>,
}

struct Writer {
    written: Arc<Mutex<BytesMut>>,
    output: Output,
    limit: usize,
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.output.charge(bytes.len(), self.limit).map_err(StreamError::Trap)?;
        self.written.lock().extend_from_slice(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(CHUNK)
    }
}

impl OutgoingBody {
    fn new(headers: &HeaderMap, of_request: bool) -> (Self, oneshot::Receiver<Bytes>) {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let (finished, body) = oneshot::channel();
        (Self { written: Arc::default(), length, of_request, has_stream: false, finished }, body)
    }
}

impl HostOutgoingBody for State {
    fn write(&mut self, body: Resource<OutgoingBody>) -> Result<Result<Resource<DynOutputStream>, ()>> {
        self.enter()?;
        let limit = self.context.limits.output.0;
        let output = self.http.output.clone();
        let known = self.table.get_mut(&body)?;
        if std::mem::replace(&mut known.has_stream, true) {
            return Ok(Err(()));
        }
        let stream: DynOutputStream = Box::new(Writer { written: known.written.clone(), output, limit });
        Ok(Ok(self.table.push_child(stream, &body)?))
    }

    fn finish(
        &mut self,
        body: Resource<OutgoingBody>,
        trailers: Option<Resource<Fields>>,
    ) -> Result<Result<(), ErrorCode>> {
        self.enter()?;
        let body = self.table.delete(body)?;
        if let Some(trailers) = trailers {
            // Taken and not sent: hardly a client reads them.
            self.table.delete(trailers)?;
        }
        let written = std::mem::take(&mut *body.written.lock()).freeze();
        let length = written.len() as u64;
        if body.length.is_some_and(|announced| announced != length) {
            let code = if body.of_request { ErrorCode::HttpRequestBodySize } else { ErrorCode::HttpResponseBodySize };
            return Ok(Err(code(Some(length))));
        }
        // Nobody waits for the body of a response that was dropped.
        let _ = body.finished.send(written);
        Ok(Ok(()))
    }

    fn drop(&mut self, body: Resource<OutgoingBody>) -> Result<()> {
        self.table.delete(body)?;
        Ok(())
    }
}

impl HostOutgoingResponse for State {
    fn new(&mut self, headers: Resource<Fields>) -> Result<Resource<OutgoingResponse>> {
        self.enter()?;
        let headers = self.table.delete(headers)?.into_map();
        Ok(self.table.push(OutgoingResponse { status: 200, headers, body: None })?)
    }

    fn status_code(&mut self, response: Resource<OutgoingResponse>) -> Result<u16> {
        self.enter()?;
        Ok(self.table.get(&response)?.status)
    }

    fn set_status_code(&mut self, response: Resource<OutgoingResponse>, status: u16) -> Result<Result<(), ()>> {
        self.enter()?;
        let response = self.table.get_mut(&response)?;
        // Below 200 are those that a final response follows.
        if !(200..=599).contains(&status) {
            return Ok(Err(()));
        }
        response.status = status;
        Ok(Ok(()))
    }

    fn headers(&mut self, response: Resource<OutgoingResponse>) -> Result<Resource<Fields>> {
        self.enter()?;
        let headers = Fields::immutable(self.table.get(&response)?.headers.clone());
        Ok(self.table.push_child(headers, &response)?)
    }

    fn body(&mut self, response: Resource<OutgoingResponse>) -> Result<Result<Resource<OutgoingBody>, ()>> {
        self.enter()?;
        let response = self.table.get_mut(&response)?;
        if response.body.is_some() {
            return Ok(Err(()));
        }
        let (body, finished) = OutgoingBody::new(&response.headers, false);
        response.body = Some(finished);
        Ok(Ok(self.table.push(body)?))
    }

    fn drop(&mut self, response: Resource<OutgoingResponse>) -> Result<()> {
        self.table.delete(response)?;
        Ok(())
    }
}

impl HostResponseOutparam for State {
    fn send_informational(
        &mut self,
        _: Resource<ResponseOutparam>,
        _: u16,
        headers: Resource<Fields>,
    ) -> Result<Result<(), ErrorCode>> {
        self.enter()?;
        self.table.delete(headers)?;
        Ok(Err(ErrorCode::InternalError(Some("informational responses are not sent".to_owned()))))
    }

    fn set(
        &mut self,
        outparam: Resource<ResponseOutparam>,
        response: Result<Resource<OutgoingResponse>, ErrorCode>,
    ) -> Result<()> {
        self.enter()?;
        let outparam = self.table.delete(outparam)?;
        if outparam.call != self.http.call {
            return Err(mistake("a response to a request of an earlier call".to_owned()));
        }
        self.http.answer = Some(match response {
            Ok(response) => Ok(self.table.delete(response)?),
            Err(code) => Err(code),
        });
        Ok(())
    }

    fn drop(&mut self, outparam: Resource<ResponseOutparam>) -> Result<()> {
        self.table.delete(outparam)?;
        Ok(())
    }
}

impl HostOutgoingRequest for State {
    fn new(&mut self, headers: Resource<Fields>) -> Result<Resource<OutgoingRequest>> {
        self.enter()?;
        let headers = self.table.delete(headers)?.into_map();
        let request =
            OutgoingRequest { method: Method::GET, https: true, authority: None, target: None, headers, body: None };
        Ok(self.table.push(request)?)
    }

    fn body(&mut self, request: Resource<OutgoingRequest>) -> Result<Result<Resource<OutgoingBody>, ()>> {
        self.enter()?;
        let request = self.table.get_mut(&request)?;
        if request.body.is_some() {
            return Ok(Err(()));
        }
        let (body, finished) = OutgoingBody::new(&request.headers, true);
        request.body = Some(finished);
        Ok(Ok(self.table.push(body)?))
    }

    fn method(&mut self, request: Resource<OutgoingRequest>) -> Result<WitMethod> {
        self.enter()?;
        Ok(wit_method(&self.table.get(&request)?.method))
    }

    fn set_method(&mut self, request: Resource<OutgoingRequest>, method: WitMethod) -> Result<Result<(), ()>> {
        self.enter()?;
        let request = self.table.get_mut(&request)?;
        request.method = match method {
            WitMethod::Get => Method::GET,
            WitMethod::Head => Method::HEAD,
            WitMethod::Post => Method::POST,
            WitMethod::Put => Method::PUT,
            WitMethod::Delete => Method::DELETE,
            WitMethod::Options => Method::OPTIONS,
            WitMethod::Trace => Method::TRACE,
            WitMethod::Patch => Method::PATCH,
            // It would make a tunnel of the connection.
            WitMethod::Connect => return Ok(Err(())),
            WitMethod::Other(name) => match Method::from_str(&name) {
                Ok(Method::CONNECT) | Err(_) => return Ok(Err(())),
                Ok(method) => method,
            },
        };
        Ok(Ok(()))
    }

    fn path_with_query(&mut self, request: Resource<OutgoingRequest>) -> Result<Option<String>> {
        self.enter()?;
        Ok(self.table.get(&request)?.target.as_ref().map(ToString::to_string))
    }

    fn set_path_with_query(
        &mut self,
        request: Resource<OutgoingRequest>,
        target: Option<String>,
    ) -> Result<Result<(), ()>> {
        self.enter()?;
        let request = self.table.get_mut(&request)?;
        let Ok(target) = target.filter(|target| !target.is_empty()).map(PathAndQuery::try_from).transpose() else {
            return Ok(Err(()));
        };
        request.target = target;
        Ok(Ok(()))
    }

    fn scheme(&mut self, request: Resource<OutgoingRequest>) -> Result<Option<Scheme>> {
        self.enter()?;
        Ok(Some(if self.table.get(&request)?.https { Scheme::Https } else { Scheme::Http }))
    }

    fn set_scheme(&mut self, request: Resource<OutgoingRequest>, scheme: Option<Scheme>) -> Result<Result<(), ()>> {
        self.enter()?;
        let request = self.table.get_mut(&request)?;
        request.https = match scheme {
            None | Some(Scheme::Https) => true,
            Some(Scheme::Http) => false,
            Some(Scheme::Other(_)) => return Ok(Err(())),
        };
        Ok(Ok(()))
    }

    fn authority(&mut self, request: Resource<OutgoingRequest>) -> Result<Option<String>> {
        self.enter()?;
        Ok(self.table.get(&request)?.authority.as_ref().map(ToString::to_string))
    }

    fn set_authority(
        &mut self,
        request: Resource<OutgoingRequest>,
        authority: Option<String>,
    ) -> Result<Result<(), ()>> {
        self.enter()?;
        let request = self.table.get_mut(&request)?;
        let Ok(authority) = authority.map(Authority::try_from).transpose() else { return Ok(Err(())) };
        // A name and password there would make one host look like another.
        if authority.as_ref().is_some_and(|authority| authority.as_str().contains('@')) {
            return Ok(Err(()));
        }
        request.authority = authority;
        Ok(Ok(()))
    }

    fn headers(&mut self, request: Resource<OutgoingRequest>) -> Result<Resource<Fields>> {
        self.enter()?;
        let headers = Fields::immutable(self.table.get(&request)?.headers.clone());
        Ok(self.table.push_child(headers, &request)?)
    }

    fn drop(&mut self, request: Resource<OutgoingRequest>) -> Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}
