//! What comes to a plugin: a client's request, another server's response, their bodies.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, COOKIE};
use hyper::{HeaderMap, Method};
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::p2::{DynInputStream, DynPollable, Pollable, subscribe};

use super::fields::strip;
use super::wit::types::{
    ErrorCode, HostFutureTrailers, HostIncomingBody, HostIncomingRequest, HostIncomingResponse, Method as WitMethod,
    Scheme,
};
use super::{Fields, State};
use crate::plugin::call::HttpRequest;
use crate::plugin::grants::Granted;

pub struct IncomingRequest {
    method: Method,
    target: Box<str>,
    authority: Box<str>,
    headers: Arc<HeaderMap>,
    body: Option<Bytes>,
}

pub struct IncomingResponse {
    pub status: u16,
    pub headers: Arc<HeaderMap>,
    pub body: Option<Bytes>,
}

/// A body that is there as a whole; none once its stream was taken.
pub struct IncomingBody(Option<Bytes>);

/// There never are any: they are read and forgotten.
pub struct FutureTrailers {
    taken: bool,
}

#[async_trait]
impl Pollable for FutureTrailers {
    async fn ready(&mut self) {}
}

impl IncomingRequest {
    /// Whoever handles a request sees all of it but what the client proves itself with: that takes a grant, as it does in
    /// hooks.
    pub fn new(request: &HttpRequest, granted: &Granted) -> Self {
        let headers = seen(request, granted);
        Self {
            method: request.method.clone(),
            target: request.target.clone(),
            authority: request.authority.clone(),
            headers: Arc::new(headers),
            body: Some(request.body.clone()),
        }
    }
}

/// The headers of a request that a plugin sees.
pub fn seen(request: &HttpRequest, granted: &Granted) -> HeaderMap {
    let mut headers = strip(request.headers.clone());
    for name in [AUTHORIZATION, COOKIE] {
        if !granted.header(name.as_str()) {
            headers.remove(name);
        }
    }
    headers
}

pub fn wit_method(method: &Method) -> WitMethod {
    match *method {
        Method::GET => WitMethod::Get,
        Method::HEAD => WitMethod::Head,
        Method::POST => WitMethod::Post,
        Method::PUT => WitMethod::Put,
        Method::DELETE => WitMethod::Delete,
        Method::CONNECT => WitMethod::Connect,
        Method::OPTIONS => WitMethod::Options,
        Method::TRACE => WitMethod::Trace,
        Method::PATCH => WitMethod::Patch,
        _ => WitMethod::Other(method.as_str().to_owned()),
    }
}

impl HostIncomingRequest for State {
    fn method(&mut self, request: Resource<IncomingRequest>) -> Result<WitMethod> {
        self.enter()?;
        Ok(wit_method(&self.table.get(&request)?.method))
    }

    fn path_with_query(&mut self, request: Resource<IncomingRequest>) -> Result<Option<String>> {
        self.enter()?;
        Ok(Some(self.table.get(&request)?.target.to_string()))
    }

    fn scheme(&mut self, request: Resource<IncomingRequest>) -> Result<Option<Scheme>> {
        self.enter()?;
        self.table.get(&request)?;
        Ok(Some(Scheme::Http))
    }

    fn authority(&mut self, request: Resource<IncomingRequest>) -> Result<Option<String>> {
        self.enter()?;
        let authority = &self.table.get(&request)?.authority;
        Ok((!authority.is_empty()).then(|| authority.to_string()))
    }

    fn headers(&mut self, request: Resource<IncomingRequest>) -> Result<Resource<Fields>> {
        self.enter()?;
        let headers = Fields::immutable(self.table.get(&request)?.headers.clone());
        Ok(self.table.push_child(headers, &request)?)
    }

    fn consume(&mut self, request: Resource<IncomingRequest>) -> Result<Result<Resource<IncomingBody>, ()>> {
        self.enter()?;
        match self.table.get_mut(&request)?.body.take() {
            Some(body) => Ok(Ok(self.table.push(IncomingBody(Some(body)))?)),
            None => Ok(Err(())),
        }
    }

    fn drop(&mut self, request: Resource<IncomingRequest>) -> Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}

impl HostIncomingResponse for State {
    fn status(&mut self, response: Resource<IncomingResponse>) -> Result<u16> {
        self.enter()?;
        Ok(self.table.get(&response)?.status)
    }

    fn headers(&mut self, response: Resource<IncomingResponse>) -> Result<Resource<Fields>> {
        self.enter()?;
        let headers = Fields::immutable(self.table.get(&response)?.headers.clone());
        Ok(self.table.push_child(headers, &response)?)
    }

    fn consume(&mut self, response: Resource<IncomingResponse>) -> Result<Result<Resource<IncomingBody>, ()>> {
        self.enter()?;
        match self.table.get_mut(&response)?.body.take() {
            Some(body) => Ok(Ok(self.table.push(IncomingBody(Some(body)))?)),
            None => Ok(Err(())),
        }
    }

    fn drop(&mut self, response: Resource<IncomingResponse>) -> Result<()> {
        self.table.delete(response)?;
        Ok(())
    }
}

impl HostIncomingBody for State {
    fn stream(&mut self, body: Resource<IncomingBody>) -> Result<Result<Resource<DynInputStream>, ()>> {
        self.enter()?;
        let Some(bytes) = self.table.get_mut(&body)?.0.take() else { return Ok(Err(())) };
        let stream: DynInputStream = Box::new(MemoryInputPipe::new(bytes));
        Ok(Ok(self.table.push_child(stream, &body)?))
    }

    fn finish(&mut self, body: Resource<IncomingBody>) -> Result<Resource<FutureTrailers>> {
        self.enter()?;
        self.table.delete(body)?;
        Ok(self.table.push(FutureTrailers { taken: false })?)
    }

    fn drop(&mut self, body: Resource<IncomingBody>) -> Result<()> {
        self.table.delete(body)?;
        Ok(())
    }
}

impl HostFutureTrailers for State {
    fn subscribe(&mut self, trailers: Resource<FutureTrailers>) -> Result<Resource<DynPollable>> {
        self.enter()?;
        subscribe(&mut self.table, trailers)
    }

    fn get(
        &mut self,
        trailers: Resource<FutureTrailers>,
    ) -> Result<Option<Result<Result<Option<Resource<Fields>>, ErrorCode>, ()>>> {
        self.enter()?;
        let taken = std::mem::replace(&mut self.table.get_mut(&trailers)?.taken, true);
        Ok(Some(if taken { Err(()) } else { Ok(Ok(None)) }))
    }

    fn drop(&mut self, trailers: Resource<FutureTrailers>) -> Result<()> {
        self.table.delete(trailers)?;
        Ok(())
    }
}
