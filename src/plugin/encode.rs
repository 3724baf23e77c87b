//! From a plugin's file to a component: whatever a language's tools have made is accepted if it fits the interface.
//!
//! Three forms: a component as it is; a core module with a `component-type` section, as wit-bindgen leaves it; a bare
//! core module that exports the hooks by their canonical names, which is described by the gateway's own copy of the
//! interface.

use anyhow::{Context as _, bail};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::direct;
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

/// A file as the engine can take it.
pub struct Encoded {
    pub form: Form,
    /// A component, whatever the file was. What it says of itself is true of the file.
    pub component: Vec<u8>,
    /// The file is a core module that needs no component around it.
    pub is_direct: bool,
}

/// The component in a file's bytes.
pub fn encoded(bytes: &[u8]) -> anyhow::Result<Encoded> {
    encoded_by(bytes, Interface::own()?)
}

fn encoded_by(bytes: &[u8], interface: Interface) -> anyhow::Result<Encoded> {
    if !bytes.starts_with(b"\0asm") {
        bail!("not a WebAssembly file: it does not begin with \\0asm; was it copied completely?");
    }
    if Parser::is_component(bytes) {
        return Ok(Encoded { form: Form::Component, component: bytes.to_vec(), is_direct: false });
    }
    let module = Module::read(bytes).context("not a valid WebAssembly module; was it copied completely?")?;
    // A bare module cannot be described as a handler: that takes types which it would have to share with its imports.
    let handles = |export: &str| module.typed && export.starts_with("wasi:http/incoming-handler@0.2.");
    if !module.exports.iter().any(|export| hook(export).is_some() || handles(export)) {
        return Err(no_hook(module.exports.iter().map(String::as_str)));
    }
    let is_direct = module.is_direct(&interface);
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
    Ok(Encoded { form, component, is_direct })
}

/// Names by which wit-component knows other functions than `cabi_realloc` that make room.
const OTHER_REALLOCS: [&str; 4] =
    ["canonical_abi_realloc", "cabi_import_realloc", "cabi_export_realloc", "cabi_realloc_adapter"];

/// What matters of a core module.
#[derive(Default)]
struct Module {
    typed: bool,
    imports_preview1: bool,
    /// Functions: their module and their name.
    imports: Vec<(String, String)>,
    /// The names of exported functions.
    exports: Vec<String>,
    /// It has the memory that its strings lie in, and imports nothing but functions.
    owns_memory: bool,
    imports_others: bool,
    /// Strings are UTF-8, for all that it says.
    other_encoding: bool,
}

impl Module {
    fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut module = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                    module.typed = true;
                    module.other_encoding |= !is_utf8(section.data())?;
                }
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let import = import?;
                        module.imports_preview1 |= import.module == "wasi_snapshot_preview1";
                        if let TypeRef::Func(_) = import.ty {
                            module.imports.push((import.module.to_owned(), import.name.to_owned()));
                        } else {
                            module.imports_others = true;
                        }
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export?;
                        if export.kind == ExternalKind::Func {
                            module.exports.push(export.name.to_owned());
                        }
                        module.owns_memory |= export.kind == ExternalKind::Memory && export.name == direct::MEMORY;
                    }
                }
                _ => {}
            }
        }
        Ok(module)
    }

    /// Whether it can be called without a component around it, if one can be made. What is of another version, or unknown, is
    /// left to the component, which is refused with the reason.
    fn is_direct(&self, interface: &Interface) -> bool {
        let fits = |name: Name<'_>| interface.check_version(name).is_ok();
        let known = |(module, name): &(String, String)| {
            Name::parse(module).is_some_and(|module| fits(module) && direct::offers(module.interface, name))
        };
        let mut hooks = self.exports.iter().filter_map(|export| hook(export));
        // What the tools call by other names they mean in another way.
        let usual = |export: &String| {
            !(export.starts_with("cm32") || export.starts_with('[') || OTHER_REALLOCS.contains(&export.as_str()))
        };
        self.owns_memory
            && !self.imports_others
            && !self.other_encoding
            && self.imports.iter().all(known)
            && hooks.all(|(name, function)| fits(name) && interface.has(name.interface, function))
            && self.exports.iter().all(usual)
    }
}

