//! What reaches a client, and how: the hooks `broadcast`, `outbound` and `subscription`.

use tidegate_sdk::history::Position;
use tidegate_sdk::subscription::{Change, Event};
use tidegate_sdk::testing::{Client, Gateway, Topic};
use tidegate_sdk::{Closer, Context, Message, Plugin, Publication, Result, Session, Verdict, topics, users};

use crate::trap;

/// A small protocol: `join TOPIC`, `join TOPIC EPOCH OFFSET`, `leave TOPIC`, `say TOPIC TEXT`; what comes out has topic
/// and offset around it, and a number of the session's own before it.
#[derive(Default)]
struct Framer;

impl Plugin for Framer {
    fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
        let text = message.as_text().context("text only")?;
        match text.split(' ').collect::<Vec<_>>().as_slice() {
            ["join", topic] => {
                session.subscribe(topic)?;
            }
            ["join", topic, epoch, offset] => {
                session.send("joining");
                let since = Position { epoch: epoch.parse()?, offset: offset.parse()? };
                session.subscribe(topic)?.with_recovery(since);
            }
            ["leave", topic] => session.unsubscribe(topic),
            ["say", topic, text] => {
                topics::publish(topic, *text)?;
            }
            ["whisper", user, text] => users::send(user, *text)?,
            ["add", user, topic] => users::subscribe(user, topic)?,
            ["remove", user, topic] => users::unsubscribe(user, topic)?,
            _ => return Err(format!("`{text}`?").into()),
        }
        session.send("ok");
        Ok(Verdict::Stop)
    }

    fn broadcast(&self, publication: Publication, topic: &str, message: Message) -> Result<Verdict> {
        let text = message.as_text().context("text only")?;
        let offset = publication.position().map_or(0, |position| position.offset);
        match text {
            "stop" => Ok(Verdict::Stop),
            "plain" => Ok(Verdict::Next),
            "fail" => Err("not to be framed".into()),
            "publish" => {
                topics::publish(topic, "from a broadcast")?;
                Ok(Verdict::Next)
            }
            _ => Ok(Verdict::replace(format!("{topic}@{offset} {text}"))),
        }
    }

    fn outbound(&self, session: Session, publication: Option<Publication>, message: Message) -> Result<Verdict> {
        let text = message.as_text().context("text only")?;
        if text.ends_with("secret") {
            return Ok(Verdict::Stop);
        }
        match text {
            "broken" => return Err("not to be sent".into()),
            "answer" => session.send("no"),
            "away" => session.close(4002, "away"),
            _ => {}
        }
        let number = session.attribute("number").map_or(Ok(1), |number| number.parse::<u32>())?;
        session.set_attribute("number", &(number + 1).to_string())?;
        let kind = if publication.is_some() { "publication" } else { "direct" };
        Ok(Verdict::replace(format!("{number} {kind} {text}")))
    }

    fn subscription(&self, session: Session, change: Change) -> Result {
        let Change { topic, event, position } = change;
        session.send(format!("{event:?} {topic} {:?}", position.map(|at| (at.epoch, at.offset))));
        if topic == "lobby" && event == Event::Subscribed {
            session.subscribe("news")?;
            topics::publish("lobby", "someone came")?;
        }
        Ok(())
    }
}

tidegate_sdk::export!(Framer: inbound, broadcast, outbound, subscription);

fn enter(gateway: &Gateway<Framer>, user: &str) -> Client<Framer> {
    gateway.connect().user(user).open().unwrap()
}

fn says<P: tidegate_sdk::Exported>(client: &Client<P>, said: &[&str]) {
    said.iter().for_each(|said| drop(client.says(*said).unwrap()));
}

#[test]
fn subscribers_share_a_frame_and_each_has_its_own_way_out() {
    let gateway = Gateway::<Framer>::new();
    let (alice, bob) = (enter(&gateway, "alice"), enter(&gateway, "bob"));
    says(&alice, &["join room"]);
    says(&bob, &["join room", "say room hello", "say room stop", "say room plain", "say room secret"]);
    assert_eq!(
        alice.received(),
        [
            "ok",
            "Subscribed room Some((1, 0))",
            "1 publication room@1 hello",
            "2 publication plain", // `stop` never came
        ]
    );
    assert_eq!(alice.attribute("number").as_deref(), Some("3"));
    assert_eq!(bob.received().len(), 2 + 2 + 4);
    // The history holds what was published, not its frame.
    assert_eq!(gateway.history("room"), ["hello", "stop", "plain", "secret"]);
}

#[test]
fn what_a_plugin_sends_itself_does_not_come_back_to_it() {
    let gateway = Gateway::<Framer>::new();
    let (alice, bob) = (enter(&gateway, "alice"), enter(&gateway, "bob"));
    says(&alice, &["whisper bob psst"]);
    assert_eq!(alice.received(), ["ok"]);
    assert_eq!(bob.received(), ["1 direct psst"]);
}

#[test]
fn the_hook_comes_before_the_deliveries_that_follow_from_it() {
    let gateway = Gateway::<Framer>::new();
    let alice = enter(&gateway, "alice");
    says(&alice, &["join lobby"]);
    assert_eq!(
        alice.received(),
        ["ok", "Subscribed lobby Some((1, 0))", "Subscribed news Some((1, 0))", "1 publication lobby@1 someone came",]
    );
}

