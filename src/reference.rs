//! Writes docs/reference from the sources, and fails where it is not what the sources say: `TIDEGATE_BLESS=1 cargo test
//! -p tidegate reference` writes it anew.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value};

use crate::config::Config;
use crate::metrics::Metrics;

const HEAD: &str = "<!-- Written from the sources by the tests in src/reference.rs; do not edit. -->\n\n";

fn agrees(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference").join(name);
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(there == text, "{name} is not what the sources say: TIDEGATE_BLESS=1 cargo test -p tidegate reference");
}

#[test]
fn the_metrics_reference_is_what_the_sources_say() {
    let mut text =
        format!("# Metrics\n\n{HEAD}Served at `/metrics` on the admin address, in the Prometheus text format.\n\n");
    text.push_str("| name | kind | labels | what it counts |\n|---|---|---|---|\n");
    for (name, kind, labels, help) in Metrics::new().described() {
        let labels = if labels.is_empty() { "–".to_owned() } else { format!("`{}`", labels.replace(", ", "`, `")) };
        writeln!(text, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    agrees("metrics.md", &text);
}

#[test]
fn the_configuration_reference_is_what_the_sources_say() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    let definitions = schema["$defs"].as_object().unwrap();
    let mut text = format!("# Configuration\n\n{HEAD}");
    text.push_str(
        "`tidegate.toml`. Unknown keys are errors. Sizes are numbers of bytes or texts such as `\"64KiB\"`, durations are \
         texts such as `\"25s\"`. `tidegate check` says whether a file is fine.\n",
    );
    section(&mut text, "The file", &schema, definitions);
    let parts = [
        ("`[connections]`", "ConnectionsConfig"),
        ("`[[route]]`", "RouteConfig"),
        ("`limits` of a route", "RouteLimits"),
        ("`heartbeat` of a route", "HeartbeatConfig"),
        ("`text` of a heartbeat", "HeartbeatText"),
        ("`http` of a route", "HttpConfig"),
        ("`compression` of a route", "CompressionConfig"),
        ("`batch` of a route", "BatchConfig"),
        ("`record` of a route", "RecordConfig"),
        ("`redact` of a recording", "RedactConfig"),
        ("`[[topic]]`", "TopicConfig"),
        ("`history` of a topic", "HistoryConfig"),
        ("`[[files]]`", "FilesConfig"),
        ("`[drain]`", "DrainConfig"),
        ("`[redis]`", "RedisConfig"),
        ("`[tls]`", "TlsConfig"),
        ("`certificates` of TLS", "CertificateConfig"),
        ("`[http2]`", "Http2Config"),
        ("`[proxy]`", "ProxyConfig"),
        ("`[plugin.NAME]`", "PluginConfig"),
        ("`[plugin.NAME.limits]`", "PluginLimits"),
        ("`[plugin.NAME.grants]`", "Grants"),
        ("`[plugin.NAME.rollback]`", "RollbackConfig"),
        ("`[plugin.NAME.breaker]`", "BreakerConfig"),
        ("`[plugin.NAME.canary]`", "CanaryConfig"),
        ("`schedule` of a canary", "CanaryStep"),
        ("`[plugin.NAME.shadow]`", "ShadowConfig"),
    ];
    for (title, name) in parts {
        section(&mut text, title, &definitions[name], definitions);
    }
    agrees("configuration.md", &text);
}

fn section(text: &mut String, title: &str, schema: &Value, definitions: &Map<String, Value>) {
    writeln!(text, "\n## {title}\n\n{}\n", line(&schema["description"])).unwrap();
    text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (key, property) in schema["properties"].as_object().unwrap() {
        let default = match &property["default"] {
            Value::Null if required.contains(&Value::String(key.clone())) => "needed".to_owned(),
            Value::Null => "–".to_owned(),
            Value::Object(_) => "see below".to_owned(),
            value => format!("`{value}`"),
        };
        let kind = kind(property, definitions);
        let meaning = line(&property["description"]);
        let cases = cases(property, definitions);
        writeln!(text, "| `{key}` | {kind} | {default} | {meaning}{cases} |").unwrap();
    }
}

fn line(text: &Value) -> String {
    text.as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

/// The definition that a property refers to, if it does.
fn referred<'a>(property: &'a Value, definitions: &'a Map<String, Value>) -> Option<(&'a str, &'a Value)> {
    let direct = property["$ref"].as_str();
    let inner = ["allOf", "anyOf"].iter().find_map(|key| property[*key][0]["$ref"].as_str());
    let name = direct.or(inner)?.rsplit('/').next()?;
    Some((name, &definitions[name]))
}

fn kind(property: &Value, definitions: &Map<String, Value>) -> String {
    if let Some((name, definition)) = referred(property, definitions) {
        return match name {
            "Size" => "size".to_owned(),
            "Span" => "duration".to_owned(),
            _ if definition["oneOf"].is_array() || definition["enum"].is_array() => "one of".to_owned(),
            _ => "table".to_owned(),
        };
    }
    let name = match &property["type"] {
        Value::Array(kinds) => kinds[0].as_str().unwrap_or_default(),
        kind => kind.as_str().unwrap_or_default(),
    };
    match name {
        "array" => format!("list of {}s", kind(&property["items"], definitions).replace("one of", "name")),
        "object" => "tables".to_owned(),
        "integer" => "number".to_owned(),
        "" => "table".to_owned(),
        other => other.to_owned(),
    }
}

/// The cases of an enumeration, with what they mean.
fn cases(property: &Value, definitions: &Map<String, Value>) -> String {
    let Some((_, definition)) = referred(property, definitions) else {
        return String::new();
    };
    let cases = definition["oneOf"].as_array().cloned().unwrap_or_default();
    let case = |case: &Value| format!("<br>`{}`: {}", case["const"], line(&case["description"]));
    cases.iter().map(case).collect()
}
