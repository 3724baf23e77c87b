//! What one client may do: messages a second, bytes in a message, and silence.

use crate::support::client::{CLOSE, Client, PING, Raw, TEXT, frame};
use crate::support::{Gateway, until};

const CONFIG: &str = r#"
[[route]]
name = "rated"
path = "/rated"
plugins = ["echo"]
limits = { rate = 1, burst = 10 }

[[route]]
name = "small"
path = "/small"
plugins = ["echo"]
limits = { message = "1KiB" }

[[route]]
name = "watched"
path = "/watched"
plugins = ["echo"]
heartbeat = { interval = "500ms", timeout = "3s" }
"#;

#[tokio::test]
async fn more_messages_than_the_rate_end_the_session() {
    let gateway = Gateway::start(CONFIG).await;
    let mut modest = Client::connect(&gateway.ws_url("/rated")).await;
    let mut greedy = Client::connect(&gateway.ws_url("/rated")).await;
    for number in 0..10 {
        assert_eq!(modest.ask(&format!("within the burst {number}")).await, format!("within the burst {number}"));
    }
    for number in 0..100 {
        greedy.try_send(&number.to_string()).await;
    }
    let mut answers = Vec::new();
    let code = greedy.closed_after(|text| answers.push(text)).await;
    assert_eq!(code, Some(1008));
    let expected: Vec<_> = (0..answers.len()).map(|number| number.to_string()).collect();
    assert_eq!(answers, expected, "what came before is answered, in order");
    // The burst, and one for each second that the machine has taken for a hundred small messages.
    assert!((10..30).contains(&answers.len()), "{} messages got through", answers.len());
    assert_eq!(gateway.metric("tidegate_closes_total", "code=\"1008\",route=\"rated\"").await, 1.0);
    let received = gateway.metric("tidegate_messages_received_total", "rated").await;
    assert_eq!(received, (10 + answers.len()) as f64, "what is over the rate reaches no plugin");
    modest.close().await;
}

#[tokio::test]
async fn what_happens_to_messages_over_the_rate_can_be_chosen() {
    let config = |policy: &str| CONFIG.replace("burst = 10 }", &format!("burst = 10, rate_exceeded = \"{policy}\" }}"));
    let gateway = Gateway::start(&config("drop")).await;
    let mut client = Client::connect(&gateway.ws_url("/rated")).await;
    let mut raw = Raw::connect(gateway.address(), "/rated").await;
    raw.send(&frame(TEXT, b"much").repeat(100)).await;
    raw.send(&frame(PING, b"end")).await;
    let mut echoes = 0;
    while raw.frame().await.expect("the session goes on") == (TEXT, b"much".to_vec()) {
        echoes += 1;
    }
    assert!((10..30).contains(&echoes), "{echoes} messages got through");
    let over = gateway.metric("tidegate_rate_exceeded_total", "rate=\"message\",route=\"rated\"").await;
    assert_eq!(over, f64::from(100 - echoes));
    assert_eq!(client.ask("unhurt").await, "unhurt");
    gateway.reconfigure(&config("try-later"), "applied").await;
    raw.send(&frame(TEXT, b"much").repeat(100)).await;
    assert_eq!(raw.close_code().await, Some(1013));
}

#[tokio::test]
async fn a_message_may_have_its_limit_and_no_byte_more() {
    let gateway = Gateway::start(CONFIG).await;
    let mut client = Client::connect(&gateway.ws_url("/small")).await;
    let full = "x".repeat(1024);
    assert_eq!(client.ask(&full).await, full);
    client.send(&format!("{full}x")).await;
    assert_eq!(client.closed().await, Some(1009));
    assert_eq!(gateway.metric("tidegate_closes_total", "code=\"1009\",route=\"small\"").await, 1.0);
    assert_eq!(gateway.metric("tidegate_message_bytes_received_total", "small").await, 1024.0);
}

#[tokio::test]
async fn a_silent_client_is_reaped_and_one_that_answers_stays() {
    let gateway = Gateway::start(CONFIG).await;
    let answering = Client::connect(&gateway.ws_url("/watched")).await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    // Reading is what makes the library answer pings.
    let reading = tokio::spawn(async move {
        let mut client = answering;
        tokio::select! {
            message = client.next() => panic!("nothing was to come, not {message:?}"),
            _ = &mut stopped => client,
        }
    });
    // Three in a row, each of which takes the interval and the timeout: the other is pinged many times meanwhile.
    for count in 1..=3 {
        let mut silent = Raw::connect(gateway.address(), "/watched").await;
        assert_eq!(silent.frame().await.map(|(first, _)| first), Some(PING), "a silent client is pinged first");
        let (first, payload) = silent.frame().await.expect("a close frame");
        assert_eq!((first, &payload[..2]), (CLOSE, &1008_u16.to_be_bytes()[..]));
        assert_eq!(gateway.metric("tidegate_heartbeat_timeouts_total", "").await, f64::from(count));
    }
    stop.send(()).unwrap();
    let mut client = reading.await.unwrap();
    assert_eq!(client.ask("alive").await, "alive");
    assert_eq!(gateway.metric("tidegate_sessions", "watched").await, 1.0);
    assert_eq!(gateway.metric("tidegate_closes_total", "watched").await, 3.0);
}

#[tokio::test]
async fn a_client_that_has_vanished_leaves_nothing_behind() {
    let gateway = Gateway::start(CONFIG).await;
    for _ in 0..20 {
        drop(Raw::connect(gateway.address(), "/watched").await);
    }
    until("the sessions' end", || async {
        (gateway.metric("tidegate_closes_total", "by=\"network\",code=\"1006\"").await == 20.0).then_some(())
    })
    .await;
    until("the places", || async { (gateway.metric("tidegate_sessions", "watched").await == 0.0).then_some(()) }).await;
}

#[tokio::test]
async fn connections_past_the_permits_wait_until_one_ends() {
    let gateway = Gateway::start(&format!("max_connections = 2\n{CONFIG}")).await;
    let first = Client::connect(&gateway.ws_url("/watched")).await;
    let second = Client::connect(&gateway.ws_url("/watched")).await;
    let url = gateway.ws_url("/small");
    let waiting = tokio::spawn(async move { Client::connect(&url).await });
    until("accepting has paused", || async {
        (gateway.metric("tidegate_accept_pauses_total", "").await >= 1.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("tidegate_connections", "public").await, 2.0, "sessions keep their permits");
    assert!(!waiting.is_finished());
    first.close().await;
    let mut third = waiting.await.unwrap();
    assert_eq!(third.ask("now it is my turn").await, "now it is my turn");
    second.close().await;
}