#[test]
fn recovered_publications_are_framed_and_an_old_position_is_a_gap() {
    let gateway = Gateway::<Framer>::new().topic("short", Topic { history: 2, ..Topic::default() });
    let alice = enter(&gateway, "alice");
    for text in ["one", "two", "three"] {
        gateway.publish("room", text).unwrap();
        gateway.publish("short", text).unwrap();
    }
    says(&alice, &["join room 1 1"]);
    assert_eq!(
        alice.received(),
        ["joining", "ok", "Recovered room Some((1, 3))", "1 publication room@2 two", "2 publication room@3 three",]
    );
    // Nothing was missed, nothing is lost.
    says(&alice, &["leave room", "join room 1 3"]);
    assert_eq!(alice.received(), ["ok", "joining", "ok", "Recovered room Some((1, 3))"]);
    // The first is no longer kept; of another epoch; of a future that never was.
    for position in ["1 0", "2 1", "1 4"] {
        let bob = enter(&gateway, "bob");
        says(&bob, &[&format!("join short {position}")]);
        assert_eq!(bob.received(), ["joining", "ok", "Gap short Some((1, 3))"], "{position}");
        assert_eq!(bob.topics(), ["short"], "it is subscribed all the same");
    }
}

#[test]
fn a_lost_history_is_a_gap_for_everyone() {
    let gateway = Gateway::<Framer>::new();
    let alice = enter(&gateway, "alice");
    says(&alice, &["join room", "say room hello"]);
    alice.received();
    gateway.lose_history("room");
    gateway.publish("room", "anew").unwrap();
    assert_eq!(alice.received(), ["Gap room Some((2, 0))", "2 publication room@1 anew"]);
    // A position of before.
    says(&alice, &["join room 1 1"]);
    assert_eq!(alice.received(), ["joining", "ok", "Gap room Some((2, 1))"]);
}

#[test]
fn a_gap_without_the_hook_closes() {
    #[derive(Default)]
    struct Plain;
    impl Plugin for Plain {
        fn inbound(&self, session: Session, message: Message) -> Result<Verdict> {
            let since = Position { epoch: 1, offset: message.json()? };
            session.subscribe("room")?.with_recovery(since);
            session.send("ok");
            Ok(Verdict::Stop)
        }
    }
    tidegate_sdk::export!(Plain: inbound);
    let gateway = Gateway::<Plain>::new().topic("*", Topic { history: 1, ..Topic::default() });
    let (alice, bob) = (gateway.connect().open().unwrap(), gateway.connect().open().unwrap());
    for text in ["one", "two"] {
        gateway.publish("room", text).unwrap();
    }
    alice.says("1").unwrap();
    assert_eq!((alice.received(), alice.closed()), (vec!["ok".into(), "two".into()], None));
    bob.says("0").unwrap();
    assert_eq!(bob.received(), ["ok"]);
    let close = bob.closed().unwrap();
    assert_eq!((close.code, close.by), (4001, Closer::Gateway));
    gateway.lose_history("room");
    assert_eq!(alice.closed().unwrap().code, 4001);
}

#[test]
fn subscriptions_from_elsewhere_are_told() {
    let gateway = Gateway::<Framer>::new().topic("*", Topic { history: 0, ..Topic::default() });
    let (alice, bob) = (enter(&gateway, "alice"), enter(&gateway, "bob"));
    says(&alice, &["add bob room", "add bob room", "remove bob room", "remove bob room"]);
    assert_eq!(bob.received(), ["Added room None", "Removed room None"]);
    assert!(Event::Added.is_subscribed() && !Event::Removed.is_subscribed());
    // Its own leaving is no news to it.
    says(&bob, &["join room", "leave room"]);
    assert_eq!(bob.received(), ["ok", "Subscribed room None", "ok"]);
}

#[test]
fn a_loss_is_never_silent() {
    let gateway = Gateway::<Framer>::new();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|user| enter(&gateway, user));
    let dora = gateway.connect().user("dora").route("elsewhere").open().unwrap();
    says(&alice, &["join room"]);
    says(&bob, &["join other"]);
    says(&dora, &["join room"]);
    gateway.publish("room", "fail").unwrap();
    // Once for each route.
    let failures: Vec<_> = gateway.failures().into_iter().map(|failure| (failure.hook, failure.message)).collect();
    assert_eq!(failures, vec![("broadcast", "not to be framed".to_owned()); 2]);
    for client in [&alice, &dora] {
        let close = client.closed().unwrap();
        assert_eq!((close.code, close.by), (1011, Closer::Gateway));
    }
    assert_eq!((bob.closed(), carol.closed()), (None, None));

    says(&bob, &["whisper carol broken"]);
    assert_eq!(gateway.failures()[0].hook, "outbound");
    assert_eq!(carol.closed().unwrap().code, 1011);
    // An effect that `outbound` may ask for.
    says(&bob, &["whisper bob away"]);
    assert_eq!(bob.closed().unwrap().code, 4002);
}

#[test]
fn hooks_of_deliveries_may_not_do_everything() {
    let gateway = Gateway::<Framer>::new();
    let (alice, bob) = (enter(&gateway, "alice"), enter(&gateway, "bob"));
    says(&alice, &["join room"]);
    assert!(trap(|| drop(bob.says("whisper alice answer"))).contains("`outbound` may not"));
    assert!(trap(|| gateway.publish("room", "publish").unwrap()).contains("`broadcast` may not"));
    // The gateway lives on after a trap.
    alice.received();
    says(&bob, &["say room plain"]);
    assert_eq!(alice.received(), ["1 publication plain"]);
}
