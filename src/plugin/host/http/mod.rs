//! `wasi:http`: what a handler of plain HTTP requests is given and answers, and requests to granted servers.
//!
//! Bodies are whole: a request's is read before the plugin is called, a response's is sent when it has answered well,
//! so that a call stays a value that can be refused, repeated and compared.

mod fields;
mod incoming;
mod outgoing;
mod send;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime::{Error, Result};

use super::{Quota, State, mistake};
use crate::plugin::call::{HttpAnswer, HttpRequest};
use crate::plugin::failure::Why;
use crate::plugin::wit::http::wasi::http as wit;
use wit::types::ErrorCode;

pub use fields::Fields;
pub use incoming::{FutureTrailers, IncomingBody, IncomingRequest, IncomingResponse, seen};
pub use outgoing::{OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam};
pub use send::{FutureResponse, RequestOptions};

/// What an instance knows of the HTTP request that it handles.
#[derive(Default)]
pub(super) struct Http {
    /// Counted, so that the way to answer one request cannot be kept to answer another.
    call: u64,
    answer: Option<Result<OutgoingResponse, ErrorCode>>,
    output: Output,
}

/// Bytes that a call has written into bodies.
#[derive(Clone, Default)]
pub(super) struct Output(Arc<AtomicUsize>);

impl Output {
    fn charge(&self, bytes: usize, limit: usize) -> Result<()> {
        if self.0.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > limit {
            return Err(Error::new(Quota::Output));
        }
        Ok(())
    }
}

impl Http {
    pub(super) fn begin(&mut self) {
        self.answer = None;
        self.output.0.store(0, Ordering::Relaxed);
    }
}

impl State {
    /// What the handler is called with.
    pub fn http_request(
        &mut self,
        request: &HttpRequest,
    ) -> Result<(Resource<IncomingRequest>, Resource<ResponseOutparam>), Why> {
        let full = |_| Why::Quota(Quota::Fixed("resources: the instance has kept too many"));
        self.http.call += 1;
        let request = IncomingRequest::new(request, &self.context.granted);
        let request = self.table.push(request).map_err(full)?;
        let answer = self.table.push(ResponseOutparam { call: self.http.call }).map_err(full)?;
        Ok((request, answer))
    }

    /// What the handler has answered.
    pub fn http_answer(&mut self) -> Result<HttpAnswer, Why> {
        let response = match self.http.answer.take() {
            Some(Ok(response)) => response,
            Some(Err(code)) => return Err(Why::error(format!("the handler answered an error: {code:?}"))),
            None => return Err(Why::error("the handler has returned without a response".to_owned())),
        };
        let body = match response.body {
            None => Bytes::new(),
            Some(mut body) => body.try_recv().map_err(|_| {
                Why::error("the handler has returned before the response's body was finished".to_owned())
            })?,
        };
        Ok(HttpAnswer { status: response.status, headers: Arc::unwrap_or_clone(response.headers), body })
    }
}

impl wit::types::Host for State {
    fn http_error_code(&mut self, error: Resource<wit::types::IoError>) -> Result<Option<ErrorCode>> {
        self.enter()?;
        Ok(self.table.get(&error)?.downcast_ref::<ErrorCode>().cloned())
    }
}

pub fn link(linker: &mut Linker<State>) -> Result<()> {
    let options = crate::plugin::wit::http::LinkOptions::default();
    wit::types::add_to_linker::<_, HasSelf<_>>(linker, &(&options).into(), |state| state)?;
    wit::outgoing_handler::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}
