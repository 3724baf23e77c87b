//! What instances of a plugin are made from: its code, once it is known that it fits.

use anyhow::{Context as _, bail};
use wasmtime::Engine;
use wasmtime::component::types::{Component as ComponentType, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};

use super::code::Code;
use super::direct::Direct;
use super::engine::sentence;
use super::event::Hook;
use super::host::{self, State};
use super::interface::{Interface, Name, no_hook};

/// What instances are made from.
#[derive(Clone)]
pub struct Template {
    pub kind: Kind,
    /// Whether calls may wait: then they run on a stack of their own.
    pub waits: bool,
}

#[derive(Clone)]
pub enum Kind {
    /// With where each hook's function is found.
    Component(InstancePre<State>, [Option<ComponentExportIndex>; Hook::ALL.len()]),
    Direct(Direct),
}

impl Template {
    /// Checks that a component fits: nothing unknown is imported, at least one hook is exported.
    pub fn new(engine: &Engine, code: &Code) -> anyhow::Result<(Self, Vec<String>)> {
        match code {
            Code::Component(component) => Self::of_component(engine, component),
            Code::Module(module) => {
                let direct = Direct::new(engine, module).map_err(sentence)?;
                let imports = direct.imports();
                Ok((Self { kind: Kind::Direct(direct), waits: false }, imports))
            }
        }
        .and_then(|(template, imports)| {
            if template.has(Hook::Batch) && !template.has(Hook::Inbound) {
                bail!(
                    "it has the hook on-batch without on-inbound, which is called for all that does not come in batches"
                );
            }
            Ok((template, imports))
        })
    }

    pub fn engine(&self) -> &Engine {
        match &self.kind {
            Kind::Component(pre, _) => pre.engine(),
            Kind::Direct(direct) => direct.engine(),
        }
    }

    pub fn has(&self, hook: Hook) -> bool {
        match &self.kind {
            Kind::Component(_, exports) => exports[hook as usize].is_some(),
            Kind::Direct(direct) => direct.has(hook),
        }
    }

    fn of_component(engine: &Engine, component: &Component) -> anyhow::Result<(Self, Vec<String>)> {
        let ty = component.component_type();
        let imports: Vec<String> = ty.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let waits = imports.iter().any(|import| host::waits(import));
        let mut linker = Linker::new(engine);
        host::link(&mut linker).map_err(sentence)?;
        if waits {
            host::link_waiting(&mut linker).map_err(sentence)?;
        }
        let interface = Interface::own()?;
        interface.check_imports(imported(engine, &ty).iter().map(|(name, function)| (*name, function.as_str())))?;
        let mut exports = [None; Hook::ALL.len()];
        for hook in Hook::ALL {
            let (interface, function) = hook.export();
            let found = component
                .get_export_index(None, interface)
                .and_then(|instance| component.get_export_index(Some(&instance), function));
            exports[hook as usize] = found;
        }
        let names: Vec<_> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let hooks = names.iter().filter_map(|name| Name::parse(name)).filter(|name| name.is_hook());
        for name in hooks {
            interface.check_version(name)?;
            if !interface.hooks().contains(&name.interface) {
                let (known, version) = (interface.hooks().join(", "), interface.version());
                bail!(
                    "it has the hook {}, which this gateway ({version}) does not call: it has {known}",
                    name.interface
                );
            }
        }
        if exports.iter().all(Option::is_none) {
            return Err(no_hook(names.iter().map(String::as_str)));
        }
        let unknown: Vec<_> = ty
            .imports(engine)
            .filter(|(name, item)| {
                let known = Name::parse(name).is_some() || name.starts_with("wasi:");
                !known && matches!(item.ty, ComponentItem::ComponentInstance(_) | ComponentItem::ComponentFunc(_))
            })
            .map(|(name, _)| name.to_owned())
            .collect();
        if !unknown.is_empty() {
            bail!(
                "it imports {}, which this gateway does not offer: a plugin may import tidegate:plugin and WASI 0.2",
                unknown.join(", ")
            );
        }
        let pre = linker
            .instantiate_pre(component)
            .map_err(sentence)
            .context("it imports what this gateway does not offer")?;
        Ok((Self { kind: Kind::Component(pre, exports), waits }, imports))
    }
}

