//! What RFC 6455 says of frames, byte by byte: what breaks the rules ends with the right code, and hurts nobody else.

use crate::support::client::{CLOSE, Client, PING, PONG, Raw, TEXT, frame, read_frame};
use crate::support::peers::websocat;
use crate::support::{Gateway, until};

const CONFIG: &str = r#"
[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
limits = { message = "64KiB" }
"#;

/// First bytes of frames that are parts of a message.
const TEXT_BEGIN: u8 = 0x01;
const CONTINUATION: u8 = 0x00;
const LAST: u8 = 0x80;

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, u8::try_from(payload.len()).unwrap()];
    bytes.extend(payload);
    bytes
}

/// A frame's header alone, with an announced length that does not follow.
fn header(first: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | 127];
    bytes.extend(len.to_be_bytes());
    bytes.extend([1, 2, 3, 4]);
    bytes
}

/// Sends each of the bytes on a connection of its own, which must end with the code; another client goes on.
async fn all_end_with(code: u16, cases: &[(&str, Vec<u8>)]) {
    let gateway = Gateway::start(CONFIG).await;
    let mut other = Client::connect(&gateway.ws_url("/echo")).await;
    for (what, bytes) in cases {
        let mut raw = Raw::connect(gateway.address(), "/echo").await;
        raw.send(bytes).await;
        assert_eq!(raw.close_code().await, Some(code), "{what}");
        assert!(raw.is_over().await, "{what}: nothing comes after a close frame");
        assert_eq!(other.ask(what).await, *what);
    }
    let closes = gateway.metric("tidegate_closes_total", &format!("code=\"{code}\"")).await;
    assert_eq!(closes, cases.len() as f64);
    assert_eq!(gateway.metric("tidegate_messages_received_total", "").await, cases.len() as f64, "only the other's");
}

#[tokio::test]
async fn a_frame_against_the_rules_ends_with_1002() {
    let long = vec![b'x'; 126];
    let cases = [
        ("a reserved bit: 1", frame(TEXT | 0x40, b"x")),
        ("a reserved bit: 2", frame(TEXT | 0x20, b"x")),
        ("a reserved bit: 3", frame(TEXT | 0x10, b"x")),
        ("a reserved opcode", frame(0x83, b"x")),
        ("a reserved control opcode", frame(0x8b, b"")),
        ("a text without a mask", unmasked(TEXT, b"x")),
        ("a ping without a mask", unmasked(PING, b"")),
        ("a stray continuation", frame(LAST, b"x")),
        ("a text within a text", [frame(TEXT_BEGIN, b"x"), frame(TEXT, b"y")].concat()),
        ("a fragmented ping", frame(0x09, b"x")),
        ("a ping of 126 bytes", frame(PING, &long)),
        ("a length that is longer than need be", [&[TEXT, 0xfe, 0, 1, 0, 0, 0, 0][..], b"x"].concat()),
        ("close 1005", frame(CLOSE, &1005_u16.to_be_bytes())),
        ("close 1006", frame(CLOSE, &1006_u16.to_be_bytes())),
        ("close 999", frame(CLOSE, &999_u16.to_be_bytes())),
        ("close 5000", frame(CLOSE, &5000_u16.to_be_bytes())),
        ("a close of one byte", frame(CLOSE, &[3])),
    ];
    all_end_with(1002, &cases).await;
}

