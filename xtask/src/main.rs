//! The project's own commands (`cargo xtask …`): this file reads the command line, the others do the work.

mod bench;
mod browser;
mod clang;
mod debian;
mod debian_rustc;
mod demo;
mod gateway;
mod languages;
mod npm;
mod plugins;
mod process;
mod redis;
mod tally;
mod test;
mod toolchain;
mod workspace;

use std::{ffi::OsStr, net::SocketAddr, process::ExitCode};

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

  test [--quick]
      Run everything: formatting, clippy, the plugins, all tests, licences and advisories.
      --quick        leave out clippy, the documentation tests and the licences

  bench [--rounds N] [--seconds N]
      Measure what a message costs the gateway, with a plugin and without: the server's CPU time. Takes a minute beside
      the optimised build.
      --rounds N     how often each row is measured   [default: 5]
      --seconds N    for how long each time           [default: 2]

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
    Bench(bench::Options),
    Demo(demo::Options),
    Test(test::Options),
    Plugins(plugins::Options),
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
        Command::Bench(options) => bench::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Plugins(options) => plugins::run(&options),
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
            "bench" => Command::Bench(bench::Options::default()),
            "demo" => Command::Demo(demo::Options::default()),
            "test" => Command::Test(test::Options::default()),
            "plugins" => Command::Plugins(plugins::Options::default()),
            other => return Err(format!("there is no command `{other}`").into()),
        },
        Some(other) => return Err(other.unexpected()),
    };
    while let Some(argument) = parser.next()? {
        match (&mut command, argument) {
            (_, Short('h') | Long("help")) => return Ok(Command::Help),
            (Command::Bench(options), Long("rounds")) => options.rounds = parser.value()?.parse()?,
            (Command::Bench(options), Long("seconds")) => options.seconds = parser.value()?.parse()?,
            (Command::Demo(options), Long("listen")) => options.listen = address(&parser.value()?)?,
            (Command::Demo(options), Long("admin")) => options.admin = address(&parser.value()?)?,
            (Command::Demo(options), Long("release")) => options.release = true,
            (Command::Test(options), Long("quick")) => options.quick = true,
            (Command::Plugins(options), Long("install")) => options.install = true,
            (Command::Plugins(options), Value(name)) => options.names.push(name.string()?),
            (_, other) => return Err(other.unexpected()),
        }
    }
    Ok(command)
}

fn address(value: &OsStr) -> Result<SocketAddr, lexopt::Error> {
    let address = value.to_string_lossy();
    address.parse().map_err(|_| format!("`{address}` is no address: write IP and port, `127.0.0.1:8080`").into())
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
    fn an_option_of_another_command_is_an_error() {
        assert!(parsed("plugins --quick").is_err());
        assert!(parsed("test echo").is_err());
        assert!(parsed("demo --listen nonsense").is_err());
        assert!(parsed("dance").is_err());
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
