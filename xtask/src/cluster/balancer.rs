//! The balancers of examples/cluster: their configurations with the addresses of the nodes that run.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::Node;
use crate::{apt, gateway::free, workspace};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Balancer {
    Haproxy,
    Nginx,
    /// Clients go to the nodes.
    None,
}

impl Balancer {
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Haproxy, Self::Nginx, Self::None].into_iter().find(|balancer| balancer.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::None => "none",
        }
    }

    /// The program; None: there is to be none.
    pub(crate) fn ensure(self) -> Result<Option<PathBuf>> {
        match self {
            Self::Haproxy => apt::HAPROXY.ensure().map(Some),
            Self::Nginx => apt::NGINX.ensure().map(Some),
            Self::None => Ok(None),
        }
    }

    /// Writes the example's configuration with the addresses that there are.
    pub(super) fn configure(self, folder: &Path, listen: SocketAddr, nodes: &[Node]) -> Result<PathBuf> {
        let file = format!("{}.{}", self.name(), if self == Self::Haproxy { "cfg" } else { "conf" });
        let example = workspace::root().join("examples/cluster").join(&file);
        let text = fs::read_to_string(&example).with_context(|| format!("{} cannot be read", example.display()))?;
        let mut places = vec![("127.0.0.1:8080".to_owned(), listen.to_string())];
        for node in nodes {
            let (here, admin) = (8090 + node.number, 8190 + node.number);
            places.push((format!("127.0.0.1:{here}"), node.listen.to_string()));
            if self == Self::Haproxy {
                places.push((format!("port {admin}"), format!("port {}", node.admin.port())));
            }
        }
        match self {
            Self::Haproxy => places.push(("127.0.0.1:8404".to_owned(), free()?.to_string())),
            // What it would write where only root may.
            _ => places.push(("http {\n".to_owned(), format!("http {{\n{}", temporary(folder)))),
        }
        let mut text = text;
        for (example, here) in places {
            ensure!(text.contains(&example), "{file} of examples/cluster has no {example:?}, which stands for {here}");
            text = text.replace(&example, &here);
        }
        let config = folder.join(file);
        fs::write(&config, text).with_context(|| format!("{} cannot be written", config.display()))?;
        Ok(config)
    }

    pub(super) fn command(self, program: &Path, config: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            Self::Haproxy => command.arg("-db").arg("-f").arg(config),
            _ => {
                let pid = config.with_extension("pid");
                let settings = format!("daemon off; pid {}; error_log stderr;", pid.display());
                command.args(["-e", "stderr", "-g", &settings, "-c"]).arg(config)
            }
        };
        command
    }

    /// Its own page, if it has one.
    pub(super) fn page(self, folder: &Path) -> Option<String> {
        let config = fs::read_to_string(folder.join("haproxy.cfg")).ok().filter(|_| self == Self::Haproxy)?;
        let (_, status) = config.split_once("frontend status")?;
        let address = status.lines().find_map(|line| line.trim().strip_prefix("bind "))?;
        Some(format!("http://{address}"))
    }
}

fn temporary(folder: &Path) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    kinds.map(|kind| format!("    {kind}_temp_path {};\n", folder.join(format!("nginx-{kind}")).display())).concat()
}