#[tokio::test]
async fn text_that_is_not_utf8_ends_with_1007() {
    let cases = [
        ("whole", frame(TEXT, b"a\xff")),
        ("cut off", frame(TEXT, b"a\xe2\x82")),
        ("a surrogate", frame(TEXT, b"\xed\xa0\x80")),
        ("split over fragments", [frame(TEXT_BEGIN, b"\xe2\x82"), frame(LAST, b"x")].concat()),
        ("known before the message's end", frame(TEXT_BEGIN, b"\xff")),
        ("in the reason of a close", frame(CLOSE, b"\x03\xe8\xff")),
    ];
    all_end_with(1007, &cases).await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_its_header() {
    // Fragments of 60 KiB and of 4 KiB and a byte.
    let begin = frame(TEXT_BEGIN, &vec![b'x'; 60 << 10]);
    let cases = [
        ("one byte more", header(TEXT, (64 << 10) + 1)),
        ("a gigabyte", header(0x82, 1 << 30)),
        ("all that a length can say", header(0x82, u64::MAX)),
        ("in the sum of its fragments", [begin, vec![LAST, 0x80 | 126, 0x10, 0x01, 1, 2, 3, 4]].concat()),
    ];
    all_end_with(1009, &cases).await;
}

#[tokio::test]
async fn a_goodbye_is_answered_with_its_own_code() {
    let gateway = Gateway::start(CONFIG).await;
    // Private codes are counted as one: a client could think of thousands.
    for (code, label, closes) in
        [(1000_u16, "1000", 1.0), (1001, "1001", 1.0), (3000, "private", 1.0), (4999, "private", 2.0)]
    {
        let mut raw = Raw::connect(gateway.address(), "/echo").await;
        raw.send(&frame(CLOSE, &[&code.to_be_bytes()[..], b"bye"].concat())).await;
        let (first, payload) = raw.frame().await.unwrap();
        assert_eq!((first, &payload[..2]), (CLOSE, &code.to_be_bytes()[..]));
        assert!(raw.is_over().await);
        let label = format!("by=\"client\",code=\"{label}\"");
        assert_eq!(gateway.metric("tidegate_closes_total", &label).await, closes);
    }
    let mut raw = Raw::connect(gateway.address(), "/echo").await;
    raw.send(&frame(CLOSE, b"")).await;
    assert_eq!(raw.frame().await, Some((CLOSE, Vec::new())), "no code is answered by none");
    // What comes behind a close frame is not looked at.
    let mut raw = Raw::connect(gateway.address(), "/echo").await;
    raw.send(&[frame(CLOSE, &1000_u16.to_be_bytes()), frame(TEXT, b"too late")].concat()).await;
    assert_eq!(raw.frame().await, Some((CLOSE, 1000_u16.to_be_bytes().to_vec())));
    assert!(raw.is_over().await);
    assert_eq!(gateway.metric("tidegate_messages_received_total", "").await, 0.0);
}

#[tokio::test]
async fn a_ping_is_answered_with_what_it_carries() {
    let gateway = Gateway::start(CONFIG).await;
    let mut raw = Raw::connect(gateway.address(), "/echo").await;
    for payload in [&b""[..], b"tide", &[0xff; 125]] {
        raw.send(&frame(PING, payload)).await;
        assert_eq!(raw.frame().await, Some((PONG, payload.to_vec())));
    }
    // A pong that nobody asked for is no mistake (RFC 6455 section 5.5.3).
    raw.send(&[frame(PONG, b"unasked"), frame(TEXT, b"go on")].concat()).await;
    assert_eq!(raw.frame().await, Some((TEXT, b"go on".to_vec())));
}

#[tokio::test]
async fn fragments_become_one_message_whatever_comes_between_and_however_they_are_cut() {
    let gateway = Gateway::start(CONFIG).await;
    let mut raw = Raw::connect(gateway.address(), "/echo").await;
    let parts = [
        frame(TEXT_BEGIN, "tide \u{1f30a}".as_bytes()),
        frame(PING, b"in between"),
        // In the middle of a character.
        frame(CONTINUATION, &"\u{1f30a}".as_bytes()[..2]),
        frame(LAST, &[&"\u{1f30a}".as_bytes()[2..], b" gate"].concat()),
    ];
    let whole = (TEXT, "tide \u{1f30a}\u{1f30a} gate".as_bytes().to_vec());
    raw.send(&parts.concat()).await;
    assert_eq!(raw.frame().await, Some((PONG, b"in between".to_vec())));
    assert_eq!(raw.frame().await, Some(whole.clone()));
    for byte in parts.concat() {
        raw.send(&[byte]).await;
    }
    assert_eq!(raw.frame().await, Some((PONG, b"in between".to_vec())));
    assert_eq!(raw.frame().await, Some(whole));
    assert_eq!(gateway.metric("tidegate_messages_received_total", "").await, 2.0);
}

#[tokio::test]
async fn messages_up_to_the_limit_come_back_as_they_were() {
    let gateway = Gateway::start(CONFIG).await;
    let mut raw = Raw::connect(gateway.address(), "/echo").await;
    for len in [0, 1, 125, 126, 65535, 65536] {
        for first in [TEXT, 0x82] {
            let payload: Vec<u8> = (0..len).map(|at| b'a' + (at % 26) as u8).collect();
            raw.send(&frame(first, &payload)).await;
            assert!(raw.frame().await == Some((first, payload)), "{len} bytes of {first:#x}");
        }
    }
}

#[tokio::test]
async fn empty_fragments_without_end_are_ended_and_cost_others_nothing() {
    let gateway = Gateway::start(CONFIG).await;
    let mut other = Client::connect(&gateway.ws_url("/echo")).await;
    let mut raw = Raw::connect(gateway.address(), "/echo").await;
    let mut flood = frame(TEXT_BEGIN, b"a");
    for _ in 0..100_000 {
        flood.extend(frame(CONTINUATION, b""));
    }
    flood.extend(frame(LAST, b"z"));
    let flooding = tokio::spawn(async move {
        raw.send(&flood).await;
        raw.close_code().await
    });
    while !flooding.is_finished() {
        assert_eq!(other.ask("meanwhile").await, "meanwhile");
    }
    assert_eq!(flooding.await.unwrap(), Some(1008));
    assert_eq!(gateway.metric("tidegate_closes_total", "by=\"gateway\",code=\"1008\"").await, 1.0);
    assert_eq!(other.ask("still").await, "still");
}

#[tokio::test]
async fn some_empty_fragments_are_no_mistake() {
    let gateway = Gateway::start(CONFIG).await;
    let mut raw = Raw::connect(gateway.address(), "/echo").await;
    let parts = [frame(TEXT_BEGIN, b"a"), frame(CONTINUATION, b"").repeat(900), frame(LAST, b"z")];
    for _ in 0..3 {
        raw.send(&parts.concat()).await;
        assert_eq!(raw.frame().await, Some((TEXT, b"az".to_vec())), "each message has as many");
    }
    // Fragments with something in them are bounded by what a message may be.
    let bytes: Vec<u8> = std::iter::repeat_n(frame(CONTINUATION, b"x"), 20_000).flatten().collect();
    raw.send(&[frame(TEXT_BEGIN, b""), bytes, frame(LAST, b"")].concat()).await;
    assert_eq!(raw.frame().await, Some((TEXT, vec![b'x'; 20_000])));
}

#[tokio::test]
async fn floods_of_control_frames_are_ended_and_cost_others_nothing() {
    let gateway = Gateway::start(CONFIG).await;
    let mut other = Client::connect(&gateway.ws_url("/echo")).await;
    for (count, first) in [(1.0, PING), (2.0, PONG)] {
        let raw = Raw::connect(gateway.address(), "/echo").await;
        let flood = frame(first, b"tide").repeat(100_000);
        let flooding = tokio::spawn(async move {
            let (mut reading, mut writing) = raw.0.into_split();
            let sending = tokio::spawn(async move {
                let _ = tokio::io::AsyncWriteExt::write_all(&mut writing, &flood).await;
            });
            let mut pongs = 0;
            let code = loop {
                match read_frame(&mut reading).await {
                    Some((PONG, _)) => pongs += 1,
                    Some((CLOSE, payload)) => {
                        break payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                    }
                    other => panic!("a pong or a close was to come, not {other:?}"),
                }
            };
            let _ = sending.await;
            (code, pongs)
        });
        while !flooding.is_finished() {
            assert_eq!(other.ask("meanwhile").await, "meanwhile");
        }
        let (code, pongs) = flooding.await.unwrap();
        assert_eq!(code, Some(1008));
        assert!(pongs < 10_000, "{pongs} of 100,000 were answered");
        assert_eq!(gateway.metric("tidegate_rate_exceeded_total", "rate=\"control\"").await, count);
    }
}

#[tokio::test]
async fn what_is_only_announced_takes_no_memory() {
    announced(500).await;
}

#[tokio::test]
#[ignore = "soak: as many connections as descriptors allow; cargo xtask test --soak"]
async fn what_thousands_only_announce_takes_no_memory() {
    announced(9_000).await;
}

async fn announced(count: usize) {
    let config = CONFIG.replace("message = \"64KiB\"", "message = \"16MiB\", sessions = 10000");
    let gateway = Gateway::start(&format!("max_connections = 10000\n{config}")).await;
    let mut other = Client::connect(&gateway.ws_url("/echo")).await;
    let before = gateway.resident();
    let mut announcing = Vec::new();
    for _ in 0..count {
        let mut raw = Raw::connect(gateway.address(), "/echo").await;
        let mut begin = header(TEXT, 16 << 20);
        begin.extend([b'x'; 100]);
        raw.send(&begin).await;
        announcing.push(raw);
    }
    assert_eq!(other.ask("still").await, "still");
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < (28 << 20) + count * (8 << 10), "{grown} bytes for {} GB that were announced", count >> 6);
    assert_eq!(gateway.metric("tidegate_sessions", "").await, (count + 1) as f64);
}

#[tokio::test]
async fn websocat_hears_what_it_has_said() {
    let gateway = Gateway::start(CONFIG).await;
    let lines: Vec<_> = (0..200).map(|number| format!("{number} \u{2603} {}", "tide ".repeat(number))).collect();
    let url = gateway.ws_url("/echo");
    let Some(heard) = websocat("websocat_hears_what_it_has_said", &url, &lines).await else { return };
    assert_eq!(heard, lines);
    until("its goodbye", || async {
        (gateway.metric("tidegate_closes_total", "by=\"client\"").await == 1.0).then_some(())
    })
    .await;
}
