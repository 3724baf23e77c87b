//! From a plugin's file to a component: whatever a language's tools have made is accepted if it fits the interface.
//!
//! Three forms: a component as it is; a core module with a `component-type` section, as wit-bindgen leaves it; a bare
//! core module that exports the hooks by their canonical names, which is described by the gateway's own copy of the
//! interface.

use anyhow::{Context as _, bail};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::interface::{Interface, Name, no_hook};

/// How a file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Component,
    TypedModule,
    BareModule,
}

impl Form {
    const ALL: [Self; 3] = [Self::Component, Self::TypedModule, Self::BareModule];

    /// As it is stored.
    pub fn byte(self) -> u8 {
        self as u8
    }

    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }

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
    component_of(bytes, Interface::own()?)
}

fn component_of(bytes: &[u8], interface: Interface) -> anyhow::Result<(Form, Vec<u8>)> {
    if !bytes.starts_with(b"\0asm") {
        bail!("not a WebAssembly file: it does not begin with \\0asm; was it copied completely?");
    }
    if Parser::is_component(bytes) {
        return Ok((Form::Component, bytes.to_vec()));
    }
    let module = Module::read(bytes).context("not a valid WebAssembly module; was it copied completely?")?;
    // A bare module cannot be described as a handler: that takes types which it would have to share with its imports.
    let handles = |export: &str| module.typed && export.starts_with("wasi:http/incoming-handler@0.2.");
    if !module.exports.iter().any(|export| hook(export).is_some() || handles(export)) {
        return Err(no_hook(module.exports.iter().map(String::as_str)));
    }
    let mut described = bytes.to_vec();
    if !module.typed {
        describe(&mut described, &module, interface)?;
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
    /// Functions: their module and their name.
    imports: Vec<(String, String)>,
    /// The names of exported functions.
    exports: Vec<String>,
}

impl Module {
    fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut module = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::CustomSection(section) => module.typed |= section.name().starts_with("component-type"),
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let import = import?;
                        module.imports_preview1 |= import.module == "wasi_snapshot_preview1";
                        if let TypeRef::Func(_) = import.ty {
                            module.imports.push((import.module.to_owned(), import.name.to_owned()));
                        }
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export?;
                        if export.kind == ExternalKind::Func {
                            module.exports.push(export.name.to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(module)
    }
}

/// The hook's interface and function that an export is named after: `tidegate:plugin/on-inbound@0.1.0#handle`.
fn hook(export: &str) -> Option<(Name<'_>, &str)> {
    let (interface, function) = export.split_once('#')?;
    Some((Name::parse(interface).filter(|name| name.is_hook())?, function))
}

/// Adds a component-type section for exactly the hooks whose names the module exports, in the version that it names
/// them in: what is described in another version would come out without a hook, and without an error.
fn describe(bytes: &mut Vec<u8>, module: &Module, mut interface: Interface) -> anyhow::Result<()> {
    let hooks: Vec<_> = module.exports.iter().filter_map(|export| hook(export)).collect();
    let Some((first, _)) = hooks.first() else { bail!("it has no hook") };
    let known = interface.hooks().join(", ");
    for (name, function) in &hooks {
        interface.check_version(*name)?;
        if name.version != first.version {
            let (one, other) = (first.version, name.version);
            bail!("its hooks are of different versions, {one} and {other}: build all of it against one of them");
        }
        if !interface.has(name.interface, function) {
            bail!("it has an unknown hook {}#{function}: this gateway has {known}", name.interface);
        }
    }
    let imports = module.imports.iter();
    interface.check_imports(imports.filter_map(|(module, name)| Some((Name::parse(module)?, name.as_str()))))?;
    let foreign =
        module.imports.iter().filter(|(module, _)| Name::parse(module).is_none() && !module.starts_with("wasi"));
    let foreign: Vec<_> = foreign.map(|(module, name)| format!("{module}.{name}")).collect();
    if !foreign.is_empty() {
        // AssemblyScript's own, unless it is told otherwise.
        let abort =
            "; in AssemblyScript, `asc --use abort=assembly/index/abort` names a function of yours in its place";
        let cure = if foreign.iter().any(|name| name == "env.abort") { abort } else { "" };
        bail!("it imports {}, which this gateway does not offer{cure}", foreign.join(", "));
    }
    interface.rename(first.version)?;
    let world = interface.world()?;
    let resolve = &mut interface.resolve;
    let exports = resolve.worlds[world].exports.keys().map(|key| (key.clone(), resolve.name_world_key(key)));
    for (key, name) in exports.collect::<Vec<_>>() {
        if !hooks.iter().any(|(hook, _)| Name::parse(&name) == Some(*hook)) {
            resolve.worlds[world].exports.shift_remove(&key);
        }
    }
    embed_component_metadata(bytes, resolve, world, StringEncoding::UTF8)
        .context("the module does not fit the interface")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::interface::WIT;

    fn refused(wat: &str) -> String {
        format!("{:#}", component(&wat::parse_str(wat).unwrap()).unwrap_err())
    }

    #[test]
    fn what_is_no_plugin_is_refused_with_a_reason() {
        let garbage = format!("{:#}", component(b"PK\x03\x04").unwrap_err());
        assert!(garbage.contains("not a WebAssembly file"), "{garbage}");
        assert!(refused("(module)").contains("no hook: it exports nothing"));
        let other = refused(r#"(module (func (export "_start")) (func (export "run")))"#);
        assert!(other.contains("it exports _start, run,"), "{other}");
        let unknown = refused(r#"(module (func (export "tidegate:plugin/on-nothing@0.1.0#handle")))"#);
        assert!(unknown.contains("unknown hook on-nothing#handle"), "{unknown}");
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
    fn imports_of_nobody_are_named_with_a_cure() {
        let import = r#"(module (import "env" "abort" (func (param i32 i32 i32 i32)))"#;
        let why = refused(&DOORMAN.replacen("(module", import, 1));
        assert!(why.contains("imports env.abort, which") && why.contains("--use abort="), "{why}");
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

    const DOORMAN: &str = r#"(module (memory (export "memory") 1)
         (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
         (func (export "tidegate:plugin/on-authenticate@0.1.0#handle") (param i64) (result i32) (i32.const 64)))"#;

    /// The interfaces that a component exports.
    fn exports(component: &[u8]) -> Vec<String> {
        let mut depth = 0;
        let mut names = Vec::new();
        for payload in Parser::new(0).parse_all(component) {
            match payload.unwrap() {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth -= 1,
                Payload::ComponentExportSection(section) if depth == 0 => {
                    names.extend(section.into_iter().map(|export| export.unwrap().name.name.to_owned()));
                }
                _ => {}
            }
        }
        names
    }

    #[test]
    fn module_and_gateway_may_differ_in_the_last_number() {
        let newer = WIT.replace("@0.1.0", "@0.1.1");
        for (module, gateway) in [("0.1.0", WIT), ("0.1.0", &newer), ("0.1.1", WIT), ("0.1.1", &newer)] {
            let bytes = wat::parse_str(DOORMAN.replace("@0.1.0", &format!("@{module}"))).unwrap();
            let (_, component) = component_of(&bytes, Interface::read(gateway).unwrap()).unwrap();
            let hook = format!("tidegate:plugin/on-authenticate@{module}");
            assert_eq!(exports(&component), [hook], "gateway {}", Interface::read(gateway).unwrap().version());
        }
        let mixed = DOORMAN.replace("(memory", r#"(func (export "tidegate:plugin/on-init@0.1.3#handle")) (memory"#);
        let why = refused(&mixed);
        assert!(why.contains("of different versions, 0.1.3 and 0.1.0"), "{why}");
    }
}
