//! `cargo xtask autobahn`: the Autobahn test suite against `/echo` of examples/bench, which answers each message with itself
//! and compresses.

mod suite;
mod verdicts;

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
pub(crate) use suite::Suite;
use verdicts::Verdicts;

use crate::{
    demo,
    gateway::{Gateway, Start, free},
    plugins, process, workspace,
};

#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) full: bool,
    pub(crate) release: bool,
}

/// Which cases are asked for, how many these are in the version that `suite.rs` installs, and how long they may take.
struct Cases {
    wanted: &'static str,
    count: usize,
    within: Duration,
}

/// One case of each kind of compression; without group 9, which measures how fast large messages come back.
const QUICK: Cases = Cases {
    wanted: "1.* 2.* 3.* 4.* 5.* 6.* 7.* 10.* 12.1.1 12.1.10 12.2.1 12.3.1 13.1.1 13.3.1 13.4.1 13.7.1",
    count: 255,
    within: Duration::from_secs(5 * 60),
};

const FULL: Cases = Cases { wanted: "*", count: 517, within: Duration::from_secs(3 * 60 * 60) };

const POLL: Duration = Duration::from_millis(50);

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    println!("1/3  Looking for the suite …");
    let suite = Suite::ensure()?;
    println!("2/3  Building the gateway and the plugins …");
    let binary = demo::build_gateway(options.release)?;
    plugins::build(&["echo".to_owned(), "fanout".to_owned()])?;
    let cases = if options.full { FULL } else { QUICK };
    println!("3/3  Asking {} cases, for {} at most …", cases.count, process::spell(cases.within));
    cases.ask(&suite, &binary)?;
    Ok(ExitCode::SUCCESS)
}

/// The quick cases, on the gateway that the tests have built.
pub(crate) fn quick(suite: &Suite) -> Result<()> {
    // What the tests run is up to date after this; with other arguments cargo would build the gateway once more.
    process::run(&mut workspace::cargo(&["test", "--quiet", "--workspace", "--tests", "--no-run"]))?;
    QUICK.ask(suite, &workspace::target().join("debug/tidegate"))
}

impl Cases {
    /// Runs the suite against a gateway of its own, tells what came of it, and fails if a case has.
    fn ask(&self, suite: &Suite, binary: &Path) -> Result<()> {
        let folder = workspace::target().join("autobahn/report");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let (listen, admin) = (free()?, free()?);
        let mut command = Command::new(binary);
        command.current_dir(workspace::root()).env("RUST_LOG", "warn");
        command.args(["run", "--config", "examples/bench/tidegate.toml"]);
        command.args(["--listen", &listen.to_string(), "--admin", &admin.to_string()]);
        let mut gateway = Gateway::start(&mut command, admin)?;
        let asked = match gateway.wait_until_ready()? {
            Start::Ready => self.client(suite, listen, &folder, &mut gateway),
            _ => Err(anyhow::anyhow!("the gateway was not ready; what it said is above")),
        };
        gateway.kill()?;
        asked?;
        let verdicts = Verdicts::read(suite, &folder.join("index.json"))?;
        print!("{}", verdicts.table());
        println!("Each case: {}", folder.join("index.html").display());
        verdicts.judge(self.count)
    }

    /// The suite's client, which is ended when it takes too long or when we are told to stop.
    fn client(&self, suite: &Suite, listen: SocketAddr, folder: &Path, gateway: &mut Gateway) -> Result<()> {
        let specification = folder.join("specification.json");
        fs::write(&specification, self.specification(listen, folder))?;
        let log = folder.join("suite.log");
        let output = fs::File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut command = suite.client(&specification);
        command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        let mut client =
            command.spawn().with_context(|| format!("`{}` could not be started", process::told(&command)))?;
        let started = Instant::now();
        let ended = loop {
            if let Some(status) = client.try_wait()? {
                break if status.success() { Ok(()) } else { Err(format!("the suite ended with {status}")) };
            }
            if gateway.told_to_stop() {
                break Err("stopped".to_owned());
            }
            if started.elapsed() > self.within {
                break Err(format!("not all cases were over within {}", process::spell(self.within)));
            }
            thread::sleep(POLL);
        };
        if let Err(why) = ended {
            let _ = client.kill();
            client.wait()?;
            bail!("{why}; what it said is in {}", log.display());
        }
        println!("     took {}", process::spell(started.elapsed()));
        Ok(())
    }

    fn specification(&self, listen: SocketAddr, folder: &Path) -> String {
        let cases: Vec<_> = self.wanted.split(' ').map(|case| format!("{case:?}")).collect();
        // Debug's escapes are those of JSON, for what can stand in a path.
        format!(
            r#"{{"outdir": {:?}, "options": {{"failByDrop": false}},
                "servers": [{{"agent": "tidegate", "url": "ws://{listen}/echo"}}],
                "cases": [{}], "exclude-cases": [], "exclude-agent-cases": {{}}}}"#,
            folder.display().to_string(),
            cases.join(", ")
        )
    }
}