/// The functions of the gateway's own interfaces that a component imports.
fn imported<'a>(engine: &'a Engine, ty: &'a ComponentType) -> Vec<(Name<'a>, String)> {
    let mut functions = Vec::new();
    for (name, import) in ty.imports(engine) {
        if let (Some(name), ComponentItem::ComponentInstance(instance)) = (Name::parse(name), &import.ty) {
            let is_function = |item: &ComponentItem| matches!(item, ComponentItem::ComponentFunc(_));
            let exports = instance.exports(engine).filter(|(_, export)| is_function(&export.ty));
            functions.extend(exports.map(|(function, _)| (name, function.to_owned())));
        }
    }
    functions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::encode;

    fn template(wat: &str) -> anyhow::Result<Template> {
        let engine = Engine::default();
        let file = wat::parse_str(wat).unwrap();
        let encoded = encode::encoded(&file)?;
        Ok(Template::new(&engine, &Code::new(&engine, &file, &encoded)?)?.0)
    }

    fn refused(wat: &str) -> String {
        format!("{:#}", template(wat).err().unwrap())
    }

    fn hooks(template: &Template) -> Vec<&'static str> {
        Hook::ALL.into_iter().filter(|hook| template.has(*hook)).map(Hook::name).collect()
    }

    /// A module with a hook that lets everybody in, and what it imports.
    fn module(imports: &str, version: &str) -> String {
        format!(
            r#"(module {imports} (memory (export "memory") 1)
                 (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                 (func (export "tidegate:plugin/on-authenticate@{version}#handle") (param i64) (result i32) (i32.const 64)))"#
        )
    }

    /// A whole component, as the tools of JavaScript and Python make it.
    fn whole(interface: &str, functions: &str) -> String {
        let hook = "tidegate:plugin/on-timer@0.1.0";
        format!(
            r#"(component
                 (import "{interface}" (instance {functions}))
                 (core module $m
                   (memory (export "memory") 1)
                   (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
                   (func (export "handle") (param i64 i32 i32) (result i32) (i32.const 64)))
                 (core instance $i (instantiate $m))
                 (func $handle (param "session" u64) (param "name" string) (result (result (error string)))
                   (canon lift (core func $i "handle") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
                 (instance $hook (export "handle" (func $handle)))
                 (export "{hook}" (instance $hook)))"#
        )
    }

    const SEND: &str =
        r#"(import "tidegate:plugin/session@VERSION" "send" (func (param i64 i32 i32 i32) (result i32)))"#;

    #[test]
    fn versions_that_are_compatible_link() {
        for (imports, exports) in [("0.1.0", "0.1.0"), ("0.1.7", "0.1.7"), ("0.1.0", "0.1.3")] {
            let made = template(&module(&SEND.replace("VERSION", imports), exports)).unwrap();
            assert_eq!(hooks(&made), ["authenticate"], "imports {imports}, exports {exports}");
        }
        for other in ["0.2.0", "1.0.0", "0.0.1"] {
            let why = refused(&module("", other));
            assert!(why.contains(&format!("in version {other}, and this gateway speaks 0.1.0")), "{why}");
        }
        let why = refused(&module(&SEND.replace("VERSION", "0.2.0"), "0.1.0"));
        assert!(why.contains("names tidegate:plugin/session in version 0.2.0"), "{why}");
    }

    #[test]
    fn imports_that_the_gateway_does_not_have_are_named() {
        let why = refused(&module(
            r#"(import "tidegate:plugin/session@0.1.9" "teleport" (func (param i64)))
               (import "tidegate:plugin/weather@0.1.9" "now" (func))"#,
            "0.1.9",
        ));
        assert!(why.contains("imports session.teleport (0.1.9), weather.now (0.1.9)"), "{why}");
        let why = refused(&whole("tidegate:plugin/session@0.1.4", r#"(export "teleport" (func (param "to" u32)))"#));
        assert!(why.contains("imports session.teleport (0.1.4)"), "{why}");
        let why = refused(&whole("acme:weather/now@1.0.0", r#"(export "now" (func))"#));
        assert!(why.contains("imports acme:weather/now@1.0.0"), "{why}");
    }

    #[test]
    fn batches_alone_are_no_plugin() {
        let inbound = r#"(func (export "tidegate:plugin/on-inbound@0.1.0#handle") (param i64 i32 i32 i32) (result i32) (i32.const 64))"#;
        let batch = |more: &str| {
            module("", "0.1.0")
                .replace("on-authenticate", "on-batch")
                .replace("(param i64)", "(param i64 i32 i32)")
                .replacen("(memory", &format!("{more} (memory"), 1)
        };
        assert_eq!(hooks(&template(&batch(inbound)).unwrap()), ["inbound", "batch"]);
        let why = refused(&batch(""));
        assert!(why.contains("on-batch without on-inbound"), "{why}");
    }

    #[test]
    fn a_component_may_import_an_interface_in_part_and_in_another_version() {
        for version in ["0.1.0", "0.1.5"] {
            let part = r#"(export "now" (func (result u64)))"#;
            let made = template(&whole(&format!("tidegate:plugin/clock@{version}"), part)).unwrap();
            assert_eq!(hooks(&made), ["timer"]);
            assert!(!made.waits);
        }
        let waits = whole("tidegate:plugin/kv@0.1.0", r#"(export "nothing" (func))"#);
        assert!(refused(&waits).contains("imports kv.nothing"));
    }

    #[test]
    fn components_without_a_hook_are_refused_with_what_they_export() {
        let why = refused(r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#);
        assert!(why.contains("no hook: it exports wasi:cli/run@0.2.0,"), "{why}");
        let newer = whole("tidegate:plugin/clock@0.1.0", "").replace("on-timer@0.1.0", "on-weather@0.1.1");
        let why = refused(&newer);
        assert!(why.contains("the hook on-weather, which this gateway (0.1.0) does not call"), "{why}");
    }
}
