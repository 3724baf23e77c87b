//! permessage-deflate (RFC 7692) frame by frame: what is agreed on, what may be sent, who shares what.

use zlib_rs::{Deflate, DeflateFlush};

use crate::support::client::{CLOSE, Client, PING, PONG, Raw, TEXT, frame};
use crate::support::deflate::{ALONE, COMPRESSED, Deflated, extensions, offered};
use crate::support::guests::{built, hooks};
use crate::support::{Gateway, until};

/// The first byte of the beginning of a compressed message.
const COMPRESSED_BEGIN: u8 = 0x41;
const LAST: u8 = 0x80;

/// "Hello" (RFC 7692 section 7.2.3.1), and the same once more after it (7.2.3.2).
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
const AGAIN: [u8; 5] = [0xf2, 0x00, 0x11, 0x00, 0x00];

const ECHO: &str = r#"
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
limits = { message = "1MiB" }
[route.compression]
threshold = 0
context_takeover = true
window = 12

[[route]]
name = "plain"
path = "/plain"
plugins = ["echo"]
"#;

/// A message's payload, compressed by itself.
fn deflated(message: &[u8]) -> Vec<u8> {
    let mut deflate = Deflate::new(6, false, 15);
    let mut out = vec![0; message.len() + 1024];
    deflate.compress(message, &mut out, DeflateFlush::SyncFlush).unwrap();
    out.truncate(deflate.total_out() as usize - 4);
    out
}

/// So many bytes of zeros, compressed without having them.
fn bomb(megabytes: usize) -> Vec<u8> {
    let (mut deflate, mut bomb, zeros) = (Deflate::new(9, false, 15), Vec::new(), vec![0; 1 << 20]);
    for number in 1..=megabytes {
        let flush = if number == megabytes { DeflateFlush::SyncFlush } else { DeflateFlush::NoFlush };
        let (before, mut part) = (deflate.total_out(), vec![0; 64 << 10]);
        deflate.compress(&zeros, &mut part, flush).unwrap();
        part.truncate((deflate.total_out() - before) as usize);
        bomb.extend(part);
    }
    bomb.truncate(bomb.len() - 4);
    bomb
}

fn json(number: usize, len: usize) -> String {
    let one = format!("{{\"id\":{number},\"kind\":\"quote\",\"bid\":{}.25}},", number * 7);
    one.chars().cycle().take(len).collect()
}

#[tokio::test]
async fn what_is_offered_is_answered_or_declined() {
    let gateway = Gateway::start(ECHO).await;
    for (path, offer, answer) in [
        ("/echo", "permessage-deflate; client_max_window_bits", ALONE),
        (
            "/echo",
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
        ),
        ("/echo", "permessage-deflate; unknown", ""),
        ("/echo", "permessage-deflate; server_no_context_takeover; server_no_context_takeover", ""),
        ("/echo", "permessage-bzip2", ""),
        ("/takeover", "permessage-deflate; client_max_window_bits", "permessage-deflate; server_max_window_bits=12"),
        ("/plain", "permessage-deflate", ""),
    ] {
        let (mut raw, head) = offered(&gateway, path, offer).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert_eq!(extensions(&head), answer, "{path} {offer}");
        raw.send(&frame(TEXT, b"x")).await;
        let echoed = raw.frame().await.unwrap();
        assert_eq!(
            echoed.0,
            if path == "/takeover" { COMPRESSED } else { TEXT },
            "uncompressed messages are always right"
        );
    }
    let (_, head) = offered(&gateway, "/echo", "permessage-deflate; =").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    assert_eq!(Client::connect(&gateway.ws_url("/echo")).await.ask("nothing offered").await, "nothing offered");
}

