//! The command line: what is printed where, and which exit code says what.

use std::path::Path;
use std::process::Stdio;

use crate::support::{Gateway, tidegate};

const CONFIG: &str = r#"
[[route]]
name = "echo"
path = "/echo/{room}"
plugins = ["jwt-auth", "echo"]

[plugin.jwt-auth.grants]
headers = ["authorization", "cookie"]

[plugin.jwt-auth.config]
secret = "0123456789abcdef0123456789abcdef"
audience = "chat"
"#;

/// Exit code, standard output, standard error.
async fn run(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = tidegate(directory);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(crate::support::PATIENCE, command.output()).await.expect("it goes on").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// What `check` says of a configuration that is CONFIG with a change.
async fn refused(from: &str, to: &str) -> String {
    assert!(CONFIG.contains(from), "the configuration has no {from:?}");
    let directory = Gateway::prepare(&CONFIG.replace(from, to), &[]);
    for command in ["check", "run"] {
        let (code, out, error) = run(directory.path(), &[command]).await;
        assert_eq!((code, &*out), (64, ""), "{command}: {error}");
        assert!(error.starts_with("tidegate: "), "{error}");
    }
    run(directory.path(), &["check"]).await.2
}

/// The line of the configuration file that has this text.
fn line_of(config: &str, text: &str) -> usize {
    // `prepare` puts two lines before it.
    config.lines().position(|line| line.contains(text)).unwrap() + 3
}

#[tokio::test]
async fn check_prints_what_would_be_served() {
    let directory = Gateway::prepare(CONFIG, &[]);
    let (code, out, error) = run(directory.path(), &["check", "--config", "tidegate.toml"]).await;
    assert_eq!(code, 0, "{error}");
    for expected in
        ["tidegate.toml: fine", "route echo /echo/{room} -> jwt-auth, echo", "plugin echo (", "plugin jwt-auth ("]
    {
        assert!(out.contains(expected), "{expected:?} is missing in:\n{out}");
    }
    assert!(out.lines().any(|line| line.contains("hooks") && line.contains("authenticate")), "{out}");
    assert!(!out.contains("0123456789abcdef"), "a secret is printed");
}

#[tokio::test]
async fn check_loads_every_plugin() {
    let directory = Gateway::prepare(CONFIG, &[("echo", b"\0asm no module".to_vec())]);
    for command in ["check", "run"] {
        let (code, out, error) = run(directory.path(), &[command]).await;
        assert!(code != 0 && !out.contains("fine"), "{out}");
        assert!(
            error.contains("plugin echo") && error.contains("echo.wasm") && error.contains("not a valid"),
            "{error}"
        );
    }
    let short = CONFIG.replace("0123456789abcdef0123456789abcdef", "short");
    let directory = Gateway::prepare(&short, &[]);
    let (code, _, error) = run(directory.path(), &["check"]).await;
    assert!(code != 0 && error.contains("plugin jwt-auth") && error.contains("32"), "{error}");
}

#[tokio::test]
async fn mistakes_in_the_configuration_have_a_place_and_a_cure() {
    let unknown = refused("name = \"echo\"", "nmae = \"echo\"").await;
    let line = line_of(CONFIG, "name = \"echo\"");
    assert!(unknown.contains(&format!("tidegate.toml:{line}:")) && unknown.contains("`nmae`"), "{unknown}");
    assert!(unknown.contains("`name`"), "the cure is among what is expected: {unknown}");

    let plugin = refused("\"echo\"]", "\"ehco\"]").await;
    let line = line_of(CONFIG, "plugins = ");
    assert!(plugin.contains(&format!("tidegate.toml:{line}:")) && plugin.contains("`ehco`"), "{plugin}");
    assert!(plugin.contains("ehco.wasm") && plugin.contains("put it there, or correct the name"), "{plugin}");

    let twice = "[[route]]\nname = \"other\"\npath = \"/echo/{any}\"\nplugins = [\"echo\"]\n\n[plugin.jwt-auth.config]";
    let unreachable = refused("[plugin.jwt-auth.config]", twice).await;
    let line = line_of(CONFIG, "[plugin.jwt-auth.config]") + 2;
    assert!(unreachable.contains(&format!("tidegate.toml:{line}:")), "{unreachable}");
    assert!(unreachable.contains("can never be reached") && unreachable.contains("change its path"), "{unreachable}");

    let unused = refused("\"jwt-auth\", ", "").await;
    assert!(unused.contains("`jwt-auth` has settings, but no route names it"), "{unused}");

    let unset = refused("\"0123456789abcdef0123456789abcdef\"", "{ env = \"TIDEGATE_TEST_UNSET\" }").await;
    assert!(unset.contains("TIDEGATE_TEST_UNSET is not set: set it"), "{unset}");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for command in [&["check"][..], &["run"], &["token", "--user", "alice"]] {
        let arguments = [command, &["--config", "nowhere.toml"]].concat();
        let (code, out, error) = run(directory.path(), &arguments).await;
        assert_eq!((code, &*out), (64, ""), "{error}");
        assert!(error.contains("nowhere.toml") && error.contains("cannot be read"), "{error}");
    }
}

#[tokio::test]
async fn help_and_misuse() {
    let directory = tempfile::tempdir().unwrap();
    let (code, out, _) = run(directory.path(), &["--help"]).await;
    assert_eq!(code, 0);
    for command in ["run", "check", "token"] {
        assert!(out.lines().any(|line| line.trim_start().starts_with(command)), "{command} is missing in:\n{out}");
        let (code, help, _) = run(directory.path(), &[command, "--help"]).await;
        assert!(code == 0 && help.contains("--config"), "{help}");
    }
    assert!(run(directory.path(), &["--version"]).await.1.contains(env!("CARGO_PKG_VERSION")));
    for bad in [&["run", "--lissen", "x"][..], &["rnu"], &[], &["run", "--listen", "not-an-address"], &["token"]] {
        let (code, out, error) = run(directory.path(), bad).await;
        assert_eq!((code, &*out), (64, ""), "{bad:?}: {error}");
        assert!(!error.is_empty(), "{bad:?}");
    }
}

#[tokio::test]
async fn token_prints_a_token_and_nothing_else() {
    let directory = Gateway::prepare(CONFIG, &[]);
    let (code, out, error) = run(directory.path(), &["token", "--user", "alice", "--ttl", "5m"]).await;
    assert_eq!((code, &*error), (0, ""));
    assert_eq!(out.lines().count(), 1);
    assert_eq!(out.trim_end().split('.').filter(|part| !part.is_empty()).count(), 3, "{out}");
    let without = CONFIG.replace("secret = \"0123456789abcdef0123456789abcdef\"", "");
    let directory = Gateway::prepare(&without, &[]);
    let (code, out, error) = run(directory.path(), &["token", "--user", "alice"]).await;
    assert_eq!((code, &*out), (64, ""));
    assert!(error.contains("`secret`"), "{error}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = Gateway::prepare(CONFIG, &[]);
    for (flag, other) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let (code, out, error) = run(directory.path(), &["run", flag, &address, other, "127.0.0.1:0"]).await;
        assert_eq!((code, &*out), (1, ""), "{error}");
        assert!(error.contains(&address) && error.contains(flag), "{error}");
    }
}
