//! TLS towards clients: which certificate, which version, whose certificate; replaced while sessions live.

use std::process::Command;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::HandshakeKind;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{Client, Raw, exchange};
use crate::support::guests::hooks;
use crate::support::tls::{Authority, Identity, TLS12, TLS13, Tls};
use crate::support::{Gateway, PATIENCE, tidegate, until};

const ROUTES: &str = r#"
[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]

[[route]]
name = "hooks"
path = "/hooks"
plugins = ["hooks"]
"#;
const CERTIFICATES: &str = "certificates = [{ cert = \"first.pem\", key = \"first.key\" }]\n";

/// A gateway with a `[tls]` table and the certificates `first` and what else `files` has.
async fn start(tls: &str, files: &[(&str, &Identity)]) -> Gateway {
    let directory = Gateway::prepare(&format!("{tls}{ROUTES}"), &[("hooks", hooks())]);
    for (name, identity) in files {
        identity.write(directory.path(), name);
    }
    Gateway::run(directory).await
}

async fn handshakes(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("tidegate_tls_handshakes_total", &format!("result=\"{result}\"")).await
}

/// Waits for the count: a client may know that a handshake is over before the gateway has counted it.
async fn counted(gateway: &Gateway, result: &str, count: f64) {
    until(&format!("{count} handshakes that are {result}"), || async {
        (handshakes(gateway, result).await == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_gets_the_certificate_for_the_name_it_asks_for() {
    let authority = Authority::new();
    let (first, second) = (authority.sign(&["localhost"]), authority.sign(&["*.example.org", "example.org"]));
    let tls = "[tls]\ncertificates = [{ cert = \"first.pem\", key = \"first.key\" }, { cert = \"second.pem\", key = \"second.key\" }]\n";
    let gateway = start(tls, &[("first", &first), ("second", &second)]).await;
    for (versions, protocol) in [(TLS12, "TLSv1_2"), (TLS13, "TLSv1_3")] {
        let client = Tls::with(&authority, versions, &[], None);
        for (name, expected) in [("localhost", &first), ("www.example.org", &second), ("example.org", &second)] {
            let stream = client.connect(gateway.address(), name).await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.peer_certificates().unwrap()[0], expected.der(), "{name}");
            assert_eq!(format!("{:?}", session.protocol_version().unwrap()), protocol);
        }
        // The first is shown to those who ask for another name, and refused by them.
        let error = client.connect(gateway.address(), "elsewhere.example").await.unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{error}");
        let mut socket = client.websocket(gateway.address(), "/echo").await.unwrap();
        let long = "tide ".repeat(10_000);
        assert_eq!(exchange(&mut socket, "tide").await, "tide");
        assert_eq!(exchange(&mut socket, &long).await, long);
        socket.close(None).await.unwrap();
    }
    let expires = gateway.metric("tidegate_tls_certificate_expires_seconds", "first.pem").await;
    assert!(expires > 1.7e9, "{expires}");
}

#[tokio::test]
async fn a_session_is_resumed() {
    let authority = Authority::new();
    let gateway = start(&format!("[tls]\n{CERTIFICATES}"), &[("first", &authority.sign(&["localhost"]))]).await;
    for versions in [TLS12, TLS13] {
        let client = Tls::with(&authority, versions, &[], None);
        let resumed = handshakes(&gateway, "resumed").await;
        // What comes with the answer has the ticket in it.
        let mut socket = client.websocket(gateway.address(), "/echo").await.unwrap();
        assert_eq!(exchange(&mut socket, "tide").await, "tide");
        let mut again = client.websocket(gateway.address(), "/echo").await.unwrap();
        assert_eq!(again.get_ref().get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(exchange(&mut again, "tide").await, "tide");
        counted(&gateway, "resumed", resumed + 1.0).await;
    }
}

#[tokio::test]
async fn older_versions_are_refused_where_that_is_said() {
    let authority = Authority::new();
    let tls = format!("[tls]\nmin_version = \"1.3\"\n{CERTIFICATES}");
    let gateway = start(&tls, &[("first", &authority.sign(&["localhost"]))]).await;
    let old = Tls::with(&authority, TLS12, &[], None);
    assert!(old.connect(gateway.address(), "localhost").await.is_err());
    counted(&gateway, "incompatible", 1.0).await;
    let mut socket = Tls::trusting(&authority).websocket(gateway.address(), "/echo").await.unwrap();
    assert_eq!(exchange(&mut socket, "tide").await, "tide");
    let other = Tls::with(&authority, TLS13, &["smtp"], None);
    assert!(other.connect(gateway.address(), "localhost").await.is_err());
    counted(&gateway, "protocol", 1.0).await;
}

#[tokio::test]
async fn a_certificate_is_replaced_under_live_sessions() {
    let authority = Authority::new();
    let (old, new) = (authority.sign(&["localhost"]), authority.sign(&["localhost"]));
    let gateway = start(&format!("[tls]\n{CERTIFICATES}"), &[("first", &old)]).await;
    let shown = || async {
        let stream = Tls::trusting(&authority).connect(gateway.address(), "localhost").await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let mut session = Tls::trusting(&authority).websocket(gateway.address(), "/echo").await.unwrap();
    assert_eq!(shown().await, old.der());

    // Half of a certificate, and one without its key: what serves goes on.
    let file = gateway.directory().join("first.pem");
    let refused = |count: f64| {
        let gateway = &gateway;
        async move {
            until("a refusal", || async {
                (gateway.metric("tidegate_config_reloads_total", "refused").await >= count).then_some(())
            })
            .await;
        }
    };
    std::fs::write(&file, &new.cert[..new.cert.len() / 2]).unwrap();
    refused(1.0).await;
    assert_eq!(shown().await, old.der());
    let trouble = gateway.config_page().await["trouble"].as_str().unwrap().to_owned();
    assert!(trouble.contains("first.pem"), "{trouble}");
    std::fs::write(&file, &new.cert).unwrap();
    refused(2.0).await;
    assert_eq!(shown().await, old.der());
    gateway.log_line(&["the configuration cannot be used", "does not fit the certificate"]).await;

    new.write(gateway.directory(), "first");
    until("the new certificate", || async { (shown().await == new.der()).then_some(()) }).await;
    assert_eq!(exchange(&mut session, "tide").await, "tide", "the session from before goes on");
}

#[tokio::test]
async fn clients_show_certificates_where_they_must() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.sign(&["localhost"]);
    let (ann, eve) = (authority.sign_client("ann", "spiffe://tide/ann"), other.sign_client("ann", "spiffe://tide/ann"));
    for mode in ["required", "optional"] {
        let tls = format!("[tls]\nclient_auth = \"{mode}\"\nclient_ca = \"clients.pem\"\n{CERTIFICATES}");
        let directory = Gateway::prepare(&format!("{tls}{ROUTES}"), &[("hooks", hooks())]);
        std::fs::write(directory.path().join("clients.pem"), &authority.pem).unwrap();
        server.write(directory.path(), "first");
        let gateway = Gateway::run(directory).await;
        for versions in [TLS12, TLS13] {
            let client = |identity| Tls::with(&authority, versions, &[], identity);
            let mut socket = client(Some(&ann)).websocket(gateway.address(), "/hooks").await.unwrap();
            assert_eq!(exchange(&mut socket, "certificate").await, "CN=ann spiffe://tide/ann  true");
            let nobody = client(None).websocket(gateway.address(), "/hooks").await;
            match nobody {
                Ok(mut socket) if mode == "optional" => assert_eq!(exchange(&mut socket, "certificate").await, "none"),
                Err(_) if mode == "required" => {}
                _ => panic!("{mode}"),
            }
            // One that is shown must be good either way.
            client(Some(&eve)).websocket(gateway.address(), "/hooks").await.unwrap_err();
        }
        counted(&gateway, "certificate", 2.0).await;
        counted(&gateway, "no-certificate", if mode == "required" { 2.0 } else { 0.0 }).await;
    }
}

#[tokio::test]
async fn a_ticket_from_before_other_authorities_is_worth_nothing() {
    let (before, after) = (Authority::new(), Authority::new());
    let tls = format!("[tls]\nclient_auth = \"required\"\nclient_ca = \"clients.pem\"\n{CERTIFICATES}");
    let directory = Gateway::prepare(&format!("{tls}{ROUTES}"), &[("hooks", hooks())]);
    std::fs::write(directory.path().join("clients.pem"), &before.pem).unwrap();
    before.sign(&["localhost"]).write(directory.path(), "first");
    let gateway = Gateway::run(directory).await;
    let ann = before.sign_client("ann", "spiffe://tide/ann");
    let client = Tls::with(&before, TLS13, &[], Some(&ann));
    let mut socket = client.websocket(gateway.address(), "/hooks").await.unwrap();
    assert_eq!(exchange(&mut socket, "certificate").await, "CN=ann spiffe://tide/ann  true");
    let mut again = client.websocket(gateway.address(), "/hooks").await.unwrap();
    // A resumed session has the certificate still.
    assert_eq!(exchange(&mut again, "certificate").await, "CN=ann spiffe://tide/ann  true");
    counted(&gateway, "resumed", 1.0).await;

    std::fs::write(gateway.directory().join("clients.pem"), &after.pem).unwrap();
    until("the other authority", || async {
        (gateway.metric("tidegate_config_reloads_total", "applied").await == 1.0).then_some(())
    })
    .await;
    client.websocket(gateway.address(), "/hooks").await.unwrap_err();
    assert_eq!(handshakes(&gateway, "resumed").await, 1.0);
    assert_eq!(exchange(&mut socket, "peer").await, "127.0.0.1", "whoever is here stays");
}

#[tokio::test]
async fn a_stalled_handshake_is_closed_while_others_get_through() {
    let authority = Authority::new();
    let first = "[connections]\nfirst_byte_timeout = \"300ms\"\n";
    let tls = format!("{first}[tls]\nhandshake_timeout = \"300ms\"\n{CERTIFICATES}");
    let gateway = start(&tls, &[("first", &authority.sign(&["localhost"]))]).await;
    let mut stalled = Vec::new();
    for count in 0..20 {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        if count % 2 == 0 {
            // The begin of a ClientHello that never ends.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
        }
        stalled.push(Raw(stream));
    }
    let mut socket = Tls::trusting(&authority).websocket(gateway.address(), "/echo").await.unwrap();
    assert_eq!(exchange(&mut socket, "tide").await, "tide");
    for raw in &mut stalled {
        assert!(raw.is_over().await, "it is closed");
    }
    // Those who have begun, and those who have not.
    counted(&gateway, "timeout", 10.0).await;
    let silent = gateway.metric("tidegate_connections_refused_total", "first-byte").await;
    assert_eq!(silent, 10.0);
    assert_eq!(exchange(&mut socket, "tide").await, "tide");

    // Who speaks no TLS is not kept either.
    let mut plain = TcpStream::connect(gateway.address()).await.unwrap();
    plain.write_all(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "no answer in plain text");
    counted(&gateway, "not-tls", 1.0).await;
}

#[tokio::test]
async fn tls_may_have_an_address_of_its_own() {
    let authority = Authority::new();
    let tls = format!("[tls]\nlisten = \"127.0.0.1:0\"\n{CERTIFICATES}");
    let gateway = start(&tls, &[("first", &authority.sign(&["localhost"]))]).await;
    let mut plain = Client::connect(&gateway.ws_url("/echo")).await;
    assert_eq!(plain.ask("tide").await, "tide");
    let mut socket = Tls::trusting(&authority).websocket(gateway.tls_address(), "/echo").await.unwrap();
    assert_eq!(exchange(&mut socket, "tide").await, "tide");
    assert_eq!(gateway.metric("tidegate_connections", "listener=\"tls\"").await, 1.0);
    assert_eq!(gateway.metric("tidegate_connections", "listener=\"public\"").await, 1.0);
}

#[tokio::test]
async fn the_drain_says_goodbye_over_tls() {
    let authority = Authority::new();
    let mut gateway = start(&format!("[tls]\n{CERTIFICATES}"), &[("first", &authority.sign(&["localhost"]))]).await;
    let mut socket = Tls::trusting(&authority).websocket(gateway.address(), "/echo").await.unwrap();
    assert_eq!(exchange(&mut socket, "tide").await, "tide");
    gateway.terminate();
    match timeout(PATIENCE, socket.next()).await.unwrap() {
        Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1012),
        other => panic!("a close was expected, not {other:?}"),
    }
    drop(socket);
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn check_looks_at_certificates() {
    let authority = Authority::new();
    let directory = Gateway::prepare(&format!("[tls]\n{CERTIFICATES}{ROUTES}"), &[("hooks", hooks())]);
    let check = || async {
        let output = tidegate(directory.path()).arg("check").output().await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let (fine, said) = check().await;
    assert!(!fine && said.contains("first.pem cannot be read"), "{said}");
    let good = authority.sign(&["localhost", "example.org"]);
    good.write(directory.path(), "first");
    let (fine, said) = check().await;
    assert!(fine && said.contains("for localhost example.org") && !said.contains("WARNING"), "{said}");
    let expired = authority.sign_with(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    expired.write(directory.path(), "first");
    let (fine, said) = check().await;
    assert!(fine && said.contains("WARNING: it has expired"), "{said}");
    std::fs::write(directory.path().join("first.key"), good.key).unwrap();
    let (fine, said) = check().await;
    assert!(!fine && said.contains("does not fit the certificate"), "{said}");
}

#[tokio::test]
async fn curl_and_openssl_are_content() {
    let authority = Authority::new();
    let gateway = start(&format!("[tls]\n{CERTIFICATES}"), &[("first", &authority.sign(&["localhost"]))]).await;
    let ca = gateway.directory().join("ca.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    let url = format!("https://localhost:{}/nothing", gateway.address().port());
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2"), ("--tls-max=1.2", "2")] {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--cacert"]).arg(&ca);
        curl.args(flag.split('=')).arg(&url);
        let Ok(output) = tokio::task::spawn_blocking(move || curl.output()).await.unwrap() else {
            eprintln!("SKIPPED curl: it is not installed");
            return;
        };
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{version} 404"), "{flag}: {output:?}");
    }
}
