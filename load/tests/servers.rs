//! Load against small servers in this process: whether counts are right, and what is said of servers that misbehave.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::result_large_err, reason = "a refused handshake is a whole response, by the library's signature")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tidegate_load::{FailureKind, Fanout, Kind, Load, LoadError, Pace, Report, Stage, run};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// A server whose behaviour is in the path.
struct Server {
    address: SocketAddr,
    /// Messages that `/echo` has sent back.
    echoed: Arc<AtomicU64>,
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Shared {
    echoed: Arc<AtomicU64>,
    hub: broadcast::Sender<Message>,
}

fn server(tls: Option<tokio_rustls::TlsAcceptor>) -> Server {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let echoed = Arc::new(AtomicU64::new(0));
    let shared = Shared { echoed: Arc::clone(&echoed), hub: broadcast::channel(4096).0 };
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let (shared, tls) = (shared.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            client(stream, shared).await;
                        }
                    }
                    None => {
                        client(stream, shared).await;
                    }
                }
            });
        }
    });
    Server { address, echoed, _runtime: runtime }
}

/// What a server does with a client may end in an error, which is the test's business on the other side.
async fn client(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Shared) -> Option<()> {
    let mut path = String::new();
    let look = |request: &Request, mut response: Response| {
        path = request.uri().path().to_owned();
        if path == "/refused" || (path == "/named" && request.headers().get("x-number").is_none()) {
            let mut refusal = ErrorResponse::new(Some("not for you\nsecond line".to_owned()));
            *refusal.status_mut() = StatusCode::FORBIDDEN;
            return Err(refusal);
        }
        if let Some(offered) = request.headers().get("sec-websocket-protocol") {
            response.headers_mut().insert("sec-websocket-protocol", offered.clone());
        }
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, look).await.ok()?;
    let mut said = 0;
    match path.as_str() {
        "/sub" => {
            socket.send("subscribed".into()).await.ok()?;
            let mut news = shared.hub.subscribe();
            loop {
                tokio::select! {
                    message = news.recv() => socket.send(message.ok()?).await.ok()?,
                    message = socket.next() => { message?.ok()?; }
                }
            }
        }
        "/ping" => {
            socket.send(Message::Ping(Bytes::from_static(b"there?"))).await.ok()?;
            // It tells the client that its pong has come.
            while let Some(Ok(message)) = socket.next().await {
                if matches!(&message, Message::Pong(text) if &text[..] == b"there?") {
                    socket.send("pong came".into()).await.ok()?;
                }
            }
        }
        _ => {}
    }
    while let Some(Ok(message)) = socket.next().await {
        if !message.is_text() && !message.is_binary() {
            continue;
        }
        said += 1;
        match path.as_str() {
            "/echo" | "/named" => {
                socket.send(message).await.ok()?;
                shared.echoed.fetch_add(1, Ordering::Relaxed);
            }
            "/json" => {
                let text = message.into_text().ok()?;
                let inner: serde_json::Value = serde_json::from_str(&text).ok()?;
                socket.send(format!("{{\"ok\":{}}}", inner["say"]).into()).await.ok()?;
            }
            "/fragments" => {
                use tokio_tungstenite::tungstenite::protocol::frame::Frame;
                use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
                let data = message.into_data();
                let (first, last) = data.split_at(data.len() / 2);
                let frame =
                    |part: &[u8], code, fin| Message::Frame(Frame::message(part.to_vec(), OpCode::Data(code), fin));
                socket.send(frame(first, Data::Text, false)).await.ok()?;
                socket.send(Message::Ping(Bytes::new())).await.ok()?;
                socket.send(frame(last, Data::Continue, true)).await.ok()?;
            }
            // All but the first are wrong.
            "/wrong" if said > 1 => socket.send(message.into_text().ok()?.to_uppercase().into()).await.ok()?,
            "/wrong" => socket.send(message).await.ok()?,
            "/silent" => {}
            "/closes" if said == 3 => {
                let frame = CloseFrame { code: 1013.into(), reason: "enough".into() };
                socket.close(Some(frame)).await.ok()?;
                while socket.next().await.is_some() {}
                return None;
            }
            "/drops" if said == 3 => return None,
            "/closes" | "/drops" => socket.send(message).await.ok()?,
            "/pub" => {
                shared.hub.send(message).ok()?;
            }
            // Every third publication is lost.
            "/forgets" => {
                if said % 3 != 0 {
                    shared.hub.send(message).ok()?;
                }
            }
            _ => return None,
        }
    }
    None
}

