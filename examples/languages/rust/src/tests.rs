use std::time::Duration;

use serde_json::json;
use tidegate_sdk::{Result, testing::Gateway};

use super::Tour;

#[test]
fn only_a_name_lets_in() {
    let gateway = Gateway::<Tour>::new();
    assert_eq!(gateway.connect().authenticate().status, 401);
    assert_eq!(gateway.connect().query("name", "a b").authenticate().status, 403);
    let answer = gateway.connect().query("name", "ann").authenticate();
    assert_eq!((answer.status, answer.user.as_deref()), (101, Some("ann")));
}

#[test]
fn the_others_hear_what_one_says() -> Result {
    let gateway = Gateway::<Tour>::new().config(json!({ "greeting": "hello" }));
    let ann = gateway.connect().query("name", "ann").open()?;
    let bob = gateway.connect().query("name", "bob").open()?;
    ann.says("join tour:1")?;
    bob.says("join tour:1")?;
    ann.says("say tour:1 good morning")?;
    assert_eq!(ann.received(), ["hello, ann", "joined tour:1", "said"]);
    assert_eq!(bob.received(), ["hello, bob", "joined tour:1", "ann: good morning"]);
    Ok(())
}

#[test]
fn a_reminder_comes_in_time() -> Result {
    let gateway = Gateway::<Tour>::new();
    let ann = gateway.connect().query("name", "ann").open()?;
    ann.says("remind 500 tea")?;
    gateway.advance(Duration::from_millis(499));
    assert_eq!(ann.received(), ["welcome, ann", "will remind"]);
    gateway.advance(Duration::from_millis(1));
    assert_eq!(ann.received(), ["remember: tea"]);
    Ok(())
}

#[test]
fn what_fails_has_done_nothing() -> Result {
    let gateway = Gateway::<Tour>::new().config(json!({ "longest": 9 }));
    let ann = gateway.connect().query("name", "ann").open()?;
    assert!(ann.says("fail").is_err());
    ann.says("echo 12345")?;
    assert_eq!(ann.received(), ["welcome, ann", "at most 9 bytes"]);
    assert!(Gateway::<Tour>::new().config(json!({ "longest": "long" })).start().is_err());
    Ok(())
}
