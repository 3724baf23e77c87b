//! `tidegate check`: would it run?

use clap::Args;

use super::{ConfigArgs, runtime, start_log};
use crate::tls::Ready;

#[derive(Args)]
pub struct Check {
    #[command(flatten)]
    config: ConfigArgs,
}

impl Check {
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?;
        start_log(super::LogFormat::Text);
        let tls = Ready::new(&config, None)?;
        let (config, plugins) = runtime()?.block_on(crate::load(config))?;
        say!("{}: fine", self.config.config.display());
        for shown in tls.iter().flat_map(Ready::shown) {
            say!("  certificate {} for {}", shown.file, shown.names);
            match shown.warning() {
                Some(warning) => say!("    WARNING: it {warning}"),
                None => say!("    expires in {} days", shown.expires_in / 86_400),
            }
        }
        for route in &config.routes {
            let chain: Vec<_> = route.plugins.iter().map(|plugin| plugin.get_ref().as_str()).collect();
            say!("  route {} {} -> {}", route.name.get_ref(), route.path.get_ref(), chain.join(", "));
            if route.record.on {
                say!("    recorded to {}", config.recording(route).display());
            }
        }
        for plugin in plugins {
            say!("  plugin {} ({}, {} bytes)", plugin.name, plugin.form, plugin.bytes);
            say!("    hooks    {}", plugin.hooks.join(", "));
            say!("    imports  {}", short(&plugin.imports));
            let grants = config.plugins.get(&plugin.name).map(|plugin| plugin.grants.clone()).unwrap_or_default();
            say!("    granted  {}", granted(&grants));
        }
        Ok(())
    }
}

fn short(imports: &[String]) -> String {
    let names = imports.iter().map(|import| import.trim_start_matches("tidegate:plugin/").trim_end_matches("@0.1.0"));
    let names: Vec<_> = names.filter(|name| *name != "types").collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn granted(grants: &crate::config::Grants) -> String {
    let mut all = Vec::new();
    let lists = [
        ("publish", &grants.publish),
        ("subscribe", &grants.subscribe),
        ("kv", &grants.kv),
        ("headers", &grants.headers),
        ("upstreams", &grants.upstreams),
    ];
    for (what, list) in lists {
        if !list.is_empty() {
            all.push(format!("{what} {}", list.join(" ")));
        }
    }
    if !grants.http.is_empty() {
        all.push(format!("http {}", grants.http.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")));
    }
    for (what, granted) in [("users", grants.users), ("sessions", grants.sessions)] {
        if granted {
            all.push(what.to_owned());
        }
    }
    if all.is_empty() { "nothing".to_owned() } else { all.join("; ") }
}