impl Server {
    fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    fn load(&self, path: &str, kind: Kind) -> Load {
        Load {
            connections: 4,
            warm_up: Duration::ZERO,
            settle: Duration::ZERO,
            duration: Duration::from_millis(300),
            ..Load::new(self.url(path), kind)
        }
    }
}

fn report(load: &Load) -> Report {
    run(load, &mut |_| {}).unwrap()
}

fn failures(report: &Report, kind: FailureKind) -> u64 {
    report.failures.iter().filter(|failure| failure.kind == kind).map(|failure| failure.count).sum()
}

#[test]
fn echoes_are_counted_as_the_server_counts_them() {
    let server = server(None);
    for threads in [1, 3] {
        for (size, binary, depth) in [(64, false, 1), (0, false, 2), (70_000, true, 5)] {
            let before = server.echoed.load(Ordering::Relaxed);
            let load = Load { size, binary, threads, ..server.load("/echo", Kind::echo(depth)) };
            let report = report(&load);
            let there = server.echoed.load(Ordering::Relaxed) - before;
            assert!(report.is_clean(), "{:?}", report.failures);
            assert_eq!((report.connections.ready, report.connections.lost), (4, 0));
            // What was under way when measuring ended was echoed too.
            let most = report.messages + 4 * depth as u64;
            assert!(report.messages > 0 && (report.messages..=most).contains(&there), "{} {there}", report.messages);
            let latency = report.latency.unwrap();
            assert!(latency.count >= report.messages && latency.count <= most);
            assert!(latency.min <= latency.p50 && latency.p50 <= latency.p99 && latency.p99 <= latency.max);
            assert!(report.bytes_received as usize >= report.messages as usize * size);
            assert_eq!(report.histograms.latency.len(), latency.count);
        }
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let server = server(None);
    let duration = Duration::from_secs(1);
    let load = Load { duration, ..server.load("/echo", Kind::Echo { pace: Pace::Rate(500.0) }) };
    let report = report(&load);
    assert!(report.is_clean(), "{:?}", report.failures);
    // A few more where the measuring ends later than it should.
    assert!((350..=550).contains(&report.messages), "{} messages", report.messages);
    // A loop that only looked every tenth of a second would be later.
    let late = report.client.late.unwrap();
    assert!(late.count > 100 && late.p50 < 20_000.0, "{late:?}");
}

#[test]
fn what_an_open_loop_could_not_send_counts_against_the_server() {
    let server = server(None);
    let stop = Arc::new(AtomicBool::new(false));
    let pace = Pace::Rate(100_000.0);
    let watchdog = Duration::from_millis(500);
    let duration = Duration::from_secs(20);
    let load =
        Load { duration, watchdog, connections: 1, stop: Some(stop), ..server.load("/silent", Kind::Echo { pace }) };
    let report = report(&load);
    assert_eq!((report.messages, failures(&report, FailureKind::Silent)), (0, 1));
    assert!(failures(&report, FailureKind::Unanswered) > 1024, "{:?}", report.failures);
    assert!(report.seconds < 10.0, "the watchdog has ended it");
}

#[test]
fn every_subscriber_gets_every_publication() {
    let server = server(None);
    for (threads, pace) in [(1, Pace::InFlight(1)), (3, Pace::InFlight(4)), (1, Pace::Rate(200.0))] {
        let fanout = Fanout {
            publish_url: Some(server.url("/pub")),
            publishers: 2,
            pace,
            template: b"{\"data\":\"{payload}\"}".to_vec(),
            ..Fanout::default()
        };
        let mut load = server.load("/sub", Kind::Fanout(fanout));
        load = Load { connections: 10, threads, wait: Some(b"subscribed".to_vec()), size: 100, ..load };
        // The server subscribes after it has said so.
        load.settle = Duration::from_millis(200);
        let report = report(&load);
        assert!(report.is_clean(), "{:?}", report.failures);
        let publications = report.publications.unwrap();
        let complete = publications.complete;
        assert!(complete > 10 && publications.incomplete == 0, "{complete}");
        // Each complete one is ten deliveries; those at both edges of the measured time, four of each publisher, may be in part.
        assert!(report.messages.abs_diff(complete * 10) <= 10 * 16, "{} {complete}", report.messages);
        let (each, last) = (report.latency.unwrap(), publications.last.unwrap());
        assert!(last.count.abs_diff(complete) <= 16 && last.p50 >= each.min && last.max <= each.max);
    }
}

#[test]
fn publications_that_do_not_arrive_are_given_up() {
    let server = server(None);
    let fanout = Fanout {
        publish_url: Some(server.url("/forgets")),
        pace: Pace::InFlight(3),
        give_up: Duration::from_millis(100),
        ..Fanout::default()
    };
    let load = server.load("/sub", Kind::Fanout(fanout));
    let load = Load { settle: Duration::from_millis(200), duration: Duration::from_secs(1), ..load };
    let report = report(&load);
    let publications = report.publications.as_ref().unwrap();
    // With three under way and each third lost, the loop goes on when one is given up.
    assert!(publications.complete >= 4 && publications.incomplete >= 3, "{publications:?}");
    assert_eq!(failures(&report, FailureKind::Incomplete), publications.incomplete);
}

#[test]
fn who_only_listens_counts_what_others_publish() {
    let server = server(None);
    let listens = Fanout { publishers: 0, ..Fanout::default() };
    let stop = Arc::new(AtomicBool::new(false));
    let listener = Load {
        duration: Duration::from_secs(60),
        stop: Some(Arc::clone(&stop)),
        settle: Duration::from_millis(200),
        ..server.load("/sub", Kind::Fanout(listens))
    };
    let (ready, is_ready) = std::sync::mpsc::channel();
    let listening = std::thread::spawn(move || {
        run(&listener, &mut |progress| {
            if progress.stage == Stage::Measuring {
                let _ = ready.send(());
            }
        })
    });
    is_ready.recv_timeout(Duration::from_secs(20)).unwrap();
    let publishes = Fanout { publish_url: Some(server.url("/pub")), ..Fanout::default() };
    let load = Load { settle: Duration::from_millis(200), ..server.load("/sub", Kind::Fanout(publishes)) };
    let published = report(&load);
    stop.store(true, Ordering::Relaxed);
    let heard = listening.join().unwrap().unwrap();
    assert!(heard.is_clean(), "{:?}", heard.failures);
    let (ours, theirs) = (heard.publications.unwrap(), published.publications.unwrap());
    assert!(ours.made > 0 && ours.made == ours.complete, "{ours:?}");
    assert!(ours.made.abs_diff(theirs.complete) <= 2, "{ours:?} {theirs:?}");
    assert_eq!(heard.messages, ours.made * 4);
    assert!(ours.last.unwrap().p50 > 0.0, "clocks of two runs on one machine are the same");
}

#[test]
fn wrong_answers_are_told() {
    let server = server(None);
    let report = report(&Load { connections: 1, ..server.load("/wrong", Kind::echo(1)) });
    assert_eq!(report.messages, 1, "the first was right");
    let wrong = report.failures.iter().find(|failure| failure.kind == FailureKind::WrongAnswer).unwrap();
    assert!(wrong.count > 1 && wrong.example.contains("ABCDEFG"), "{wrong:?}");
}

#[test]
fn answers_within_something_else_are_found() {
    let server = server(None);
    let template = Some(b"{\"say\":\"{payload}\"}".to_vec());
    let report = report(&Load { template, ..server.load("/json", Kind::echo(2)) });
    assert!(report.is_clean() && report.messages > 0, "{:?}", report.failures);
}

#[test]
fn fragments_and_pings_are_taken() {
    let server = server(None);
    let report = report(&server.load("/fragments", Kind::echo(2)));
    assert!(report.is_clean() && report.messages > 0, "{:?}", report.failures);
    assert!(report.pings > 0);
}

#[test]
fn pings_of_idle_connections_are_answered() {
    let server = server(None);
    let load = Load { wait: Some(b"pong came".to_vec()), ..server.load("/ping", Kind::Idle) };
    let report = report(&load);
    assert!(report.is_clean() && report.connections.ready == 4, "{:?}", report.failures);
    assert!(report.latency.is_none() && report.connections.latency.unwrap().count == 4);
}

#[test]
fn connections_that_end_are_told_with_their_close_codes() {
    let server = server(None);
    let closed = report(&server.load("/closes", Kind::echo(1)));
    assert_eq!((closed.messages, closed.connections.lost), (8, 4), "two answers each");
    assert_eq!(closed.close_codes.get(&1013), Some(&4));
    let told = &closed.failures[0];
    assert!(told.kind == FailureKind::Closed && told.count == 4, "{told:?}");
    assert!(told.example.contains("1013") && told.example.contains("enough"), "{told:?}");
    let dropped = report(&server.load("/drops", Kind::echo(1)));
    let ended = failures(&dropped, FailureKind::Ended) + failures(&dropped, FailureKind::Reset);
    assert_eq!((dropped.messages, ended), (8, 4), "{:?}", dropped.failures);
}

fn no_connection(load: &Load) -> (FailureKind, Option<u16>, String) {
    match run(load, &mut |_| {}) {
        Err(error @ LoadError::NoConnection { .. }) => {
            let words = error.to_string();
            let LoadError::NoConnection { failures, .. } = error else { unreachable!() };
            (failures[0].kind, failures[0].status, words)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refusal_is_told_with_its_status_and_words() {
    let server = server(None);
    let load = Load { connections: 500, ..server.load("/refused", Kind::echo(1)) };
    let begun = Instant::now();
    let (kind, status, words) = no_connection(&load);
    assert_eq!((kind, status), (FailureKind::Handshake, Some(403)));
    assert!(words.contains("403") && words.contains("not for you") && !words.contains("second"), "{words}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (kind, _, words) = no_connection(&Load::new(format!("ws://{free}/"), Kind::Idle));
    assert!(kind == FailureKind::Refused && words.contains(&free.to_string()), "{words}");
}

#[test]
fn who_never_answers_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let load = Load { connections: 2, connect_timeout: Duration::from_millis(200), ..Load::new(url, Kind::echo(1)) };
    let (kind, _, words) = no_connection(&load);
    assert!(kind == FailureKind::ConnectTimeout && words.contains("no answer to the handshake"), "{words}");
    // A handshake, and nothing after it.
    let server = server(None);
    let load = Load { watchdog: Duration::from_millis(300), ..server.load("/silent", Kind::echo(3)) };
    let report = report(&Load { duration: Duration::from_secs(30), ..load });
    assert_eq!(failures(&report, FailureKind::Silent), 1);
    assert_eq!(failures(&report, FailureKind::Unanswered), 12);
    assert!(report.seconds < 10.0 && report.messages == 0);
}

#[test]
fn some_other_server_is_no_websocket() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n");
        }
    });
    let (kind, status, words) = no_connection(&Load { connections: 1, ..Load::new(url, Kind::Idle) });
    assert!((kind, status) == (FailureKind::Handshake, None) && words.contains("not HTTP"), "{words}");
}

