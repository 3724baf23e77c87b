//! Who comes in: a token decides before the upgrade, wherever it is shown, and for as long as it is good.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::Gateway;
use crate::support::client::{Client, Raw, handshake};

const CONFIG: &str = r#"
[[route]]
name = "echo"
path = "/echo"
plugins = ["jwt-auth", "echo"]

[plugin.jwt-auth.grants]
headers = ["authorization", "cookie"]

[plugin.jwt-auth.config]
secret = "0123456789abcdef0123456789abcdef"
leeway = 0
"#;

async fn by_query(gateway: &Gateway, token: &str) -> Result<Client, u16> {
    Client::try_connect(&gateway.ws_url(&format!("/echo?token={token}")), &[]).await
}

async fn refused(gateway: &Gateway) -> f64 {
    gateway.metric("tidegate_handshakes_total", "status=\"401\"").await
}

#[tokio::test]
async fn a_good_token_is_taken_from_header_query_and_subprotocol() {
    let gateway = Gateway::start(CONFIG).await;
    let token = gateway.token("alice");
    let mut client = by_query(&gateway, &token).await.unwrap();
    assert_eq!(client.ask("query").await, "query");
    let header = format!("Bearer {token}");
    let mut client = Client::try_connect(&gateway.ws_url("/echo"), &[("authorization", &header)]).await.unwrap();
    assert_eq!(client.ask("header").await, "header");
    // The two subprotocols that a browser offers; of them the token is not sent back.
    let offer = format!("bearer, {token}");
    let mut client =
        Client::try_connect(&gateway.ws_url("/echo"), &[("sec-websocket-protocol", &offer)]).await.unwrap();
    assert_eq!(client.ask("subprotocol").await, "subprotocol");
    let request = handshake(gateway.address(), "/echo")
        .replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Protocol: {offer}\r\n\r\n"));
    let mut raw = Raw(tokio::net::TcpStream::connect(gateway.address()).await.unwrap());
    raw.send(request.as_bytes()).await;
    let head = raw.head().await.to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("sec-websocket-protocol: bearer\r\n"), "{head}");
    assert_eq!(gateway.metric("tidegate_handshakes_total", "status=\"101\"").await, 4.0);
    assert_eq!(refused(&gateway).await, 0.0);
}

#[tokio::test]
async fn a_bad_token_is_refused_before_the_upgrade() {
    let gateway = Gateway::start(CONFIG).await;
    let good = gateway.token("alice");
    let parts: Vec<_> = good.split('.').collect();
    let (head, claims, signature) = (parts[0], parts[1], parts[2]);
    let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let forever = encode(json!({ "sub": "mallory", "iat": 0, "exp": 4_102_444_800_u64 }));
    let none = encode(json!({ "alg": "none", "typ": "JWT" }));
    let flipped = match signature.as_bytes()[20] {
        b'A' => 'B',
        _ => 'A',
    };
    let bad = [
        ("empty", String::new()),
        ("no token", "not-a-token".to_owned()),
        ("another signature", format!("{head}.{claims}.{}{flipped}{}", &signature[..20], &signature[21..])),
        ("no signature", format!("{head}.{claims}.")),
        ("other claims", format!("{head}.{forever}.{signature}")),
        ("alg none", format!("{none}.{forever}.")),
        ("alg none, signed", format!("{none}.{forever}.{signature}")),
        ("expired", gateway.token_for("alice", "0s")),
    ];
    for (count, (why, token)) in bad.iter().enumerate() {
        assert_eq!(by_query(&gateway, token).await.err(), Some(401), "{why}");
        assert_eq!(refused(&gateway).await, (count + 1) as f64, "{why}");
    }
    assert_eq!(Client::try_connect(&gateway.ws_url("/echo"), &[]).await.err(), Some(401), "none at all");
    let cookie = [("cookie", format!("token={good}"))];
    let cookie = Client::try_connect(&gateway.ws_url("/echo"), &[(cookie[0].0, &cookie[0].1)]).await;
    assert_eq!(cookie.err(), Some(401), "cookies are not read unless configured: another site's page could use them");
    assert_eq!(gateway.metric("tidegate_handshakes_total", "status=\"101\"").await, 0.0);
    assert_eq!(gateway.metric("tidegate_sessions", "echo").await, 0.0, "a refused client takes no place");
    // The refusal is a whole answer that says why, and how to do better.
    let mut raw = Raw(tokio::net::TcpStream::connect(gateway.address()).await.unwrap());
    raw.send(handshake(gateway.address(), "/echo").as_bytes()).await;
    let head = raw.head().await.to_lowercase();
    assert!(head.starts_with("http/1.1 401") && head.contains("www-authenticate: bearer"), "{head}");
}

#[tokio::test]
async fn the_session_ends_with_its_token() {
    let gateway = Gateway::start(CONFIG).await;
    let mut lasting = by_query(&gateway, &gateway.token("bob")).await.unwrap();
    let mut client = by_query(&gateway, &gateway.token_for("alice", "2s")).await.unwrap();
    assert_eq!(client.ask("still here").await, "still here");
    assert_eq!(client.closed().await, Some(3000));
    let closes = "by=\"gateway\",code=\"3000\"";
    assert_eq!(gateway.metric("tidegate_closes_total", closes).await, 1.0);
    assert_eq!(lasting.ask("I have time").await, "I have time");
}

#[tokio::test]
async fn a_replaced_file_does_not_open_the_door() {
    let gateway = Gateway::start(CONFIG).await;
    let open = std::fs::read(gateway.plugin_dir().join("echo.wasm")).unwrap();
    gateway.replace("jwt-auth", &open);
    gateway.log_line(&["the new file cannot serve", "jwt-auth.wasm", "no hook `authenticate`"]).await;
    let refused = "plugin=\"jwt-auth\",result=\"refused\"";
    assert_eq!(gateway.metric("tidegate_plugin_reloads_total", refused).await, 1.0);
    assert_eq!(Client::try_connect(&gateway.ws_url("/echo"), &[]).await.err(), Some(401));
    let mut alice = by_query(&gateway, &gateway.token("alice")).await.unwrap();
    assert_eq!(alice.ask("the old lock").await, "the old lock");
}
