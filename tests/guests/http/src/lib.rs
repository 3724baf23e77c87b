//! Answers plain HTTP requests by what their paths ask for, so that tests can ask for anything.

#![allow(clippy::panic, reason = "tests ask for it")]

use std::time::Duration;

use tidegate_sdk::http::{Error, Request, Response};
use tidegate_sdk::{Result, config, kv, topics, users};

/// A test replaces it in the file.
const BUILD: &str = "build-one";

fn handle(request: Request) -> Result<Response> {
    let path = request.path().rsplit('/').next().unwrap_or_default().to_owned();
    match path.as_str() {
        "echo" => echo(&request),
        "publish" => publish(&request, Response::new(202)),
        "publish-and-trap" => {
            publish(&request, Response::new(202))?;
            panic!("after the publication");
        }
        "publish-and-fail" => {
            publish(&request, Response::new(202))?;
            Err("the handler is not content".into())
        }
        "publish-and-spin" => {
            publish(&request, Response::new(202))?;
            loop {
                std::hint::black_box(0);
            }
        }
        "tell" => {
            users::send(request.query(), request.text()?)?;
            Ok(Response::new(204))
        }
        "count" => Ok(Response::text(kv::increment("count", 1, None)?.to_string())),
        "large" => Ok(Response::new(200).body(vec![b'a'; request.query().parse()?])),
        "status" => Ok(Response::new(request.query().parse()?)),
        "fetch" => fetch(&request),
        "insist" => loop {
            let answer = fetch(&request)?;
            if answer.status() == 200 {
                return Ok(answer);
            }
        },
        _ => Ok(Response::new(404)),
    }
}

/// What the handler sees, and what it may read.
fn echo(request: &Request) -> Result<Response> {
    let seen = serde_json::json!({
        "build": std::hint::black_box(BUILD),
        "name": config::get("name"),
        "method": request.method(),
        "path": request.path(),
        "query": request.query(),
        "body": String::from_utf8_lossy(request.bytes()),
        "length": request.bytes().len(),
        "host": request.header_value("host"),
        "accept": request.header_value("accept"),
        "authorization": request.header_value("authorization"),
        "cookie": request.header_value("cookie"),
        "user": request.user(),
        "role": request.attribute("role"),
        "parameter": request.parameter("room"),
        "peer": request.peer_address(),
    });
    Ok(Response::json(&seen)?.header("x-handler", "http"))
}

fn publish(request: &Request, response: Response) -> Result<Response> {
    let topic = request.parameter("room").map_or_else(|| "room:all".to_owned(), |room| format!("room:{room}"));
    topics::publish(&topic, request.text()?)?;
    Ok(response)
}

/// Asks the URL that is the query, with the body if there is one.
fn fetch(request: &Request) -> Result<Response> {
    let method = if request.bytes().is_empty() { "GET" } else { "POST" };
    let mut outgoing = Request::new(method, request.query()).body(request.bytes());
    if let Some(time) = request.header_value("x-timeout") {
        outgoing = outgoing.timeout(Duration::from_millis(time.parse()?));
    }
    Ok(match outgoing.send() {
        Ok(answer) => Response::new(answer.status()).body(answer.bytes()),
        Err(Error::Denied) => Response::new(403),
        Err(Error::Timeout) => Response::new(504),
        Err(error) => Response::new(502).body(error.to_string()),
    })
}

tidegate_sdk::http_handler!(handle);
