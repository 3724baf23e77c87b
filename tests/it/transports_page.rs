//! What a browser makes of the transports: Chromium over TLS 1.3 and HTTP/2, a WebSocket as a stream of the same connection,
//! and an EventSource that comes back by itself to where it stood.

use fantoccini::Client as Browser;
use serde_json::{Value, json};

use crate::support::browser::with_browser;
use crate::support::guests::{RELAY_MAY, relay};
use crate::support::tls::{Authority, Tls};
use crate::support::{Gateway, until};

const CONFIG: &str = r#"
[tls]
certificates = [{ cert = "first.pem", key = "first.key" }]
min_version = "1.3"

[[topic]]
pattern = "log:*"
history = { size = 100, ttl = "1h" }

[[route]]
name = "relay"
path = "/relay"
plugins = ["relay"]
transports = ["websocket", "sse"]
"#;

/// Begins a socket and an event stream, and keeps what they hear.
const PAGE: &str = r#"
window.heard = [];
window.said = [];
window.tokens = [];
window.closes = [];
window.socket = new WebSocket(`wss://${location.host}/relay`);
socket.onmessage = event => said.push(event.data);
window.events = new EventSource("/relay");
events.addEventListener("session", event => tokens.push(JSON.parse(event.data).session));
events.onmessage = event => heard.push(event.data);
events.addEventListener("close", event => closes.push(JSON.parse(event.data).code));
window.post = text => fetch("/relay", {
  method: "POST", body: text, headers: { "Tidegate-Session": tokens.at(-1) },
});
"#;

async fn value(browser: &Browser, script: &str) -> Value {
    browser.execute(&format!("return {script}"), Vec::new()).await.unwrap()
}

/// Waits until the page says so.
async fn shows(browser: &Browser, what: &str, script: &str) {
    until(what, || async { (value(browser, script).await == json!(true)).then_some(()) }).await;
}

#[tokio::test]
async fn a_browser_has_all_of_it_on_one_connection() {
    let authority = Authority::new();
    let directory = Gateway::prepare(&format!("{CONFIG}{RELAY_MAY}"), &[("relay", relay())]);
    authority.sign(&["localhost"]).write(directory.path(), "first");
    let gateway = Gateway::run(directory).await;
    let url = format!("https://localhost:{}/relay", gateway.address().port());
    with_browser("transports_page", |browser| async move {
        browser.goto(&url).await.unwrap();
        let protocol = value(&browser, "performance.getEntriesByType('navigation')[0].nextHopProtocol").await;
        assert_eq!(protocol, "h2");
        browser.execute(PAGE, Vec::new()).await.unwrap();
        shows(&browser, "both sessions", "heard.length == 1 && said.length == 1").await;
        assert_eq!(gateway.metric("tidegate_http2_connections", "").await, 1.0);
        assert_eq!(gateway.metric("tidegate_connections", "public").await, 1.0, "the socket is a stream of it");

        value(&browser, "post('join log:x').then(answer => answer.status)").await;
        shows(&browser, "the subscription", "heard.at(-1).startsWith('subscribed log:x ')").await;
        value(&browser, "socket.send('say log:x one')").await;
        shows(&browser, "the publication", "heard.at(-1) == 'log:x 1 one' && said.at(-1) == 'ok one'").await;

        // The session ends; EventSource comes back by itself, with the id of the last event.
        let left = "fetch('/relay', { method: 'DELETE', headers: { 'Tidegate-Session': tokens.at(-1) } })";
        value(&browser, left).await;
        shows(&browser, "the end", "closes.length == 1 && closes[0] == 1001").await;
        let mut socket = Tls::trusting(&authority).websocket(gateway.address(), "/relay").await.unwrap();
        for text in ["two", "three"] {
            use futures_util::{SinkExt, StreamExt};
            let say = tokio_tungstenite::tungstenite::Message::text(format!("say log:x {text}"));
            socket.send(say).await.unwrap();
            socket.next().await.unwrap().unwrap();
        }
        shows(&browser, "its return", "tokens.length == 2").await;
        value(&browser, "post('join log:x')").await;
        shows(&browser, "what it missed", "heard.slice(-2).join() == 'log:x 2 two,log:x 3 three'").await;
        assert!(value(&browser, "heard.at(-3)").await.as_str().unwrap().starts_with("recovered log:x "));
        assert_eq!(gateway.metric("tidegate_tls_handshakes_total", "result=\"failed\"").await, 0.0);
    })
    .await;
}
