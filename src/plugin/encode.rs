//! From a plugin's file to a component: whatever a language's tools have made is accepted if it fits the interface.
//!
//! Three forms: a component as it is; a core module with a `component-type` section, as wit-bindgen leaves it; a bare
//! core module that exports the hooks by their canonical names, which is described by the gateway's own copy of the
//! interface.

use anyhow::{Context as _, anyhow, bail};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The interface that this gateway speaks.
pub const WIT: &str = include_str!("../../sdk/wit/tidegate.wit");

/// How a file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Component,
    TypedModule,
    BareModule,
}

impl Form {
    pub fn name(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::TypedModule => "core module with a component-type section",
            Self::BareModule => "bare core module",
        }
    }
}

/// The component in a file's bytes.
pub fn component(bytes: &[u8]) -> anyhow::Result<(Form, Vec<u8>)> {
    if !bytes.starts_with(b"\0asm") {
        bail!("not a WebAssembly file: it does not begin with \\0asm; was it copied completely?");
    }
    if Parser::is_component(bytes) {
        return Ok((Form::Component, bytes.to_vec()));
    }
    let module = Module::read(bytes).context("not a valid WebAssembly module")?;
    let mut described = bytes.to_vec();
    if !module.typed {
        describe(&mut described, &module)?;
    }
    let mut encoder = ComponentEncoder::default()
        .validate(true)
        .module(&described)
        .context("the module does not fit the interface")?;
    if module.imports_preview1 {
        let adapter = wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;
        encoder = encoder.adapter("wasi_snapshot_preview1", adapter).context("the WASI adapter does not fit")?;
    }
    let component = encoder.encode().context("the module does not fit the interface tidegate:plugin@0.1.0")?;
    let form = if module.typed { Form::TypedModule } else { Form::BareModule };
    Ok((form, component))
}

/// What matters of a core module.
#[derive(Default)]
struct Module {
    typed: bool,
    imports_preview1: bool,
    /// Exports that look like functions of an interface: `tidegate:plugin/on-inbound@0.1.0#handle`.
    interface_exports: Vec<String>,
}

impl Module {
    fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut module = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::CustomSection(section) => module.typed |= section.name().starts_with("component-type"),
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        module.imports_preview1 |= import?.module == "wasi_snapshot_preview1";
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let name = export?.name;
                        if name.contains('#') && !name.starts_with("cabi_post_") {
                            module.interface_exports.push(name.to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(module)
    }
}

/// Adds a component-type section for exactly the hooks whose names the module exports.
fn describe(bytes: &mut Vec<u8>, module: &Module) -> anyhow::Result<()> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("tidegate.wit", WIT)?;
    let world = resolve.select_world(&[package], Some("plugin"))?;
    let known: Vec<_> =
        resolve.worlds[world].exports.keys().map(|key| (key.clone(), resolve.name_world_key(key))).collect();
    let exported = |name: &str| module.interface_exports.iter().any(|export| export.split('#').next() == Some(name));
    let unknown: Vec<_> = module
        .interface_exports
        .iter()
        .filter(|export| known.iter().all(|(_, name)| export.split('#').next() != Some(name)))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        let hooks: Vec<_> = known.iter().map(|(_, name)| name.as_str()).collect();
        bail!("unknown hooks {}: this gateway has {}", unknown.join(", "), hooks.join(", "));
    }
    if module.interface_exports.is_empty() {
        bail!("no hook is exported: a plugin exports functions such as tidegate:plugin/on-inbound@0.1.0#handle");
    }
    for (key, name) in known {
        if !exported(&name) {
            resolve.worlds[world].exports.shift_remove(&key);
        }
    }
    embed_component_metadata(bytes, &resolve, world, StringEncoding::UTF8)
        .map_err(|error| anyhow!("the interface cannot be described: {error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(wat: &str) -> String {
        format!("{:#}", component(&wat::parse_str(wat).unwrap()).unwrap_err())
    }

    #[test]
    fn what_is_no_plugin_is_refused_with_a_reason() {
        let garbage = format!("{:#}", component(b"PK\x03\x04").unwrap_err());
        assert!(garbage.contains("not a WebAssembly file"), "{garbage}");
        assert!(refused("(module)").contains("no hook is exported"));
        let unknown = refused(r#"(module (func (export "tidegate:plugin/on-nothing@0.1.0#handle")))"#);
        assert!(unknown.contains("unknown hooks tidegate:plugin/on-nothing@0.1.0#handle"), "{unknown}");
        let half = format!("{:#}", component(&wat::parse_str("(module (memory 1))").unwrap()[..9]).unwrap_err());
        assert!(half.contains("not a valid"), "{half}");
    }

    #[test]
    fn a_wrong_signature_is_refused() {
        let wrong = refused(
            r#"(module (memory (export "memory") 1)
                 (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                 (func (export "tidegate:plugin/on-authenticate@0.1.0#handle") (param i32) (result i32) (i32.const 64)))"#,
        );
        assert!(wrong.contains("does not fit the interface"), "{wrong}");
    }

    #[test]
    fn a_bare_module_is_described_by_its_exports() {
        let wat = r#"(module (memory (export "memory") 1)
             (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
             (func (export "tidegate:plugin/on-authenticate@0.1.0#handle") (param i64) (result i32) (i32.const 64)))"#;
        let (form, bytes) = component(&wat::parse_str(wat).unwrap()).unwrap();
        assert_eq!(form, Form::BareModule);
        assert_eq!(component(&bytes).unwrap().0, Form::Component);
    }
}