#[test]
fn headers_and_subprotocols_go_with_the_handshake() {
    let server = server(None);
    let headers = vec![("X-Number".to_owned(), "{i}".to_owned())];
    let load = Load { headers, subprotocols: vec!["chat.v1".to_owned()], ..server.load("/named", Kind::echo(1)) };
    let report = report(&load);
    assert!(report.is_clean() && report.messages > 0, "{:?}", report.failures);
}

#[test]
fn tls_is_spoken_and_certificates_are_asked_for() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let server = server(Some(tokio_rustls::TlsAcceptor::from(Arc::new(config))));
    let url = server.url("/echo").replace("ws://", "wss://");
    let load = Load { urls: vec![url], size: 100_000, insecure: true, ..server.load("/echo", Kind::echo(3)) };
    let report = report(&load);
    assert!(report.is_clean() && report.messages > 0, "{:?}", report.failures);
    let (kind, _, words) = no_connection(&Load { insecure: false, ..load });
    assert!(kind == FailureKind::Tls && words.contains("certificate"), "{words}");
}

#[test]
fn what_cannot_be_is_said_before_anything_is_connected() {
    let url = "ws://127.0.0.1:1/";
    let none = u32::MAX as usize - 1;
    let error = run(&Load { connections: none, ..Load::new(url, Kind::Idle) }, &mut |_| {}).unwrap_err();
    assert!(matches!(error, LoadError::Descriptors { .. }), "{error}");
    assert!(error.to_string().contains("ulimit"), "{error}");
    for load in [
        Load { connections: 0, ..Load::new(url, Kind::Idle) },
        Load { template: Some(b"no place".to_vec()), ..Load::new(url, Kind::echo(1)) },
        Load::new(url, Kind::echo(0)),
        Load::new(url, Kind::Echo { pace: Pace::Rate(f64::NAN) }),
        Load { server_pids: vec![u32::MAX], ..Load::new(url, Kind::Idle) },
    ] {
        let error = run(&load, &mut |_| {}).unwrap_err();
        assert!(matches!(error, LoadError::Plan(_)), "{error}");
    }
}

