//! The configuration replaced while clients stay: taken as a whole or not at all.

use std::time::Duration;

use crate::support::client::Client;
use crate::support::guests::wat;
use crate::support::{Gateway, until};

const WORD: &str = r#"
[[route]]
name = "word"
path = "/word"
plugins = ["setting"]

[plugin.setting.config]
word = "one"
"#;

const ECHO: &str = r#"
[[route]]
name = "echo"
path = "/echo"
plugins = ["echo"]
limits = { message = "64B" }
"#;

async fn word() -> Gateway {
    Gateway::start_with(WORD, &[("setting", wat("setting", &[]))]).await
}

#[tokio::test]
async fn new_routes_rules_and_settings_reach_those_who_are_connected() {
    let gateway = word().await;
    let mut client = Client::connect(&gateway.ws_url("/word")).await;
    assert_eq!(client.ask("?").await, "one");
    assert_eq!(Client::try_connect(&gateway.ws_url("/echo"), &[]).await.err(), Some(404));
    gateway.reconfigure(&(WORD.replace("one", "two") + ECHO), "applied").await;
    assert_eq!(client.ask("?").await, "two", "the session has stayed, and its plugin has new settings");
    let mut echo = Client::connect(&gateway.ws_url("/echo")).await;
    assert_eq!(echo.ask("tide").await, "tide");
    assert_eq!(gateway.metric("tidegate_plugin_generation", "setting").await, 2.0);
    assert_eq!(gateway.metric("tidegate_plugin_generation", "echo").await, 1.0);

    // What has a rule of its own is looked at with the next message; the plugin whose table is the same stays.
    let words = WORD.replace("one", "two");
    gateway.reconfigure(&(words.clone() + &ECHO.replace("64B", "8B")), "applied").await;
    assert_eq!(gateway.metric("tidegate_plugin_generation", "setting").await, 2.0);
    assert_eq!(echo.ask("12345678").await, "12345678");
    echo.send("123456789").await;
    assert_eq!(echo.closed().await, Some(1009));

    // A path is a rule too: the route is its name.
    gateway.reconfigure(&(words.replace("/word", "/wort") + ECHO), "applied").await;
    assert_eq!(client.ask("?").await, "two");
    assert_eq!(Client::try_connect(&gateway.ws_url("/word"), &[]).await.err(), Some(404));
    assert_eq!(Client::connect(&gateway.ws_url("/wort")).await.ask("?").await, "two");
    assert_eq!(gateway.metric("tidegate_config_reloads_total", "refused").await, 0.0);
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing() {
    let gateway = word().await;
    let mut client = Client::connect(&gateway.ws_url("/word")).await;
    let new = ECHO.to_owned() + WORD;
    let cases = [
        (new.replace("plugins = [\"echo\"]", "plugin = [\"echo\"]"), "tidegate.toml:7:1: unknown field `plugin`"),
        (new.replace("[\"echo\"]", "[\"ehco\"]"), "names the plugin `ehco`, but there is no file"),
        (new.replace("word = \"one\"", "world = \"one\""), "plugin setting: "),
        (new.replace("\"one\"", "{ file = \"nowhere\" }"), "tidegate.toml:15:1: plugin.setting.config.word: "),
        (new + "[plugin.echo.limits]\nfile = 100\n", "more than the 100 of its limit (`file`)"),
    ];
    for (config, why) in &cases {
        gateway.reconfigure(config, "refused").await;
        gateway.log_line(&["the configuration cannot be used: the one before goes on", why]).await;
        let page = gateway.config_page().await;
        assert_eq!(page["last"], "refused");
        assert!(page["trouble"].as_str().unwrap().contains(why), "{page}");
        assert_eq!(client.ask("?").await, "one");
        assert_eq!(Client::try_connect(&gateway.ws_url("/echo"), &[]).await.err(), Some(404), "a part of it serves");
        assert_eq!(gateway.metric("tidegate_plugin_generation", "").await, 1.0, "a part of it serves");
    }
    gateway.reconfigure(WORD, "unchanged").await;
    assert!(gateway.config_page().await["trouble"].is_null());
    assert_eq!(gateway.metric("tidegate_config_reloads_total", "applied").await, 0.0);
}

#[tokio::test]
async fn sessions_of_a_route_that_is_gone_are_closed() {
    let gateway = Gateway::start_with(&(WORD.to_owned() + ECHO), &[("setting", wat("setting", &[]))]).await;
    let mut stays = Client::connect(&gateway.ws_url("/word")).await;
    let mut leaves = Client::connect(&gateway.ws_url("/echo")).await;
    assert_eq!(leaves.ask("tide").await, "tide");
    gateway.reconfigure(WORD, "applied").await;
    assert_eq!(leaves.closed().await, Some(1001));
    assert_eq!(stays.ask("?").await, "one");
    assert_eq!(Client::try_connect(&gateway.ws_url("/echo"), &[]).await.err(), Some(404));
    // Its plugin goes with the last of them.
    until("the end of echo's instances", || async {
        (gateway.metric("tidegate_plugin_instances", "echo").await == 0.0).then_some(())
    })
    .await;
    gateway.reconfigure(&(WORD.to_owned() + ECHO), "applied").await;
    assert_eq!(Client::connect(&gateway.ws_url("/echo")).await.ask("again").await, "again");
}

#[tokio::test]
async fn a_changed_secret_makes_a_new_generation() {
    let config = WORD.replace("\"one\"", "{ file = \"word.txt\" }");
    let directory = Gateway::prepare(&config, &[("setting", wat("setting", &[]))]);
    let secret = directory.path().join("word.txt");
    std::fs::write(&secret, "hush\n").unwrap();
    let gateway = Gateway::run(directory).await;
    let mut client = Client::connect(&gateway.ws_url("/word")).await;
    assert_eq!(client.ask("?").await, "hush");
    std::fs::write(&secret, "whist\n").unwrap();
    gateway.generation("setting", 2).await;
    assert_eq!(client.ask("?").await, "whist");
    // A secret that is gone is refused, and its return is noticed without anybody touching the configuration.
    std::fs::remove_file(&secret).unwrap();
    gateway.log_line(&["the configuration cannot be used", "word.txt cannot be read"]).await;
    assert_eq!(client.ask("?").await, "whist");
    std::fs::write(&secret, "psst\n").unwrap();
    gateway.generation("setting", 3).await;
    assert_eq!(client.ask("?").await, "psst");
}

#[tokio::test]
async fn a_plugin_that_was_missing_is_taken_when_it_comes() {
    let gateway = word().await;
    let config = WORD.replace("[\"setting\"]", "[\"late\", \"setting\"]");
    gateway.reconfigure(&config, "refused").await;
    gateway.replace("late", b"\0asm is not all");
    gateway.log_line(&["the configuration cannot be used", "plugin late: "]).await;
    gateway.replace("late", &wat("mark", &[]));
    gateway.generation("late", 1).await;
    assert_eq!(Client::connect(&gateway.ws_url("/word")).await.ask("?").await, "A");
    until("the end of the trouble", || async { gateway.config_page().await["trouble"].is_null().then_some(()) }).await;
    // It is watched like the others.
    gateway.replace("late", &wat("mark", &[("65 (; the mark ;)", "66")]));
    gateway.generation("late", 2).await;
}

#[tokio::test]
async fn a_file_that_waits_for_its_settings_serves_with_them() {
    let gateway = Gateway::start_with(&WORD.replace("word = \"one\"", ""), &[("setting", wat("mark", &[]))]).await;
    let mut client = Client::connect(&gateway.ws_url("/word")).await;
    gateway.replace("setting", &wat("setting", &[]));
    gateway.log_line(&["the new file cannot serve", "no word is set"]).await;
    assert_eq!(client.ask("?").await, "A");
    gateway.reconfigure(WORD, "applied").await;
    assert_eq!(client.ask("?").await, "one");
}

#[tokio::test]
async fn sighup_reads_the_file_at_once() {
    let gateway =
        Gateway::start_with(&format!("reload_settle = \"1h\"\n{WORD}"), &[("setting", wat("setting", &[]))]).await;
    let mut client = Client::connect(&gateway.ws_url("/word")).await;
    gateway.configure(&WORD.replace("one", "two"));
    gateway.hang_up();
    gateway.generation("setting", 2).await;
    assert_eq!(client.ask("?").await, "two");
    gateway.hang_up();
    until("a second look", || async {
        (gateway.metric("tidegate_config_reloads_total", "unchanged").await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_only_a_restart_can_change_is_named() {
    let gateway = word().await;
    let before = gateway.config_page().await;
    let config = format!("max_connections = 3\nlisten = \"127.0.0.1:1\"\n{}", WORD.replace("one", "two"));
    gateway.reconfigure(&config, "applied").await;
    gateway.log_line(&["only a restart can change them", "max_connections"]).await;
    let page = gateway.config_page().await;
    assert_eq!(
        page["restart_for"],
        serde_json::json!(["max_connections"]),
        "the command line has said where to listen"
    );
    assert!(page["since"].as_u64() > before["since"].as_u64());
    assert!(page["file"].as_str().unwrap().ends_with("tidegate.toml"));
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(&gateway.ws_url("/word")).await);
    }
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), clients[3].ask("?")).await.unwrap(), "two");
}

#[tokio::test]
async fn the_way_of_deliveries_stays_as_it_was() {
    let gateway = word().await;
    gateway.reconfigure(&WORD.replace("path = ", "outbound = true\npath = "), "applied").await;
    assert_eq!(gateway.config_page().await["restart_for"], serde_json::json!(["route.word.outbound"]));
}

#[tokio::test]
async fn topics_follow_their_new_rules() {
    const TOPICS: &str = r#"
[[route]]
name = "topics"
path = "/topics"
plugins = ["topics"]

[plugin.topics.grants]
publish = ["a"]
subscribe = ["a"]
"#;
    let gateway = Gateway::start_with(TOPICS, &[("topics", wat("topics", &[]))]).await;
    let mut client = Client::connect(&gateway.ws_url("/topics")).await;
    // The refusal of what is not granted.
    let denied = client.ask("b").await;
    assert_ne!(denied, "S+P+");
    gateway.reconfigure(&TOPICS.replace("\"a\"", "\"b\""), "applied").await;
    assert_eq!(client.ask("b").await, "S+P+", "a grant that was given");
    assert_eq!(client.text().await, "b");
    assert_eq!(client.ask("a").await, denied, "a grant that was taken");
}