/// Whether a component-type section says that strings are UTF-8 (wit-component's `metadata`: a version and an encoding).
fn is_utf8(section: &[u8]) -> anyhow::Result<bool> {
    for payload in Parser::new(0).parse_all(section) {
        if let Payload::CustomSection(section) = payload?
            && section.name() == "wit-component-encoding"
        {
            return Ok(section.data().get(1) == Some(&0));
        }
    }
    Ok(false)
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

    fn refusal(bytes: &[u8]) -> String {
        format!("{:#}", encoded(bytes).err().expect("it is taken"))
    }

    fn refused(wat: &str) -> String {
        refusal(&wat::parse_str(wat).unwrap())
    }

    #[test]
    fn what_is_no_plugin_is_refused_with_a_reason() {
        let garbage = refusal(b"PK\x03\x04");
        assert!(garbage.contains("not a WebAssembly file"), "{garbage}");
        assert!(refused("(module)").contains("no hook: it exports nothing"));
        let other = refused(r#"(module (func (export "_start")) (func (export "run")))"#);
        assert!(other.contains("it exports _start, run,"), "{other}");
        let unknown = refused(r#"(module (func (export "tidegate:plugin/on-nothing@0.1.0#handle")))"#);
        assert!(unknown.contains("unknown hook on-nothing#handle"), "{unknown}");
        let half = refusal(&wat::parse_str("(module (memory 1))").unwrap()[..9]);
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
        let bare = encoded(&wat::parse_str(wat).unwrap()).unwrap();
        assert_eq!((bare.form, bare.is_direct), (Form::BareModule, true));
        let component = encoded(&bare.component).unwrap();
        assert_eq!((component.form, component.is_direct), (Form::Component, false));
    }

    #[test]
    fn modules_that_are_made_as_usual_are_called_directly() {
        let is_direct = |more: &str| {
            let wat = DOORMAN.replacen("(module", &format!("(module {more}"), 1);
            encoded(&wat::parse_str(wat).unwrap()).unwrap().is_direct
        };
        let realloc =
            |name: &str| format!(r#"(func (export "{name}") (param i32 i32 i32 i32) (result i32) (i32.const 1024))"#);
        assert!(is_direct(""));
        assert!(is_direct(&realloc("cabi_realloc_wit_bindgen_0_61_1")), "what wit-bindgen leaves beside it");
        assert!(is_direct(r#"(import "tidegate:plugin/clock@0.1.7" "now" (func (result i64)))"#));
        assert!(!is_direct(&realloc("cabi_import_realloc")));
        let waits = r#"(import "tidegate:plugin/kv@0.1.0" "delete" (func (param i32 i32 i32)))"#;
        assert!(!is_direct(waits), "what waits goes by way of a component");
    }

    #[test]
    fn modules_that_say_what_they_were_built_against_are_direct_only_in_a_version_that_fits() {
        for (version, fits) in [("0.1.0", true), ("0.1.7", true), ("0.2.0", false)] {
            let mut bytes = wat::parse_str(DOORMAN.replace("@0.1.0", &format!("@{version}"))).unwrap();
            let theirs = Interface::read(&WIT.replace("@0.1.0", &format!("@{version}"))).unwrap();
            let module = Module::read(&bytes).unwrap();
            describe(&mut bytes, &module, theirs).unwrap();
            let typed = encoded(&bytes).unwrap();
            assert_eq!((typed.form, typed.is_direct), (Form::TypedModule, fits), "{version}");
        }
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
            let component = encoded_by(&bytes, Interface::read(gateway).unwrap()).unwrap().component;
            let hook = format!("tidegate:plugin/on-authenticate@{module}");
            assert_eq!(exports(&component), [hook], "gateway {}", Interface::read(gateway).unwrap().version());
        }
        let mixed = DOORMAN.replace("(memory", r#"(func (export "tidegate:plugin/on-init@0.1.3#handle")) (memory"#);
        let why = refused(&mixed);
        assert!(why.contains("of different versions, 0.1.3 and 0.1.0"), "{why}");
    }
}
