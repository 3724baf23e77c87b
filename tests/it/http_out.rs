//! A plugin asks other servers: only granted ones, in bounded time, size and number.

use crate::support::Gateway;
use crate::support::guests;
use crate::support::http::{Answer, Upstream, ask};

const LIMITS: &str = "wall = \"2s\", http_requests = 8";

async fn start(grants: &str) -> Gateway {
    let config = format!(
        "[[route]]\nname = \"out\"\npath = \"/out/{{*rest}}\"\nplugins = [\"http\"]\n\n\
         [plugin.http]\nlimits = {{ {LIMITS} }}\n\n[plugin.http.grants]\nhttp = [{grants}]\n"
    );
    Gateway::start_with(&config, &[("http", guests::http())]).await
}

async fn fetch(gateway: &Gateway, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    ask(gateway.address(), "POST", &format!("/out/fetch?{url}"), headers, body).await
}

async fn requests(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("tidegate_plugin_http_requests_total", &format!("plugin=\"http\",result=\"{result}\"")).await
}

#[tokio::test]
async fn a_granted_server_is_asked_over_kept_connections() {
    let upstream = Upstream::start(1).await;
    let gateway = start(&format!("\"{}\"", upstream.address)).await;
    for _ in 0..5 {
        let answer = fetch(&gateway, &upstream.url("/hello"), &[], "").await;
        assert_eq!((answer.status, &*answer.body), (200, "hello"));
    }
    assert_eq!(upstream.connections(), 1);
    let answer = fetch(&gateway, &upstream.url("/echo"), &[], "a body").await;
    let echoed = answer.body.to_ascii_lowercase();
    assert!(echoed.starts_with("post /echo http/1.1\r\n") && echoed.ends_with("\r\n\r\na body"), "{echoed}");
    assert!(echoed.contains(&format!("host: {}\r\n", upstream.address)), "{echoed}");
    assert_eq!(fetch(&gateway, &upstream.url("/moved"), &[], "").await.status, 302, "a redirect is an answer");
    assert_eq!(requests(&gateway, "answered").await, 7.0);
    assert_eq!(gateway.metric("tidegate_plugin_denied_total", "").await, 0.0);
}

#[tokio::test]
async fn any_other_server_is_denied_logged_and_counted() {
    let (granted, other) = (Upstream::start(1).await, Upstream::start(1).await);
    let gateway = start(&format!("\"{}\", \"*.example.org\"", granted.address)).await;
    for url in [other.url("/hello"), "http://localhost/".into(), "https://example.org/".into()] {
        assert_eq!(fetch(&gateway, &url, &[], "").await.status, 403, "{url}");
    }
    // What looks like the granted host and is another.
    let disguised = format!("http://{}@{}/hello", granted.address, other.address);
    assert_eq!(fetch(&gateway, &disguised, &[], "").await.status, 502);
    assert_eq!((granted.connections(), other.connections()), (0, 0));
    assert_eq!(gateway.metric("tidegate_plugin_denied_total", "grant=\"http\",plugin=\"http\"").await, 3.0);
    gateway.log_line(&["denied: no grant", "\"grant\":\"http\"", &other.address.to_string()]).await;
    assert_eq!(requests(&gateway, "answered").await + requests(&gateway, "failed").await, 0.0);
}

#[tokio::test]
async fn nothing_is_granted_by_default() {
    let upstream = Upstream::start(1).await;
    let gateway = start("").await;
    assert_eq!(fetch(&gateway, &upstream.url("/hello"), &[], "").await.status, 403);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_server_that_is_slow_large_or_gone_is_an_error_and_no_failure() {
    let upstream = Upstream::start(1).await;
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let gateway = start(&format!("\"{}\", \"{gone}\"", upstream.address)).await;
    assert_eq!(fetch(&gateway, &upstream.url("/never"), &[("x-timeout", "100")], "").await.status, 504);
    assert_eq!(fetch(&gateway, &upstream.url("/half"), &[("x-timeout", "100")], "").await.status, 504);
    assert_eq!(fetch(&gateway, &upstream.url("/never"), &[], "").await.status, 504, "four fifths of `wall`");
    assert_eq!(
        fetch(&gateway, &upstream.url("/never"), &[("x-timeout", "60000")], "").await.status,
        504,
        "and no more"
    );
    let large = fetch(&gateway, &upstream.url("/large"), &[], "").await;
    assert_eq!((large.status, large.body.contains("too large")), (502, true), "{}", large.body);
    assert_eq!(fetch(&gateway, &format!("http://{gone}/"), &[], "").await.status, 502);
    assert_eq!(fetch(&gateway, &upstream.url("/hello"), &[], "").await.body, "hello");
    assert_eq!(requests(&gateway, "failed").await, 6.0);
    assert_eq!(gateway.metric("tidegate_plugin_call_failures_total", "").await, 0.0);
    let path = format!("/out/insist?{}", upstream.url("/never"));
    assert_eq!(ask(gateway.address(), "GET", &path, &[], "").await.status, 503, "over `wall` with its second request");
    assert_eq!(
        gateway.metric("tidegate_plugin_call_failures_total", "hook=\"http\",plugin=\"http\",why=\"wall\"").await,
        1.0
    );
}

#[tokio::test]
async fn requests_run_side_by_side_up_to_the_plugins_limit() {
    // None of these is answered before all are there.
    let upstream = Upstream::start(8).await;
    let gateway = start(&format!("\"{}\"", upstream.address)).await;
    let (address, url) = (gateway.address(), upstream.url("/together"));
    let path = format!("/out/fetch?{url}");
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let path = path.clone();
        asked.spawn(async move { ask(address, "GET", &path, &[], "").await.body });
    }
    assert_eq!(asked.join_all().await, ["together"; 8]);
    assert_eq!(upstream.connections(), 8);

    let never = format!("/out/fetch?{}", upstream.url("/never"));
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let never = never.clone();
        asked.spawn(async move { ask(address, "GET", &never, &[], "").await.status });
    }
    let mut statuses = asked.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [[502].repeat(4), [504].repeat(8)].concat(), "four were over `http_requests`");
    assert_eq!(requests(&gateway, "limit").await, 4.0);
}
