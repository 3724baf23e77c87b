//! The project's own commands (`cargo xtask …`): this file reads the command line, the others do the work.

mod apt;
mod autobahn;
mod bench;
mod browser;
mod clang;
mod cluster;
mod debian;
mod debian_rustc;
mod demo;
mod gateway;
mod languages;
mod npm;
mod pieces;
mod plugins;
mod process;
mod scale;
mod tally;
mod test;
mod toolchain;
mod workspace;

use std::{ffi::OsStr, net::SocketAddr, process::ExitCode, time::Duration};

use lexopt::prelude::*;

const USAGE: &str = "\
Tidegate's own commands.

Usage: cargo xtask <COMMAND>

Commands:
  demo [--listen ADDR] [--admin ADDR] [--release]
      Build the gateway and the plugins, run the chat example and print links that open it as two users.
      --listen ADDR  where clients connect   [default: 127.0.0.1:8080]
      --admin ADDR   health and metrics      [default: 127.0.0.1:8081]
      --release      build the gateway with optimisations (slower to build)
      Port 0 means any free port.

  cluster [--listen ADDR] [--redis URL] [--balancer haproxy|nginx|none] [--once] [--built] [--release]
      Run the chat example on three nodes with one Redis, behind a load balancer, and say how to kill a node.
      --listen ADDR    where the balancer listens   [default: 127.0.0.1:8080]
      --redis URL      a Redis that runs already    [default: one is started, and ends with the command]
      --balancer NAME  which one; with none clients go to the nodes   [default: haproxy]
      --once           only see that it works: a node is killed, and its client loses nothing. Exit code 0, or 1
      --built          build nothing: take the gateway and the plugins as they are
      --release        the gateway with optimisations

  test [--quick] [--soak[=TIME]]
      Run everything: formatting, clippy, the plugins, all tests, licences and advisories.
      --quick        leave out clippy, the documentation tests and the licences
      --soak[=TIME]  only the tests that take minutes, which are left out otherwise. TIME (90s, 10m, 2h) is for the
                     chaos: nodes whose Redis fails in random ways   [default: 5m]

  autobahn [--full] [--release]
      Ask the gateway what the Autobahn test suite asks of WebSocket servers. The suite is installed under target/autobahn
      the first time, for which there must be a Python 2.7.
      --full         all 517 cases; some send thousands of large messages   [default: 255 in less than a minute]
      --release      build the gateway with optimisations (slower to build)

  bench [--quick] [--rows NAME,...] [--rounds N] [--seconds N] [--peer NAME=URL,PID] [--gateway PATH]
      Measure the gateway beside baselines that are measured in the same rounds: a minimal server on epoll (the floor), bare
      tokio-tungstenite, and the gateway without a plugin. Tables, plots and JSON in target/bench.
      --quick            two short rounds, fewer idle connections
      --rows NAME,...    only these; a name that there is not lists them all
      --rounds N         how often each is measured, in turn       [default: 5]
      --seconds N        for how long each time                    [default: 2]
      --peer NAME=URL,PID    another server that runs already, in the same rounds: /echo, /sub and /pub behind its
                         URL, and the process whose CPU time counts. May be given several times
      --gateway PATH     build no gateway: take this one, and the plugins as they are
      --pieces           instead: the codec, the hub and a plugin's call by themselves, in time, with Criterion
      --instructions     instead: the same in instructions, counted by callgrind; --against FILE compares with an earlier
                         target/bench/instructions.json

  scale [--sessions N] [--nodes N] [--publications N] [--churn PERCENT] [--size BYTES] [--limit TIME] [--gateway PATH]
        [--yes]
      Hold many sessions on a cluster of gateways on this machine, publish to all of them, and tell what both take.
      --sessions N       how many, over all gateways             [default: 20000]
      --nodes N          gateways    [default: as few as the limit of open files allows, but 2]
      --publications N   each reaches everybody before the next  [default: 5]
      --churn PERCENT    sessions that leave and come back       [default: 5]
      --size BYTES       of a publication                        [default: 128]
      --limit TIME       all of it has ended by then             [default: 15m]
      --gateway PATH     build nothing: take this gateway, and the plugins as they are
      --yes              also above 200,000 sessions, which take most of a machine

  plugins [--install] [NAME...]
      Build the plugins under plugins/ and the tour of examples/languages, or only those named, and put them into
      target/plugins. A running gateway that watches this folder replaces them at once. A language whose tools are not
      here is skipped.
      --install      download those tools into target/guest-tools

  help
      Print this.

Environment:
  TIDEGATE_GUEST_TOOLCHAIN=installed|rustup|debian
      Compile plugins in this way only. Without it each is tried in turn: the wasm32-unknown-unknown target that is
      installed; `rustup target add`; Debian's compiler, unpacked under target/guest-toolchain.
