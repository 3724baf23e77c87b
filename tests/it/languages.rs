//! Plugins in several languages: the same calls, the same answers.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::Gateway;
use crate::support::client::Client;
use crate::support::guests::in_languages;

const LANGUAGES: [&str; 4] = ["rust", "c", "assemblyscript", "javascript"];

fn tours() -> Vec<(&'static str, Vec<u8>)> {
    let tours = in_languages("languages", "tour", &LANGUAGES);
    assert!(tours.iter().any(|(language, _)| *language == "rust"), "the tour in Rust is missing: cargo xtask plugins");
    tours
}

/// A gateway with a route for each language.
async fn gateway(guests: &[(&'static str, Vec<u8>)]) -> Gateway {
    let mut config = String::from("[[topic]]\npattern = \"tour:*\"\npresence = true\n");
    for (language, _) in guests {
        config += &format!(
            "[[route]]\nname = \"{language}\"\npath = \"/{language}\"\nplugins = [\"{language}\"]\n\
             [plugin.{language}]\nconfig = {{ greeting = \"hello\", longest = 4005 }}\n\
             limits = {{ memory = \"6MiB\" }}\ngrants = {{ publish = [\"tour:*\"], subscribe = [\"tour:*\"] }}\n"
        );
    }
    Gateway::start_with(&config, guests).await
}

#[tokio::test]
async fn the_tour_is_as_its_scenario_tells_in_every_language() {
    let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/languages/scenario.toml");
    let directory = tempfile::tempdir().unwrap();
    for (language, bytes) in tours() {
        let file = directory.path().join(format!("tour-{language}.wasm"));
        std::fs::write(&file, bytes).unwrap();
        let output = crate::support::tidegate(directory.path())
            .args(["plugin", "test"])
            .args([&file, &scenario])
            .output()
            .await
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{language}: {told}");
    }
}

#[tokio::test]
async fn clients_of_all_languages_talk_to_each_other() {
    let tours = tours();
    let gateway = gateway(&tours).await;
    let mut clients = Vec::new();
    for (language, _) in &tours {
        let mut client = Client::connect(&gateway.ws_url(&format!("/{language}?name={language}"))).await;
        assert_eq!(client.text().await, format!("hello, {language}"));
        assert_eq!(client.ask("join tour:1").await, "joined tour:1", "{language}");
        clients.push((*language, client));
    }
    for speaker in 0..clients.len() {
        let (name, client) = &mut clients[speaker];
        let (name, words) = (*name, "say tour:1 it's  a héron 🐚");
        assert_eq!(client.ask(words).await, "said", "{name}");
        for (listener, (language, client)) in clients.iter_mut().enumerate() {
            if listener != speaker {
                assert_eq!(client.text().await, format!("{name}: it's  a héron 🐚"), "{language}");
            }
        }
    }
    for (language, client) in &mut clients {
        assert_eq!(client.ask("leave tour:1").await, "left tour:1", "{language}");
    }
}

#[tokio::test]
async fn a_call_that_fails_costs_nothing_but_itself() {
    let tours = tours();
    let gateway = gateway(&tours).await;
    for (language, _) in &tours {
        let mut client = Client::connect(&gateway.ws_url(&format!("/{language}?name=ann"))).await;
        client.text().await;
        for (number, bad) in ["fail", "crash", "fail", "crash"].into_iter().enumerate() {
            client.send(bad).await;
            assert_eq!(client.ask("count").await, (number + 1).to_string(), "{language} after {bad}");
        }
        let plugin = format!("plugin=\"{language}\"");
        assert_eq!(gateway.metric("tidegate_plugin_call_failures_total", &plugin).await, 4.0, "{language}");
        gateway.log_line(&[&format!("\"plugin\":\"{language}\""), "asked to fail"]).await;
        gateway.log_line(&[&format!("\"plugin\":\"{language}\""), "asked to crash"]).await;
    }
}

#[tokio::test]
async fn what_a_call_has_allocated_is_given_back() {
    let tours = tours();
    let gateway = gateway(&tours).await;
    for (language, _) in &tours {
        let mut client = Client::connect(&gateway.ws_url(&format!("/{language}?name=ann"))).await;
        client.text().await;
        let words = format!("echo {}", "x".repeat(4000));
        // An instance that grows is replaced before it meets its limit; a leak of one message a call would do it thrice.
        let mine = format!("\"plugin\":\"{language}\"");
        let mut instances = 0;
        for round in 0..2000 {
            assert_eq!(client.ask(&words).await.len(), 4000);
            if round == 100 {
                instances = gateway.times_logged(&[&mine, "\"ready\""]);
            }
        }
        // What comes later in the log than the last instance would.
        client.send("fail").await;
        gateway.log_line(&[&mine, "asked to fail"]).await;
        assert!(instances > 0, "{language}");
        assert_eq!(gateway.times_logged(&[&mine, "\"ready\""]), instances, "{language}");
    }
}

/// What the guest that uses everything answers, whatever it is written in.
const EVERYTHING: &[(&str, &[&str])] = &[
    (
        "store",
        &[
            "missing = none",
            "set = v",
            "increment = 42",
            "increment of a text = no",
            "exchange of a missing = no",
            "exchange = yes",
            "exchanged = w",
            "deleted = none",
        ],
    ),
    ("first", &["first!"]),
    ("first", &[]),
    ("second", &["second!"]),
    (
        "topic",
        &[
            "history = first! second!",
            "offset = 2",
            "complete = yes",
            "after the first = 1",
            "still complete = yes",
            "sessions = 1",
            "users = 1",
            "member = ann here",
            "is there = yes",
        ],
    ),
    (
        "request",
        &[
            "method = GET",
            "path = /every/blue%20sky",
            "parameter = blue sky",
            "query = a=%20b",
            "header = yes",
            "of all headers = yes",
            "cookie = 1",
            "route = every",
            "transport = websocket",
            "subprotocol = none",
            "random = 5",
            "time = yes",
            "config = {\"a\":1}",
            "forwarded = no",
        ],
    ),
];

#[tokio::test]
async fn every_language_has_all_of_the_interface() {
    for (language, bytes) in in_languages("test", "everything", &LANGUAGES[1..]) {
        let config = r#"
            [[topic]]
            pattern = "every:*"
            presence = true
            history = { size = 10, ttl = "1h" }

            [[route]]
            name = "every"
            path = "/every/{room}"
            plugins = ["everything"]
            topics = ["every:*"]
            keep_headers = ["x-every", "cookie"]

            [plugin.everything]
            config = { a = 1 }
            grants = { publish = ["every:*"], subscribe = ["every:*"], kv = [""], headers = ["x-every", "cookie"] }
        "#;
        let gateway = Gateway::start_with(config, &[("everything", bytes)]).await;
        let url = gateway.ws_url("/every/blue%20sky?a=%20b");
        let mut client = Client::try_connect(&url, &[("x-every", "yes"), ("cookie", "c=1; d=2")]).await.unwrap();
        for (message, answers) in EVERYTHING {
            client.send(message).await;
            for answer in *answers {
                assert_eq!(client.text().await, *answer, "{language}");
            }
        }
        assert_eq!(gateway.metric("plugin_every_total", &format!("language=\"{language}\"")).await, 2.0);
    }
}

/// Interface and function → its core parameters and result: `i64 i32 i32 -> i32`.
type Signatures = BTreeMap<(String, String), String>;

fn of_the_interface() -> Signatures {
    use wit_parser::abi::{AbiVariant, WasmType};
    let mut resolve = wit_parser::Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/wit/tidegate.wit");
    let package = resolve.push_path(wit).unwrap().0;
    let world = resolve.select_world(&[package], Some("imports")).unwrap();
    let core = |types: &[WasmType]| {
        let name = |kind: &WasmType| match kind {
            WasmType::I64 => "i64",
            WasmType::F32 => "f32",
            WasmType::F64 => "f64",
            _ => "i32",
        };
        types.iter().map(name).collect::<Vec<_>>().join(" ")
    };
    let mut found = Signatures::new();
    for item in resolve.worlds[world].imports.values() {
        let wit_parser::WorldItem::Interface { id, .. } = item else { continue };
        let interface = resolve.interfaces[*id].name.clone().unwrap();
        for (name, function) in &resolve.interfaces[*id].functions {
            let core_type = resolve.wasm_signature(AbiVariant::GuestImport, function);
            let text = format!("{} -> {}", core(&core_type.params), core(&core_type.results));
            found.insert((interface.clone(), name.clone()), text);
        }
    }
    found
}

/// What stands between two texts, and the rest.
fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<(&'a str, &'a str)> {
    text.split_once(from)?.1.split_once(to)
}

/// The imports that a source declares: `marker` and the interface, the function after `second`, then a declaration up to
/// `;`, whose parameters and result `core` reads.
fn declared(text: &str, marker: &str, second: &str, core: impl Fn(&str) -> String) -> Signatures {
    let mut found = Signatures::new();
    let mut rest = text;
    while let Some((interface, after)) = between(rest, marker, "@0.1.0\"") {
        let (name, after) = between(after, second, "\"").unwrap();
        let (declaration, after) = after.split_once(";\n").unwrap();
        found.insert((interface.to_owned(), name.to_owned()), core(declaration));
        rest = after;
    }
    found
}

fn source(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_binding_for_c_is_that_of_the_interface() {
    let core = |kind: &str| match kind.trim() {
        "int64_t" => "i64",
        "double" => "f64",
        "void" | "" => "",
        _ => "i32",
    };
    let signature = |declaration: &str| {
        let (head, parameters) = between(declaration, "extern ", "(").unwrap();
        let parameters: Vec<_> = parameters.trim_end_matches(')').split(',').map(core).collect();
        format!("{} -> {}", parameters.join(" "), core(head.split_once(' ').unwrap().0))
    };
    let binding = source("sdk/c/bindings/tide.c");
    let found = declared(&binding, "__import_module__(\"tidegate:plugin/", "__import_name__(\"", signature);
    assert_eq!(found, of_the_interface(), "the interface has changed: run sdk/c/generate.sh");
}

#[test]
fn the_declarations_for_assemblyscript_are_those_of_the_interface() {
    let core = |kind: &str| match kind.trim() {
        "u64" | "i64" => "i64",
        "f64" => "f64",
        "void" | "" => "",
        _ => "i32",
    };
    let signature = |declaration: &str| {
        let (parameters, result) = between(declaration, "(", "):").unwrap();
        let kinds = parameters.split(',').filter_map(|parameter| parameter.split_once(':'));
        format!("{} -> {}", kinds.map(|(_, kind)| core(kind)).collect::<Vec<_>>().join(" "), core(result))
    };
    let mut found = Signatures::new();
    for interface in of_the_interface().keys().map(|(interface, _)| interface.as_str()) {
        let text = source(&format!("sdk/assemblyscript/assembly/raw/{interface}.ts"));
        found.extend(declared(&text, "@external(\"tidegate:plugin/", ", \"", signature));
    }
    assert_eq!(found, of_the_interface(), "the interface has changed: see sdk/assemblyscript/assembly/raw");
}

#[test]
fn the_types_for_javascript_name_all_of_the_interface() {
    let types = source("sdk/js/tidegate.d.ts");
    for (interface, function) in of_the_interface().keys() {
        let opening = format!("declare module \"tidegate:plugin/{interface}@0.1.0\" {{");
        let (module, _) = between(&types, &opening, "\n}\n").unwrap_or_else(|| panic!("no {opening}"));
        let mut words = function.split('-');
        let mut name = words.next().unwrap().to_owned();
        words.for_each(|word| name.extend([&word[..1].to_uppercase(), &word[1..]]));
        let named = [format!("export function {name}("), format!(" as {name} }}")];
        assert!(named.iter().any(|text| module.contains(text)), "{interface} has no {name}");
    }
}