#[test]
fn a_run_can_be_ended_and_tells_what_it_has() {
    let server = server(None);
    let stop = Arc::new(AtomicBool::new(false));
    let load = Load {
        duration: Duration::from_secs(600),
        stop: Some(Arc::clone(&stop)),
        ..server.load("/echo", Kind::echo(1))
    };
    let mut stages = Vec::new();
    let report = run(&load, &mut |progress| {
        stages.push(progress.stage);
        if progress.messages > 100 {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let report = report.unwrap();
    assert!(report.messages > 100 && report.seconds < 100.0);
    assert!(stages.is_sorted() && stages.contains(&Stage::Measuring), "{stages:?}");
    let json = serde_json::to_string(&report).unwrap();
    let again: Report = serde_json::from_str(&json).unwrap();
    let counts = |report: Report| report.latency.unwrap().curve.iter().map(|point| point.count).collect::<Vec<_>>();
    assert_eq!((again.messages, counts(again)), (report.messages, counts(report)));
}

#[test]
fn connections_come_from_the_addresses_that_were_named() {
    let server = server(None);
    let sources = vec!["127.0.3.1".parse().unwrap(), "127.0.3.2".parse().unwrap()];
    let report = report(&Load { sources, connections: 20, ..server.load("/echo", Kind::echo(1)) });
    assert!(report.is_clean() && report.connections.ready == 20, "{:?}", report.failures);
}

#[test]
fn a_process_here_is_told_of() {
    let server = server(None);
    let load = Load { server_pids: vec![std::process::id()], ..server.load("/echo", Kind::echo(1)) };
    let told = report(&load).server.unwrap();
    // The client is in this process too.
    assert!(told.us_per_message.unwrap() > 0.1 && told.cpu > 0.01 && told.rss_before > 1 << 20, "{told:?}");
}