";

/// What sysexits.h calls EX_USAGE, as for the gateway itself.
const BAD_USAGE: u8 = 64;

enum Command {
    Help,
    Autobahn(autobahn::Options),
    Bench(bench::Options),
    Cluster(cluster::Options),
    Demo(demo::Options),
    Test(test::Options),
    Plugins(plugins::Options),
    Scale(scale::Options),
    /// What `scale` starts, to hold its clients.
    ScaleHolder(scale::HolderOptions),
}

fn main() -> ExitCode {
    let command = match parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("error: {error}\n\n`cargo xtask help` lists the commands.");
            return ExitCode::from(BAD_USAGE);
        }
    };
    let result = match command {
        Command::Help => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        Command::Autobahn(options) => autobahn::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Cluster(options) => cluster::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Plugins(options) => plugins::run(&options),
        Command::Scale(options) => scale::run(&options),
        Command::ScaleHolder(options) => scale::hold(&options).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("\nerror: {error:#}");
        ExitCode::FAILURE
    })
}

fn parse(mut parser: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut command = match parser.next()? {
        None | Some(Short('h') | Long("help")) => return Ok(Command::Help),
        Some(Value(name)) => match name.string()?.as_str() {
            "help" => return Ok(Command::Help),
            "autobahn" => Command::Autobahn(autobahn::Options::default()),
            "bench" => Command::Bench(bench::Options::default()),
            "cluster" => Command::Cluster(cluster::Options::default()),
            "demo" => Command::Demo(demo::Options::default()),
            "test" => Command::Test(test::Options::default()),
            "plugins" => Command::Plugins(plugins::Options::default()),
            "scale" => Command::Scale(scale::Options::default()),
            "scale-holder" => Command::ScaleHolder(scale::HolderOptions::default()),
            other => return Err(format!("there is no command `{other}`").into()),
        },
        Some(other) => return Err(other.unexpected()),
    };
    while let Some(argument) = parser.next()? {
        match (&mut command, argument) {
            (_, Short('h') | Long("help")) => return Ok(Command::Help),
            (Command::Autobahn(options), Long("full")) => options.full = true,
            (Command::Autobahn(options), Long("release")) => options.release = true,
            (Command::Bench(options), Long("gateway")) => options.gateway = Some(parser.value()?.into()),
            (Command::Bench(options), Long("pieces")) => options.pieces = Some(bench::Pieces::Time),
            (Command::Bench(options), Long("instructions")) => options.pieces = Some(bench::Pieces::Instructions),
            (Command::Bench(options), Long("against")) => options.against = Some(parser.value()?.into()),
            (Command::Bench(options), Long("quick")) => options.passed.push("--quick".into()),
            (Command::Bench(options), Long(name @ ("rows" | "rounds" | "seconds" | "peer"))) => {
                let name = format!("--{name}");
                options.passed.extend([name.into(), parser.value()?]);
            }
            (Command::Cluster(options), Long("listen")) => options.listen = address(&parser.value()?)?,
            (Command::Cluster(options), Long("redis")) => options.redis = Some(parser.value()?.string()?),
            (Command::Cluster(options), Long("balancer")) => options.balancer = balancer(&parser.value()?)?,
            (Command::Cluster(options), Long("once")) => options.once = true,
            (Command::Cluster(options), Long("built")) => options.built = true,
            (Command::Cluster(options), Long("release")) => options.release = true,
            (Command::Demo(options), Long("listen")) => options.listen = address(&parser.value()?)?,
            (Command::Demo(options), Long("admin")) => options.admin = address(&parser.value()?)?,
            (Command::Demo(options), Long("release")) => options.release = true,
            (Command::Test(options), Long("quick")) => options.quick = true,
            (Command::Test(options), Long("soak")) => {
                let time = parser.optional_value().map(|time| duration(&time)).transpose()?;
                options.soak = Some(time.unwrap_or(test::SOAK));
            }
            (Command::Plugins(options), Long("install")) => options.install = true,
            (Command::Plugins(options), Value(name)) => options.names.push(name.string()?),
            (Command::Scale(options), Long("sessions")) => options.sessions = parser.value()?.parse()?,
            (Command::Scale(options), Long("nodes")) => options.nodes = Some(parser.value()?.parse()?),
            (Command::Scale(options), Long("publications")) => options.publications = parser.value()?.parse()?,
            (Command::Scale(options), Long("churn")) => options.churn = parser.value()?.parse()?,
            (Command::Scale(options), Long("size")) => options.size = parser.value()?.parse()?,
            (Command::Scale(options), Long("limit")) => options.limit = duration(&parser.value()?)?,
            (Command::Scale(options), Long("gateway")) => options.gateway = Some(parser.value()?.into()),
            (Command::Scale(options), Long("yes")) => options.yes = true,
            (Command::ScaleHolder(options), Long("to")) => options.to = parser.value()?.parse()?,
            (Command::ScaleHolder(options), Long("path")) => options.path = parser.value()?.string()?,
            (Command::ScaleHolder(options), Long("source")) => options.source = parser.value()?.parse()?,
            (_, other) => return Err(other.unexpected()),
        }
    }
    Ok(command)
}

