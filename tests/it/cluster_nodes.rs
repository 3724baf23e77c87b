//! Which node a user's sessions had best be on: the same answer from every node, which moves only with the nodes it is about.

use std::collections::HashMap;

use serde_json::Value;

use crate::support::nodes::{node, node_with, ready};
use crate::support::redis::{Server, is_installed};
use crate::support::{Gateway, until};

const USERS: usize = 100;

/// What a node says of all nodes, in a user's order.
async fn nodes_for(gateway: &Gateway, user: &str) -> Vec<Value> {
    let (status, text) = gateway.admin(&format!("/nodes?for={user}")).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Each user's node, by its address.
async fn owners(gateway: &Gateway) -> HashMap<String, String> {
    let mut owners = HashMap::new();
    for user in 0..USERS {
        let user = format!("u{user}%C3%A9");
        let nodes = nodes_for(gateway, &user).await;
        owners.insert(user, nodes[0]["address"].as_str().unwrap().to_owned());
    }
    owners
}

#[tokio::test]
async fn every_node_names_the_same_one_for_a_user_and_users_of_others_stay_when_one_goes() {
    if !is_installed("the nodes of users") {
        return;
    }
    let server = Server::start().await;
    let a = node_with(&server, "advertise = \"wss://a.example.com\"").await;
    let b = node_with(&server, "advertise = \"wss://b.example.com\"").await;
    let mut c = node(&server).await;
    ready(&a).await;
    ready(&b).await;
    until("three nodes", || async { (nodes_for(&a, "x").await.len() == 3).then_some(()) }).await;
    let before = owners(&a).await;
    assert_eq!(before, owners(&b).await);
    let of_c = c.address().to_string();
    for address in ["wss://a.example.com", "wss://b.example.com", &of_c] {
        let share = before.values().filter(|owner| *owner == address).count();
        assert!((USERS / 6..USERS / 2).contains(&share), "{address} has {share} of {USERS}");
    }
    c.terminate();
    c.ended().await;
    for (user, now) in owners(&b).await {
        assert!(now == before[&user] || before[&user] == of_c, "{user} has moved from {} to {now}", before[&user]);
        assert_ne!(now, of_c);
    }
    let lease = nodes_for(&a, "x").await[0]["lease"].as_u64().unwrap();
    assert!((1..=2000).contains(&lease), "{lease} ms of redis.lease");
    assert_eq!(a.admin("/nodes?whom=x").await.0, 400);
}

#[tokio::test]
async fn a_node_that_drains_is_the_last_that_a_user_is_sent_to() {
    if !is_installed("users and a node that drains") {
        return;
    }
    let server = Server::start().await;
    let (a, b) = (node(&server).await, node(&server).await);
    // It stays in its drain as long as a client does not answer its close.
    let (client, _) = crate::support::nodes::come(&b, "refuse").await;
    until("two nodes", || async { (nodes_for(&a, "x").await.len() == 2).then_some(()) }).await;
    b.terminate();
    let drains = || async {
        let nodes = nodes_for(&a, "x").await;
        nodes.iter().any(|node| node["draining"] == true).then_some(())
    };
    until("a node that drains", drains).await;
    for user in 0..20 {
        let nodes = nodes_for(&a, &format!("u{user}")).await;
        assert_eq!((&nodes[0]["draining"], &nodes[1]["draining"]), (&false.into(), &true.into()));
    }
    drop(client);
}

#[tokio::test]
async fn a_node_that_stands_alone_is_everybodys() {
    let gateway = Gateway::start("[[route]]\nname = \"echo\"\npath = \"/echo\"\nplugins = [\"echo\"]\n").await;
    let nodes = nodes_for(&gateway, "ann").await;
    assert_eq!(nodes.len(), 1);
    assert_eq!(
        (&nodes[0]["this"], nodes[0]["address"].as_str()),
        (&true.into(), Some(&*gateway.address().to_string()))
    );
    assert!(nodes[0]["cores"].as_u64().unwrap() >= 1);
}
