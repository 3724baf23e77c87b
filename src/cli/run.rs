//! `tidegate run`: serve.

use std::net::SocketAddr;

use clap::Args;

use super::{ConfigArgs, LogFormat, Unusable, runtime, start_log};
use crate::config::{Config, Overrides, Urls};
use crate::{Gateway, Inherited, Program, signals};

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    given: Given,
    /// How log lines look; RUST_LOG chooses which are written
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// What one node has for itself, where several share a file.
#[derive(Args)]
struct Given {
    /// Where clients connect, instead of the configuration's `listen`
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where the admin pages are, instead of the configuration's `admin`
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// The Redis that this node shares with others, redis://HOST:PORT, instead of the configuration's `redis.url`.
    /// Other users of the machine can see it: passwords belong into the file
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Where clients reach this node and no other, wss://HOST, instead of the configuration's `redis.advertise`
    #[arg(long, value_name = "URL")]
    advertise: Option<String>,
}

impl Run {
    pub fn run(self) -> anyhow::Result<()> {
        // Before this process opens a descriptor of its own.
        let inherited = Inherited::take()?;
        let program = Program::this();
        let predecessor = inherited.predecessor.clone();
        let result = self.serve(inherited, &program);
        if let (Err(error), Some(predecessor)) = (&result, predecessor) {
            predecessor.failed(&format!("{error:#}"));
        }
        result
    }

    fn serve(self, inherited: Inherited, program: &Program) -> anyhow::Result<()> {
        let Given { listen, admin, redis, advertise } = self.given;
        let overrides = Overrides { listen, admin, redis: redis.map(|url| Urls(vec![url])), advertise };
        let config = Config::load_with(&self.config.config, &overrides)?;
        if config.routes.is_empty() && config.files.is_empty() {
            let file = self.config.config.display();
            return Err(Unusable(format!("{file}: there is no route: nothing would be served; add a [[route]]")).into());
        }
        start_log(self.log_format);
        raise_descriptor_limit(config.max_connections);
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            let signals = signals()?;
            let gateway = Gateway::build(config, inherited).await?;
            let (address, admin) = (gateway.address()?, gateway.admin_address()?);
            let tls = gateway.tls_address()?.map(tracing::field::display);
            let process = std::process::id();
            tracing::info!(%address, %admin, tls, version = env!("CARGO_PKG_VERSION"), process, "listening");
            gateway.run(signals, program).await
        });
        // Sessions that outlived the drain are broken off.
        runtime.shutdown_background();
        result
    }
}

/// Each connection takes a descriptor; the soft limit is often 1,024.
fn raise_descriptor_limit(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = connections as u64 + 256;
    if limit.current.is_some_and(|current| current < wanted) {
        let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum });
        if raised.is_err() || current < wanted {
            tracing::warn!(
                files = current,
                connections,
                "the limit of open files is too low for `max_connections`: accepting will pause when they are used up"
            );
        }
    }
}
