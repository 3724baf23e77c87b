//! The cluster example works: with each balancer it has a configuration for, a client survives the end of its node.
//!
//! Where a program is not installed, the test says so loudly and counts as skipped; in CI it fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{env, io::Write, path::Path, process::Command};

fn survives_the_end_of_a_node(balancer: &str) {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = xtask.parent().and_then(Path::parent).unwrap();
    let installed = |name: &str| {
        let path = env::var_os("PATH").unwrap_or_default();
        // `cargo xtask test` unpacks under the target folder what does more than is wanted when it is installed.
        let others = ["/usr/sbin".into(), target.join(name)];
        env::split_paths(&path).chain(others).any(|folder| folder.join(name).is_file())
    };
    // Built by the tests of the gateway, and not by this one: a cargo inside of a cargo would compile half of it anew.
    let gateway = xtask.with_file_name("tidegate").is_file() && root.join("target/plugins/chat.wasm").is_file();
    let missing = match () {
        () if !installed("redis-server") => "redis-server not found: apt-get install redis-server".to_owned(),
        () if !installed(balancer) => format!("{balancer} not found: apt-get install {balancer}"),
        () if !gateway => "the gateway or its plugins are not built: cargo xtask test builds both".to_owned(),
        () => String::new(),
    };
    if !missing.is_empty() {
        assert!(env::var_os("CI").is_none(), "the cluster with {balancer}: {missing}");
        // Straight to the terminal: the test runner would keep what a passing test prints.
        let _ = writeln!(std::io::stderr(), "SKIPPED the cluster with {balancer}: {missing}");
        return;
    }
    let mut command = Command::new(xtask);
    command.args(["cluster", "--once", "--built", "--balancer", balancer, "--listen", "127.0.0.1:0"]);
    if xtask.parent().unwrap().ends_with("release") {
        command.arg("--release");
    }
    // Ports are looked for and then taken: somebody else may come between, which one more attempt shows.
    let mut outputs = (0..2).map(|_| command.output().unwrap());
    let output = outputs.find(|output| output.status.success() || !told(output).contains("in use"));
    let output = output.expect("the ports are taken, twice");
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("ok  and they talk on"), "{}", told(&output));
}

fn told(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn behind_haproxy_a_client_survives_the_end_of_its_node() {
    survives_the_end_of_a_node("haproxy");
}

#[test]
fn behind_nginx_a_client_survives_the_end_of_its_node() {
    survives_the_end_of_a_node("nginx");
}

#[test]
fn a_balancer_that_is_missing_fails_the_check_and_says_what_to_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(["cluster", "--balancer", "pound"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(told(&output).contains("`pound` is no balancer: haproxy, nginx or none"), "{}", told(&output));
}
