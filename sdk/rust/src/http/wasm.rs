//! Between the types of `http` and the standard's.

use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    RequestOptions, ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

use super::{Error, Headers, Request, Response};
use crate::Result;

/// What is written at once: the standard's own limit for this way of writing.
const CHUNK: usize = 4096;

pub fn answer(handle: fn(Request) -> Result<Response>, request: IncomingRequest, answer: ResponseOutparam) {
    let response = incoming(&request).and_then(handle).and_then(|response| {
        let fields = fields(&response.headers)?;
        let outgoing = OutgoingResponse::new(fields);
        let set = outgoing.set_status_code(response.status);
        set.map_err(|()| format!("{} is not a status that can be answered", response.status))?;
        Ok((outgoing, response.body))
    });
    match response {
        Ok((outgoing, content)) => {
            let body = outgoing.body();
            ResponseOutparam::set(answer, Ok(outgoing));
            if let Ok(body) = body {
                let _ = write(body, &content);
            }
        }
        Err(error) => ResponseOutparam::set(answer, Err(ErrorCode::InternalError(Some(error.into_message())))),
    }
}

fn incoming(request: &IncomingRequest) -> Result<Request> {
    let headers = Headers(request.headers().entries());
    let body = match request.consume() {
        Ok(body) => read(body)?,
        Err(()) => Vec::new(),
    };
    Ok(Request {
        method: name(request.method()),
        origin: String::new(),
        target: request.path_with_query().unwrap_or_default(),
        headers,
        body,
        timeout: None,
    })
}

pub(super) fn send(request: Request) -> Result<Response, Error> {
    let failed = |what: &str| Error::Failed(format!("{what}: {}{}", request.origin, request.target));
    let outgoing = OutgoingRequest::new(fields(&request.headers).map_err(|error| failed(error.message()))?);
    let (scheme, authority) = match request.origin.split_once("://") {
        Some((scheme, authority)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, authority),
        Some((scheme, authority)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, authority),
        _ => return Err(failed("not a URL of http or https")),
    };
    outgoing.set_method(&method(&request.method)).map_err(|()| failed("not a method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| failed("not a scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(|()| failed("not a host"))?;
    outgoing.set_path_with_query(Some(&request.target)).map_err(|()| failed("not a path"))?;
    let options = request.timeout.map(|time: Duration| {
        let options = RequestOptions::new();
        let nanoseconds = Some(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let _ = options.set_connect_timeout(nanoseconds);
        let _ = options.set_first_byte_timeout(nanoseconds);
        let _ = options.set_between_bytes_timeout(nanoseconds);
        options
    });
    let body = outgoing.body().map_err(|()| failed("no body"))?;
    let answer = outgoing_handler::handle(outgoing, options).map_err(error)?;
    write(body, &request.body).map_err(error)?;
    answer.subscribe().block();
    let response = match answer.get() {
        Some(Ok(result)) => result.map_err(error)?,
        _ => return Err(failed("no answer")),
    };
    let status = response.status();
    let headers = Headers(response.headers().entries());
    let body = response.consume().map_err(|()| failed("no body"))?;
    let body = read(body).map_err(|error| failed(error.message()))?;
    Ok(Response { status, headers, body })
}

fn fields(headers: &Headers) -> Result<Fields> {
    Ok(Fields::from_list(&headers.0).map_err(|error| format!("a header cannot be sent: {error}"))?)
}

fn read(body: IncomingBody) -> Result<Vec<u8>> {
    let stream = body.stream().map_err(|()| "the body was read already")?;
    let mut read = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(bytes) => read.extend(bytes),
            Err(StreamError::Closed) => return Ok(read),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string().into()),
        }
    }
}

fn write(body: OutgoingBody, content: &[u8]) -> Result<(), ErrorCode> {
    if let Ok(stream) = body.write() {
        for chunk in content.chunks(CHUNK) {
            if stream.blocking_write_and_flush(chunk).is_err() {
                break;
            }
        }
    }
    OutgoingBody::finish(body, None)
}

fn error(code: ErrorCode) -> Error {
    match code {
        ErrorCode::HttpRequestDenied => Error::Denied,
        ErrorCode::HttpResponseTimeout | ErrorCode::ConnectionTimeout | ErrorCode::ConnectionReadTimeout => {
            Error::Timeout
        }
        ErrorCode::HttpResponseBodySize(_) => Error::TooLarge,
        other => Error::Failed(other.to_string()),
    }
}

fn name(method: Method) -> String {
    match method {
        Method::Get => "GET".to_owned(),
        Method::Head => "HEAD".to_owned(),
        Method::Post => "POST".to_owned(),
        Method::Put => "PUT".to_owned(),
        Method::Delete => "DELETE".to_owned(),
        Method::Connect => "CONNECT".to_owned(),
        Method::Options => "OPTIONS".to_owned(),
        Method::Trace => "TRACE".to_owned(),
        Method::Patch => "PATCH".to_owned(),
        Method::Other(name) => name,
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}