fn address(value: &OsStr) -> Result<SocketAddr, lexopt::Error> {
    let address = value.to_string_lossy();
    address.parse().map_err(|_| format!("`{address}` is no address: write IP and port, `127.0.0.1:8080`").into())
}

fn duration(value: &OsStr) -> Result<Duration, lexopt::Error> {
    let text = value.to_string_lossy();
    let seconds = [('s', 1), ('m', 60), ('h', 3600)].into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(seconds).filter(|seconds| *seconds > 0)
    });
    seconds.map(Duration::from_secs).ok_or_else(|| format!("`{text}` is no duration: write 90s, 10m or 2h").into())
}

fn balancer(value: &OsStr) -> Result<cluster::Balancer, lexopt::Error> {
    let name = value.to_string_lossy();
    cluster::Balancer::named(&name).ok_or_else(|| format!("`{name}` is no balancer: haproxy, nginx or none").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, lexopt::Error> {
        parse(lexopt::Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn demo_takes_two_addresses() {
        let Ok(Command::Demo(options)) = parsed("demo --listen 127.0.0.1:9000 --admin=127.0.0.1:0 --release") else {
            panic!("not a demo")
        };
        assert_eq!(options.listen.port(), 9000);
        assert_eq!(options.admin.port(), 0);
        assert!(options.release);
    }

    #[test]
    fn a_soak_takes_its_time() {
        for (line, time) in [("test --soak", 300), ("test --soak=90s", 90), ("test --soak=2h", 7200)] {
            let Ok(Command::Test(options)) = parsed(line) else { panic!("{line}: not a test") };
            assert_eq!(options.soak, Some(Duration::from_secs(time)), "{line}");
        }
        assert!(parsed("test --soak=soon").is_err() && parsed("test --soak=0m").is_err());
    }

    #[test]
    fn a_cluster_takes_a_balancer() {
        let Ok(Command::Cluster(options)) = parsed("cluster --balancer nginx --once --redis redis://h") else {
            panic!("not a cluster")
        };
        assert_eq!((options.balancer, options.redis.as_deref()), (cluster::Balancer::Nginx, Some("redis://h")));
        assert!(options.once && !options.built);
        assert!(parsed("cluster --balancer pound").is_err());
    }

    #[test]
    fn an_option_of_another_command_is_an_error() {
        assert!(parsed("plugins --quick").is_err());
        assert!(parsed("test echo").is_err());
        assert!(parsed("demo --listen nonsense").is_err());
        assert!(parsed("autobahn --quick").is_err());
        assert!(parsed("dance").is_err());
    }

    #[test]
    fn a_bench_passes_on_what_is_for_the_program_that_measures() {
        let Ok(Command::Bench(options)) = parsed("bench --rows echo-1 --gateway g --quick --peer=a=ws://h,1") else {
            panic!("not a bench")
        };
        assert_eq!(options.passed, ["--rows", "echo-1", "--quick", "--peer", "a=ws://h,1"]);
        assert_eq!(options.gateway.as_deref(), Some("g".as_ref()));
        assert!(parsed("bench --sessions 5").is_err());
        let Ok(Command::Bench(options)) = parsed("bench --instructions --against old.json") else {
            panic!("not a bench")
        };
        assert_eq!(options.pieces, Some(bench::Pieces::Instructions));
        assert_eq!(options.against.as_deref(), Some("old.json".as_ref()));
    }

    #[test]
    fn a_scale_test_takes_its_size_and_its_time() {
        let Ok(Command::Scale(options)) = parsed("scale --sessions 1000000 --nodes 60 --limit 20m --yes") else {
            panic!("not a scale test")
        };
        assert_eq!((options.sessions, options.nodes), (1_000_000, Some(60)));
        assert_eq!(options.limit, Duration::from_secs(1200));
        assert!(options.yes && options.gateway.is_none());
        assert!(parsed("scale --sessions many").is_err());
    }

    #[test]
    fn plugins_are_named_and_their_tools_installed() {
        let Ok(Command::Plugins(options)) = parsed("plugins echo --install tour-c") else { panic!("not plugins") };
        assert_eq!(options.names, ["echo", "tour-c"]);
        assert!(options.install);
    }

    #[test]
    fn every_command_can_be_asked_for_help() {
        assert!(matches!(parsed("demo --help"), Ok(Command::Help)));
        assert!(matches!(parsed(""), Ok(Command::Help)));
    }
}
