//! The gateway's own copy of the plugin interface: its text, its version, and what can be looked up in it.
//!
//! A plugin may have been built against any 0.1.x: what it names is found by interface and function, and only those that
//! it uses must be there.

use anyhow::{Context as _, bail};
use wit_parser::{PackageId, PackageName, Resolve, WorldId};

/// The interface that this gateway speaks.
pub const WIT: &str = include_str!("../../sdk/wit/tidegate.wit");

const PACKAGE: &str = "tidegate:plugin/";

/// The interface, read.
pub struct Interface {
    pub resolve: Resolve,
    package: PackageId,
}

/// An interface's name with its version, such as `tidegate:plugin/on-inbound@0.1.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    pub interface: &'a str,
    pub version: &'a str,
}

impl<'a> Name<'a> {
    /// None: it is of another package.
    pub fn parse(name: &'a str) -> Option<Self> {
        let name = name.strip_prefix(PACKAGE)?;
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        Some(Self { interface, version })
    }

    pub fn is_hook(self) -> bool {
        self.interface.starts_with("on-")
    }
}

impl Interface {
    /// This gateway's.
    pub fn own() -> anyhow::Result<Self> {
        Self::read(WIT)
    }

    pub fn read(text: &str) -> anyhow::Result<Self> {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("tidegate.wit", text).context("the gateway's own interface cannot be read")?;
        Ok(Self { resolve, package })
    }

    /// `0.1.0`
    pub fn version(&self) -> String {
        let version = &self.resolve.packages[self.package].name.version;
        version.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// All that a plugin may export: what the gateway describes bare modules with.
    pub fn world(&self) -> anyhow::Result<WorldId> {
        self.resolve.select_world(&[self.package], Some("plugin"))
    }

    /// The hooks' interfaces.
    pub fn hooks(&self) -> Vec<&str> {
        let interfaces = self.resolve.packages[self.package].interfaces.keys();
        interfaces.map(String::as_str).filter(|name| name.starts_with("on-")).collect()
    }

    /// Whether the interface has this function; an interface that is not there has none.
    pub fn has(&self, interface: &str, function: &str) -> bool {
        let found = self.resolve.packages[self.package].interfaces.get(interface);
        found.is_some_and(|id| self.resolve.interfaces[*id].functions.contains_key(function))
    }

    /// Fails unless what was built against this version can be served.
    pub fn check_version(&self, name: Name<'_>) -> anyhow::Result<()> {
        let Name { interface, version } = name;
        let own = self.version();
        let track = |version: &str| version.parse().ok().map(|version| PackageName::version_compat_track(&version));
        if track(version).is_none_or(|theirs| Some(theirs) != track(&own)) {
            let spoken = if version.is_empty() { "no version of it" } else { version };
            bail!(
                "it names tidegate:plugin/{interface} in version {spoken}, and this gateway speaks {own}: build it \
                 against this gateway's sdk/wit/tidegate.wit, or run a gateway that speaks its version"
            );
        }
        Ok(())
    }

    /// Fails with the names of those of a plugin's imports that this gateway does not have.
    pub fn check_imports<'a>(&self, imports: impl IntoIterator<Item = (Name<'a>, &'a str)>) -> anyhow::Result<()> {
        let mut unknown = Vec::new();
        for (name, function) in imports {
            self.check_version(name)?;
            if !self.has(name.interface, function) {
                unknown.push(format!("{}.{function} ({})", name.interface, name.version));
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        bail!(
            "it imports {}, which the interface of this gateway ({}) does not have: do without, or run a newer gateway",
            unknown.join(", "),
            self.version()
        )
    }

    /// Takes another version's name. Versions that are compatible differ in nothing else that matters here.
    pub fn rename(&mut self, version: &str) -> anyhow::Result<()> {
        let version = version.parse().with_context(|| format!("{version:?} is no version"))?;
        let id = self.package;
        let mut name = self.resolve.packages[id].name.clone();
        self.resolve.package_names.shift_remove(&name);
        name.version = Some(version);
        self.resolve.package_names.insert(name.clone(), id);
        self.resolve.packages[id].name = name;
        Ok(())
    }
}

/// What a file that has no hook is refused with.
pub fn no_hook<'a>(exports: impl IntoIterator<Item = &'a str>) -> anyhow::Error {
    const NAMED: usize = 12;
    let exports: Vec<_> = exports.into_iter().collect();
    let named = match exports.len() {
        0 => "nothing".to_owned(),
        1..=NAMED => exports.join(", "),
        more => format!("{} and {} more", exports[..NAMED].join(", "), more - NAMED),
    };
    anyhow::anyhow!(
        "it has no hook: it exports {named}, but nothing like tidegate:plugin/on-inbound@0.1.0#handle or \
         wasi:http/incoming-handler@0.2.0#handle; name the hooks in \
         the plugin's world, or in the SDK's `export!`"
    )
}
