//! Where a client comes from when proxies stand in front: whoever is trusted is believed, and nobody else.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{Client, Raw, TEXT, frame, handshake};
use crate::support::guests::hooks;
use crate::support::tls::{Authority, Tls};
use crate::support::{Gateway, until};

const ROUTES: &str = "[[route]]\nname = \"hooks\"\npath = \"/hooks\"\nplugins = [\"hooks\"]\n";

async fn start(config: &str) -> Gateway {
    Gateway::start_with(&format!("{config}{ROUTES}"), &[("hooks", hooks())]).await
}

/// Connects, sends this first, and asks the plugin who has come.
async fn peer(address: SocketAddr, first: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for part in first {
        stream.write_all(part).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut raw = Raw::begin(stream, &handshake(address, "/hooks")).await;
    raw.send(&frame(TEXT, b"peer")).await;
    String::from_utf8(raw.frame().await.unwrap().1).unwrap()
}

fn v2(family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    header.push(family);
    header.extend((rest.len() as u16).to_be_bytes());
    header.extend(rest);
    header
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client() {
    let gateway = start("[proxy]\nprotocol = true\ntrusted = [\"127.0.0.1\"]\n").await;
    let address = gateway.address();
    assert_eq!(peer(address, &[b"PROXY TCP4 192.0.2.9 10.0.0.1 4711 443\r\n"]).await, "192.0.2.9");
    assert_eq!(peer(address, &[b"PROXY TCP6 2001:db8::9 fd00::1 4711 443\r\n"]).await, "2001:db8::9");
    assert_eq!(peer(address, &[b"PROXY UNKNOWN\r\n"]).await, "127.0.0.1");
    let four = [192, 0, 2, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb];
    assert_eq!(peer(address, &[&v2(0x11, &four)]).await, "192.0.2.9");
    // What is appended to the addresses is passed over: here an authority.
    let appended = [&four[..], &[2, 0, 4], b"tide"].concat();
    assert_eq!(peer(address, &[&v2(0x11, &appended)]).await, "192.0.2.9");
    // However slowly it comes.
    let line = b"PROXY TCP4 192.0.2.9 10.0.0.1 4711 443\r\n";
    let bytes: Vec<&[u8]> = line.chunks(1).collect();
    assert_eq!(peer(address, &bytes).await, "192.0.2.9");
    let whole = v2(0x11, &four);
    assert_eq!(peer(address, &whole.chunks(3).collect::<Vec<_>>()).await, "192.0.2.9");

    // A header of a request that says otherwise comes from the client itself, who is nobody that is trusted.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(line).await.unwrap();
    let forged = handshake(address, "/hooks").replace("Upgrade: ", "X-Forwarded-For: 10.9.9.9\r\nUpgrade: ");
    let mut raw = Raw::begin(stream, &forged).await;
    raw.send(&frame(TEXT, b"peer")).await;
    assert_eq!(raw.frame().await.unwrap().1, b"192.0.2.9");
}

#[tokio::test]
async fn who_does_not_begin_with_it_is_closed() {
    let timeout = "handshake_timeout = \"300ms\"\n";
    let gateway = start(&format!("{timeout}[proxy]\nprotocol = true\ntrusted = [\"127.0.0.1\"]\n")).await;
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
    let huge = v2(0x11, &[0; 4_000]);
    let malformed: [&[u8]; 5] = [
        b"GET /hooks HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 192.0.2.999 10.0.0.1 4711 443\r\n",
        b"PROXY TCP4 192.0.2.9 10.0.0.1 4711 443\nGET / HTTP/1.1\r\n",
        long.as_bytes(),
        &huge,
    ];
    for begin in malformed {
        let mut raw = Raw(TcpStream::connect(gateway.address()).await.unwrap());
        raw.send(begin).await;
        assert!(raw.is_over().await, "{}", String::from_utf8_lossy(begin));
    }
    let refused = |why: &'static str| {
        let gateway = &gateway;
        async move { gateway.metric("tidegate_proxy_refused_total", why).await }
    };
    until("five are counted", || async { (refused("malformed").await == 5.0).then_some(()) }).await;
    // And who begins and does not go on.
    for begin in ["", "PROXY", "PROXY TCP4 192.0.2.9 10.0.0.1 4711"] {
        let mut raw = Raw(TcpStream::connect(gateway.address()).await.unwrap());
        raw.send(begin.as_bytes()).await;
        assert!(raw.is_over().await, "{begin}");
    }
    until("three are counted", || async { (refused("timeout").await == 3.0).then_some(()) }).await;
    assert_eq!(gateway.metric("tidegate_sessions", "").await, 0.0);

    let elsewhere = start("[proxy]\nprotocol = true\ntrusted = [\"10.0.0.0/8\"]\n").await;
    let mut raw = Raw(TcpStream::connect(elsewhere.address()).await.unwrap());
    raw.send(b"PROXY TCP4 192.0.2.9 10.0.0.1 4711 443\r\n").await;
    assert!(raw.is_over().await);
    until("it is counted", || async {
        (elsewhere.metric("tidegate_proxy_refused_total", "untrusted").await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn tls_comes_after_it() {
    let authority = Authority::new();
    let tls = "[tls]\ncertificates = [{ cert = \"first.pem\", key = \"first.key\" }]\n";
    let config = format!("{tls}[proxy]\nprotocol = true\ntrusted = [\"127.0.0.1\"]\n{ROUTES}");
    let directory = Gateway::prepare(&config, &[("hooks", hooks())]);
    authority.sign(&["localhost"]).write(directory.path(), "first");
    let gateway = Gateway::run(directory).await;
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.9 10.0.0.1 4711 443\r\n").await.unwrap();
    let mut stream = Tls::trusting(&authority).over(stream, "localhost").await.unwrap();
    let request = [handshake(gateway.address(), "/hooks").into_bytes(), frame(TEXT, b"peer")].concat();
    stream.write_all(&request).await.unwrap();
    let mut came = String::new();
    while !came.ends_with("192.0.2.9") {
        let mut byte = [0];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut byte).await.unwrap();
        came.push(char::from(byte[0]));
    }
    assert!(came.starts_with("HTTP/1.1 101"), "{came}");
}

#[tokio::test]
async fn a_header_is_believed_from_the_right() {
    let of = |gateway: &Gateway, headers: &[(&str, &str)]| {
        let url = gateway.ws_url("/hooks");
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut client = Client::try_connect(&url, &headers).await.unwrap();
            client.ask("peer").await
        }
    };
    let gateway = start("[proxy]\ntrusted = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n").await;
    assert_eq!(of(&gateway, &[]).await, "127.0.0.1");
    assert_eq!(of(&gateway, &[("x-forwarded-for", "1.1.1.1, 192.0.2.9, 10.0.0.1")]).await, "192.0.2.9");
    assert_eq!(of(&gateway, &[("x-forwarded-for", "192.0.2.9"), ("x-forwarded-for", "10.0.0.1")]).await, "192.0.2.9");
    assert_eq!(of(&gateway, &[("forwarded", "for=192.0.2.9")]).await, "127.0.0.1");

    // Nobody is trusted unless that is said; another header may be asked for. Both without a restart.
    gateway.reconfigure(ROUTES, "applied").await;
    assert_eq!(of(&gateway, &[("x-forwarded-for", "192.0.2.9")]).await, "127.0.0.1");
    let forwarded = "[proxy]\ntrusted = [\"127.0.0.0/8\"]\nheader = \"forwarded\"\n";
    gateway.reconfigure(&format!("{forwarded}{ROUTES}"), "applied").await;
    assert_eq!(of(&gateway, &[("forwarded", "for=192.0.2.9;proto=https")]).await, "192.0.2.9");
    assert_eq!(of(&gateway, &[("x-forwarded-for", "192.0.2.9")]).await, "127.0.0.1");
}
