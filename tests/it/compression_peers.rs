//! Compression with clients that are not ours: npm `ws`, PyPI `websockets`, and a browser.

use fantoccini::Client;
use serde_json::{Value, json};

use crate::support::Gateway;
use crate::support::browser::{Page, with_browser};
use crate::support::deflate::ALONE;
use crate::support::peers::Peer;

const CONFIG: &str = r#"
[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
compression = true
limits = { message = "1MiB" }

[[route]]
name = "takeover"
path = "/takeover"
plugins = ["echo"]
compression = { context_takeover = true, threshold = 0 }
limits = { message = "1MiB" }

[[route]]
name = "small"
path = "/small"
plugins = ["echo"]
compression = { context_takeover = true, window = 9, level = 9, threshold = 0 }
limits = { message = "1MiB" }

[[files]]
path = "/"
directory = "pages"
"#;

/// Route, the peer's options, and what must be agreed on.
type Case = (&'static str, &'static str, &'static str);

async fn gateway() -> Gateway {
    let directory = Gateway::prepare(CONFIG, &[]);
    let pages = directory.path().join("pages");
    std::fs::create_dir(&pages).unwrap();
    std::fs::write(pages.join("page.html"), "<!doctype html><title>echo</title>").unwrap();
    Gateway::run(directory).await
}

#[tokio::test]
async fn npm_ws_hears_what_it_has_said() {
    let gateway = gateway().await;
    let cases: [Case; 6] = [
        ("/echo", "{\"threshold\":0}", ALONE),
        ("/takeover", "{\"threshold\":0}", "permessage-deflate"),
        (
            "/takeover",
            "{\"threshold\":0,\"clientNoContextTakeover\":true}",
            "permessage-deflate; client_no_context_takeover",
        ),
        (
            "/takeover",
            "{\"threshold\":0,\"serverNoContextTakeover\":true,\"serverMaxWindowBits\":10}",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=10",
        ),
        ("/small", "{\"threshold\":0,\"clientMaxWindowBits\":9}", "permessage-deflate; server_max_window_bits=9"),
        ("/echo", "false", ""),
    ];
    for (path, options, agreed) in cases {
        let Some(said) = Peer::Ws.talk("npm_ws_hears_what_it_has_said", &gateway.ws_url(path), options).await else {
            return;
        };
        assert_eq!(said["received"], 48, "{said}");
        let header = if agreed.is_empty() { "" } else { "permessage-deflate" };
        assert_eq!(said["extensions"], header, "{options}");
        let (bytes, echoed) = (said["bytes"].as_u64().unwrap(), said["echoed"].as_u64().unwrap());
        assert_eq!(bytes < echoed / 4, !agreed.is_empty(), "{path} {options}: {said}");
    }
    assert_eq!(gateway.metric("tidegate_inflation_refused_total", "").await, 0.0);
}

#[tokio::test]
async fn python_websockets_hears_what_it_has_said() {
    let gateway = gateway().await;
    let cases: [Case; 6] = [
        ("/echo", "{}", ALONE),
        (
            "/echo",
            "{\"server_max_window_bits\":9,\"client_max_window_bits\":9}",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9",
        ),
        ("/takeover", "{}", "permessage-deflate"),
        ("/takeover", "{\"server_no_context_takeover\":true}", "permessage-deflate; server_no_context_takeover"),
        (
            "/takeover",
            "{\"client_no_context_takeover\":true,\"server_max_window_bits\":11}",
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=11",
        ),
        ("/small", "{}", "permessage-deflate; server_max_window_bits=9"),
    ];
    for (path, options, agreed) in cases {
        let test = "python_websockets_hears_what_it_has_said";
        let Some(said) = Peer::Websockets.talk(test, &gateway.ws_url(path), options).await else { return };
        assert_eq!(said, json!({ "extensions": agreed, "received": 160 }), "{path} {options}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_hears_what_it_has_said() {
    let gateway = gateway().await;
    with_browser("compression", |client| in_browser(client, gateway)).await;
}

async fn in_browser(client: Client, gateway: Gateway) {
    let page = Page::open(&client, &format!("{}/page.html", gateway.url())).await;
    for path in ["/echo", "/takeover", "/small"] {
        let talk = format!(
            "(window.heard = [], window.socket = new WebSocket('{}'), socket.onopen = () => {{ \
               for (let n = 0; n < 20; n++) socket.send(JSON.stringify(Array(n * 20).fill({{ n, kind: 'quote' }}))); \
             }}, socket.onmessage = (event) => heard.push(event.data), \
             socket.onclose = (event) => heard.push(event.code), null)",
            gateway.ws_url(path)
        );
        page.value(&talk).await;
        page.until("heard.length", json!(20)).await;
        let extensions = page.value("socket.extensions").await;
        assert!(extensions.as_str().is_some_and(|all| all.starts_with("permessage-deflate")), "{path}: {extensions}");
        let heard = page.value("heard").await;
        for (n, text) in heard.as_array().unwrap().iter().enumerate() {
            let expected = vec![json!({ "n": n, "kind": "quote" }); n * 20];
            assert_eq!(serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap(), json!(expected));
        }
    }
    assert_eq!(gateway.metric("tidegate_compressed_sessions", "").await, 3.0);
    let (plain, compressed) = (
        gateway.metric("tidegate_compression_plain_bytes_total", "").await,
        gateway.metric("tidegate_compression_bytes_total", "").await,
    );
    assert!(compressed > 0.0 && compressed < plain / 10.0, "{plain} became {compressed}");
    assert_eq!(gateway.metric("tidegate_inflation_refused_total", "").await, 0.0);
}