#[tokio::test]
async fn messages_are_compressed_past_the_threshold() {
    let gateway = Gateway::start(ECHO).await;
    let mut client = Deflated::connect(&gateway, "/echo", "permessage-deflate", ALONE).await;
    // The answer to the handshake comes before the session begins.
    let counted = || async { (gateway.metric("tidegate_compressed_sessions", "echo").await == 1.0).then_some(()) };
    until("the session to be counted", counted).await;
    client.raw.send(&frame(COMPRESSED, &HELLO)).await;
    assert_eq!(client.next().await, ("Hello".to_owned(), false), "too short");
    for (len, compressed) in [(255, false), (256, true), (70_000, true)] {
        client.raw.send(&frame(COMPRESSED, &deflated(json(1, len).as_bytes()))).await;
        assert_eq!(client.next().await, (json(1, len), compressed), "{len}");
    }
    let plain = gateway.metric("tidegate_compression_plain_bytes_total", "").await;
    let compressed = gateway.metric("tidegate_compression_bytes_total", "").await;
    assert_eq!(plain, 70_256.0);
    assert!(compressed > 100.0 && compressed < plain / 50.0, "{compressed}");
    assert_eq!(gateway.metric("tidegate_inflation_plain_bytes_total", "").await, 5.0 + 255.0 + 256.0 + 70_000.0);
    let came = 7 + [255, 256, 70_000].map(|len| deflated(json(1, len).as_bytes()).len()).iter().sum::<usize>();
    assert_eq!(gateway.metric("tidegate_inflation_bytes_total", "").await, came as f64);
    assert_eq!(gateway.metric("tidegate_message_bytes_received_total", "echo").await, 70_516.0, "as plugins see them");
    drop(client);
    until("the session's end", || async {
        (gateway.metric("tidegate_compressed_sessions", "echo").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn fragments_are_inflated_with_others_between_them() {
    let gateway = Gateway::start(ECHO).await;
    for (path, agreed) in [("/echo", ALONE), ("/takeover", "permessage-deflate; server_max_window_bits=12")] {
        let mut client = Deflated::connect(&gateway, path, "permessage-deflate", agreed).await;
        let message = json(3, 5000);
        let payload = deflated(message.as_bytes());
        for cut in [0, 1, payload.len() / 2, payload.len()] {
            let (begin, end) = payload.split_at(cut);
            client.raw.send(&frame(COMPRESSED_BEGIN, begin)).await;
            client.raw.send(&frame(PING, b"between")).await;
            assert_eq!(client.raw.frame().await, Some((PONG, b"between".to_vec())));
            client.raw.send(&[frame(0x00, &[]), frame(LAST, end)].concat()).await;
            assert_eq!(client.next().await, (message.clone(), true), "{path} {cut}");
        }
    }
}

#[tokio::test]
async fn with_takeover_both_sides_refer_to_what_was_said() {
    let gateway = Gateway::start(ECHO).await;
    let agreed = "permessage-deflate; server_max_window_bits=12";
    let mut client = Deflated::connect(&gateway, "/takeover", "permessage-deflate", agreed).await;
    client.raw.send(&frame(COMPRESSED, &HELLO)).await;
    assert_eq!(client.raw.frame().await, Some((COMPRESSED, HELLO.to_vec())));
    client.raw.send(&[frame(TEXT, b"x"), frame(COMPRESSED, &AGAIN)].concat()).await;
    let (first, payload) = client.raw.frame().await.unwrap();
    assert_eq!((first, payload.len() < 8), (COMPRESSED, true));
    assert_eq!(client.raw.frame().await.map(|(first, payload)| (first, payload.len())), Some((COMPRESSED, 5)));
    // Each side decides for itself.
    let offer = "permessage-deflate; server_no_context_takeover";
    let agreed = "permessage-deflate; server_no_context_takeover; server_max_window_bits=12";
    let mut client = Deflated::connect(&gateway, "/takeover", offer, agreed).await;
    for payload in [&HELLO[..], &AGAIN] {
        client.raw.send(&frame(COMPRESSED, payload)).await;
        let (_, alone) = client.raw.frame().await.unwrap();
        assert!(alone == b"Hello" || alone == HELLO, "{alone:x?}");
    }
}

#[tokio::test]
async fn what_breaks_the_rules_ends_with_its_code() {
    let gateway = Gateway::start(ECHO).await;
    let bomb = bomb(256);
    assert!(bomb.len() < 300_000, "{}", bomb.len());
    let stored = [&[0x00, 0x02, 0x00, 0xfd, 0xff][..], b"\xc3\x28", &[0x00]].concat();
    let cases = [
        ("a compressed ping", frame(0xc9, b""), 1002),
        ("a compressed continuation", [frame(COMPRESSED_BEGIN, &HELLO), frame(0xc0, b"")].concat(), 1002),
        ("another reserved bit", frame(0xe1, &HELLO), 1002),
        ("no deflate", frame(COMPRESSED, &[0xff; 20]), 1007),
        ("no deflate, known before the message's end", frame(COMPRESSED_BEGIN, &[0x07]), 1007),
        ("not UTF-8", frame(COMPRESSED, &stored), 1007),
        ("not UTF-8, known before the message's end", frame(COMPRESSED_BEGIN, &stored), 1007),
        ("a bomb", frame(COMPRESSED, &bomb), 1009),
        ("a bomb's beginning", frame(COMPRESSED_BEGIN, &bomb[..2000]), 1009),
        ("a mebibyte and a byte", frame(COMPRESSED, &deflated(&vec![b'x'; (1 << 20) + 1])), 1009),
    ];
    for (path, agreed) in [("/echo", ALONE), ("/takeover", "permessage-deflate; server_max_window_bits=12")] {
        for (what, bytes, code) in &cases {
            let mut client = Deflated::connect(&gateway, path, "permessage-deflate", agreed).await;
            client.raw.send(bytes).await;
            let (first, payload) = client.raw.frame().await.expect(what);
            assert_eq!((first, &payload[..2]), (CLOSE, &u16::to_be_bytes(*code)[..]), "{path}: {what}");
            assert!(client.raw.is_over().await);
        }
        let route = &path[1..];
        let refused = async |why: &str| {
            gateway.metric("tidegate_inflation_refused_total", &format!("route=\"{route}\",why=\"{why}\"")).await
        };
        assert_eq!((refused("data").await, refused("size").await), (2.0, 3.0), "{path}");
        let mut client = Deflated::connect(&gateway, path, "permessage-deflate", agreed).await;
        let full = "x".repeat(1 << 20);
        client.raw.send(&frame(COMPRESSED, &deflated(full.as_bytes()))).await;
        assert!(client.next().await.0 == full, "as much as may be");
    }
    // Without the agreement the bit is refused, and so is what is cut off where no message refers to another.
    let mut raw = Raw::connect(gateway.address(), "/echo").await;
    raw.send(&frame(COMPRESSED, &HELLO)).await;
    assert_eq!(raw.close_code().await, Some(1002));
    let mut client = Deflated::connect(&gateway, "/echo", "permessage-deflate", ALONE).await;
    client.raw.send(&frame(COMPRESSED, &HELLO[..5])).await;
    assert_eq!(client.raw.close_code().await, Some(1007));
}

#[tokio::test]
async fn a_publication_is_compressed_once_for_all_who_agreed_on_the_same() {
    let grants = "grants = { publish = [\"*\"], subscribe = [\"*\"], users = true }";
    let routes = [("shaped", "true"), ("takeover", "{ context_takeover = true }"), ("plain", "false")];
    let routes = routes.map(|(name, compression)| {
        format!(
            "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nplugins = [\"hooks\"]\ncompression = {compression}\n"
        )
    });
    let config = format!(
        "{}[[route]]\nname = \"pub\"\npath = \"/pub\"\nplugins = [\"fanout\"]\n\
         [[route]]\nname = \"sub\"\npath = \"/sub\"\nplugins = [\"fanout\"]\ncompression = true\n\
         [plugin.hooks]\n{grants}\n[plugin.fanout]\n{grants}\n",
        routes.concat()
    );
    assert!(built().into_iter().any(|(name, _)| name == "fanout"), "cargo xtask plugins");
    let gateway = Gateway::start_with(&config, &[("hooks", hooks())]).await;
    let plain_bytes = async || gateway.metric("tidegate_compression_plain_bytes_total", "").await;

    let mut publisher = Client::connect(&gateway.ws_url("/pub")).await;
    let small = "permessage-deflate; server_max_window_bits=9";
    let mut deflated = Vec::new();
    for number in 0..20 {
        let (offer, agreed) = match number % 2 {
            0 => ("permessage-deflate", ALONE.to_owned()),
            _ => (small, format!("{ALONE}; server_max_window_bits=9")),
        };
        deflated.push(Deflated::connect(&gateway, "/sub", offer, &agreed).await);
    }
    let mut plain =
        vec![Client::connect(&gateway.ws_url("/sub")).await, Client::connect(&gateway.ws_url("/sub")).await];
    until("all subscribers", || async { (gateway.metric("tidegate_subscriptions", "").await == 22.0).then_some(()) })
        .await;
    let texts = [json(1, 1000), "short".to_owned(), json(2, 2000), json(3, 100)];
    for text in &texts {
        publisher.send(text).await;
    }
    for client in &mut deflated {
        for text in &texts {
            assert_eq!(client.next().await, (text.clone(), text.len() > 256));
        }
    }
    for client in &mut plain {
        for text in &texts {
            assert_eq!(client.text().await, *text);
        }
    }
    assert_eq!(plain_bytes().await, 6000.0, "once for each of two windows, not for each of twenty subscribers");

    // Routes with a `broadcast` hook have frames of their own; one route's sessions share them however they get them.
    let mut shaped = Vec::new();
    for (path, agreed) in [("/shaped", ALONE), ("/takeover", "permessage-deflate"), ("/plain", "")] {
        for _ in 0..3 {
            shaped.push(Deflated::connect(&gateway, path, "permessage-deflate", agreed).await);
        }
    }
    let mut bare = Client::connect(&gateway.ws_url("/shaped")).await;
    bare.send("join room").await;
    assert_eq!(bare.text().await, "joining");
    assert!(bare.text().await.starts_with("subscribed room"));
    for client in &mut shaped {
        client.raw.send(&frame(TEXT, b"join room")).await;
        assert_eq!(client.next().await.0, "joining");
        assert!(client.next().await.0.starts_with("subscribed room"));
    }
    let before = plain_bytes().await;
    let text = json(4, 1000);
    bare.send(&format!("publish room {text}")).await;
    let expected = format!("room 0 {text}");
    for (number, client) in shaped.iter_mut().enumerate() {
        assert_eq!(client.next().await, (expected.clone(), number < 6));
    }
    assert_eq!(bare.text().await, expected);
    assert_eq!(plain_bytes().await - before, 4.0 * expected.len() as f64, "one for all, and three of their own");
    assert_eq!(gateway.metric("plugin_broadcasts", "plugin=\"hooks\"").await, 3.0, "once for each route");
}

#[tokio::test]
async fn what_is_recovered_sent_and_decided_on_is_compressed_too() {
    let grants = "grants = { publish = [\"*\"], subscribe = [\"*\"], users = true }";
    let config = format!(
        "[[topic]]\npattern = \"kept:*\"\nhistory = {{ size = 3, ttl = \"1h\" }}\n\
         [[route]]\nname = \"alone\"\npath = \"/alone\"\nplugins = [\"hooks\"]\ncompression = true\n\
         [[route]]\nname = \"by-hand\"\npath = \"/by-hand\"\nplugins = [\"hooks\"]\noutbound = true\ncompression = true\n\
         [[route]]\nname = \"takeover\"\npath = \"/takeover\"\nplugins = [\"hooks\"]\n\
         compression = {{ context_takeover = true }}\n[plugin.hooks]\n{grants}\n"
    );
    let gateway = Gateway::start_with(&config, &[("hooks", hooks())]).await;
    let mut teller = Client::connect(&gateway.ws_url("/alone?user=teller")).await;
    for number in 1..=3 {
        teller.send(&format!("publish kept:1 {}", json(number, 500))).await;
    }
    let published = || async { (gateway.metric("tidegate_publications_total", "").await == 3.0).then_some(()) };
    until("the publications", published).await;
    for (path, agreed) in [("/alone", ALONE), ("/by-hand", ALONE), ("/takeover", "permessage-deflate")] {
        let by_hand = |text: String, from: &str| if path == "/by-hand" { format!("<{from}> {text}") } else { text };
        let mut client = Deflated::connect(&gateway, &format!("{path}?user=ann"), "permessage-deflate", agreed).await;
        client.raw.send(&frame(TEXT, b"join kept:1 0 0")).await;
        let (gap, _) = client.next().await;
        let epoch = gap.strip_prefix("gap kept:1 ").and_then(|at| at.split(' ').next()).unwrap_or(&gap).to_owned();
        client.raw.send(&frame(TEXT, format!("join kept:1 {epoch} 0").as_bytes())).await;
        assert!(client.next().await.0.starts_with("recovered kept:1"));
        for number in 1..=3 {
            let text = by_hand(format!("kept:1 {number} {}", json(number, 500)), "kept:1");
            assert_eq!(client.next().await, (text, true), "{path}");
        }
        teller.send(&format!("tell ann {}", json(9, 700))).await;
        assert_eq!(client.next().await, (by_hand(json(9, 700), "direct"), true), "{path}");
        drop(client);
        until("its end", || async {
            (gateway.metric("tidegate_sessions", &path[1..]).await == f64::from(u8::from(path == "/alone")))
                .then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_slow_client_with_takeover_can_read_what_is_not_dropped() {
    let config = "[[route]]\nname = \"pub\"\npath = \"/pub\"\nplugins = [\"fanout\"]\n\
         [[route]]\nname = \"sub\"\npath = \"/sub\"\nplugins = [\"fanout\"]\nslow_consumer = \"POLICY\"\n\
         compression = { context_takeover = true }\nlimits = { outbox = \"64KiB\" }\n\
         [plugin.fanout]\ngrants = { publish = [\"fanout\"], subscribe = [\"fanout\"] }\n";
    for policy in ["drop-oldest", "drop-newest"] {
        let gateway = Gateway::start(&config.replace("POLICY", policy)).await;
        let mut slow = Deflated::connect(&gateway, "/sub", "permessage-deflate", "permessage-deflate").await;
        until("the subscriber", || async { (gateway.metric("tidegate_subscriptions", "").await == 1.0).then_some(()) })
            .await;
        let mut publisher = Client::connect(&gateway.ws_url("/pub")).await;
        // Numbers that compress to a half; each message begins with its own.
        let mut state = 1_u64;
        let mut text = |number: usize| {
            let mut text = format!("{number} ");
            while text.len() < 16_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text += &(state >> 20).to_string();
            }
            text
        };
        let mut sent = Vec::new();
        while gateway.metric("tidegate_outbox_dropped_total", "").await < 20.0 {
            assert!(sent.len() < 20_000, "nothing is dropped");
            for _ in 0..50 {
                let text = text(sent.len());
                publisher.send(&text).await;
                sent.push(text);
            }
        }
        until("all deliveries", || async {
            (gateway.metric("tidegate_deliveries_total", "").await == sent.len() as f64).then_some(())
        })
        .await;
        let dropped = gateway.metric("tidegate_outbox_dropped_total", "").await as usize;
        let mut read = Vec::new();
        for _ in dropped..sent.len() {
            let (text, compressed) = slow.next().await;
            assert!(compressed);
            let number: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert!(text == sent[number], "message {number} is not what was published");
            read.push(number);
        }
        assert!(read.is_sorted(), "{read:?}");
        publisher.send(&json(1, 400)).await;
        assert_eq!(slow.next().await, (json(1, 400), true), "and what comes later too");
    }
}
