//! `tidegate run`: serve.

use clap::Args;

use super::{Addresses, ConfigArgs, LogFormat, Unusable, runtime, start_log};
use crate::{Gateway, signals};

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    addresses: Addresses,
    /// How log lines look; RUST_LOG chooses which are written
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

impl Run {
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?.with_addresses(self.addresses.listen, self.addresses.admin);
        if config.routes.is_empty() && config.files.is_empty() {
            let file = self.config.config.display();
            return Err(Unusable(format!("{file}: there is no route: nothing would be served; add a [[route]]")).into());
        }
        start_log(self.log_format);
        raise_descriptor_limit(config.max_connections);
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            let signals = signals()?;
            let gateway = Gateway::build(config).await?;
            let (address, admin) = (gateway.address()?, gateway.admin_address()?);
            tracing::info!(%address, %admin, version = env!("CARGO_PKG_VERSION"), "listening");
            gateway.run(signals).await
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
