//! The plugin that does what it is told: a core module, made from the interface itself, whose hooks run a script of host
//! calls with any pointers, lengths and values.
//!
//! `on-inbound` with a message that begins with 255 keeps the rest of the message as the script; every other call of a
//! hook runs it. A script is a row of operations, each a number of two bytes and its arguments, little-endian as the core
//! signature has them.

use std::fmt::Write as _;

use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Function, FunctionKind, Resolve, Type, TypeDefKind, WorldItem};

use crate::plugin::inside::WIT;

/// What waits for a store.
const WAITING: &[&str] = &["history", "presence", "kv"];

/// Where the script lies in the guest's memory, and how long it may be.
pub const SCRIPT: u32 = 8192;
pub const SCRIPT_MAX: usize = 16 << 10;
/// Where strings lie.
pub const STRINGS: u32 = 1024;
/// Where lists of pairs of strings lie.
pub const PAIRS: u32 = 4096;
/// Where a host function's answer goes that does not fit into one number.
pub const ANSWER: u32 = 512;
/// Where the hook's own answer lies.
pub const RESULT: u32 = 64;
/// As an effect's number: the last effect that was accepted.
pub const LAST_EFFECT: u32 = 0xffff_fff0;
/// The guest's memory at first.
pub const MEMORY: u32 = 2 << 16;

/// Names and values that get past the first checks, and some that do not.
pub const TEXTS: &[&[u8]] = &[
    b"room:blue",
    b"room:red",
    b"other",
    b"a",
    b"",
    b"k:1",
    b"k:2",
    b"12",
    b"-9223372036854775808",
    b"ada",
    b"token",
    b"chat",
    b"x-tenant",
    b"cookie",
    b"authorization",
    b"text/plain",
    b"nested.key",
    b"shop",
    b"moves_total{game=\"chess\"}",
    b"moves_total",
    b"moves_total{game=\"",
    b"\x00\x0a",
    b"two\r\nlines: yes",
    "\u{e4}\u{2603}\u{1f30a}".as_bytes(),
    b"0000000000000007-0000000000000001",
    b"..",
    b"{\"a\":1}",
    // The last is no text at all.
    b"\xff\xfe",
];

/// A host function, as the guest calls it.
pub struct HostFunction {
    pub interface: String,
    pub name: String,
    pub slots: Vec<Slot>,
}

/// What an argument stands for. A text takes two: where it lies, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Text,
    Pairs,
    Session,
    Publication,
    Effect,
    /// One of so many.
    Case(u32),
    /// A close code.
    Code,
    Number,
    Long,
    Float,
    /// Where the answer goes.
    Answer,
}

/// Operations beside the host functions, counted from the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// How memory is given to the host from now on: a mode, and a value.
    Realloc,
    /// A number of 64 bits into the memory, at an address.
    Poke,
    /// End, with the hook's answer at an address.
    Return,
    /// More memory, so many pages.
    Grow,
    /// For ever.
    Spin,
    /// As deep as it goes.
    Recurse,
    Unreachable,
}

impl Special {
    pub const ALL: [Self; 7] =
        [Self::Realloc, Self::Poke, Self::Return, Self::Grow, Self::Spin, Self::Recurse, Self::Unreachable];
}

/// The interface, read.
struct Interface {
    resolve: Resolve,
    package: wit_parser::PackageId,
}

impl Interface {
    fn read() -> Self {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("tidegate.wit", WIT).unwrap();
        Self { resolve, package }
    }

    /// Host functions: interface, function, core signature.
    fn imports(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, &Function)> {
        let world = self.resolve.select_world(&[self.package], Some("imports")).unwrap();
        let mut found = Vec::new();
        for item in self.resolve.worlds[world].imports.values() {
            let WorldItem::Interface { id, .. } = item else { continue };
            let interface = &self.resolve.interfaces[*id];
            let name = interface.name.clone().unwrap();
            if wanted(&name) {
                found.extend(interface.functions.values().map(|function| (name.clone(), function)));
            }
        }
        found
    }

    /// Hooks: interface, function.
    fn hooks(&self) -> Vec<(String, &Function)> {
        let world = self.resolve.select_world(&[self.package], Some("plugin")).unwrap();
        let mut found = Vec::new();
        for item in self.resolve.worlds[world].exports.values() {
            let WorldItem::Interface { id, .. } = item else { continue };
            let interface = &self.resolve.interfaces[*id];
            let name = interface.name.clone().unwrap();
            if name != "on-init" {
                found.extend(interface.functions.values().map(|function| (name.clone(), function)));
            }
        }
        found
    }

    fn slots(&self, function: &Function) -> Vec<Slot> {
        assert!(matches!(function.kind, FunctionKind::Freestanding));
        let mut slots: Vec<_> = function.params.iter().flat_map(|param| self.slots_of(&param.ty)).collect();
        let signature = self.resolve.wasm_signature(AbiVariant::GuestImport, function);
        if signature.retptr {
            slots.push(Slot::Answer);
        }
        let core: Vec<_> = slots.iter().flat_map(|slot| slot.core()).copied().collect();
        let meant: Vec<_> = signature.params.iter().map(|ty| core_type(*ty)).collect();
        assert_eq!(core, meant, "the arguments of `{}` are not understood", function.name);
        slots
    }

    fn slots_of(&self, ty: &Type) -> Vec<Slot> {
        match ty {
            Type::String => vec![Slot::Text],
            Type::U64 | Type::S64 => vec![Slot::Long],
            Type::F64 => vec![Slot::Float],
            Type::U16 => vec![Slot::Code],
            Type::Bool | Type::U8 | Type::S8 | Type::S16 | Type::U32 | Type::S32 | Type::Char => {
                vec![Slot::Number]
            }
            Type::Id(id) => {
                let definition = &self.resolve.types[*id];
                match &definition.kind {
                    TypeDefKind::Type(inner) => match definition.name.as_deref() {
                        Some("session") => vec![Slot::Session],
                        Some("publication") => vec![Slot::Publication],
                        Some("effect") => vec![Slot::Effect],
                        _ => self.slots_of(inner),
                    },
                    TypeDefKind::List(Type::U8) => vec![Slot::Text],
                    TypeDefKind::List(_) => vec![Slot::Pairs],
                    TypeDefKind::Record(record) => {
                        record.fields.iter().flat_map(|field| self.slots_of(&field.ty)).collect()
                    }
                    TypeDefKind::Enum(cases) => vec![Slot::Case(cases.cases.len() as u32)],
                    TypeDefKind::Option(inner) => [vec![Slot::Case(2)], self.slots_of(inner)].concat(),
                    TypeDefKind::Variant(variant) => {
                        let cases = variant.cases.iter().map(|case| case.ty.map(|ty| self.slots_of(&ty)));
                        let longest = cases.flatten().max_by_key(Vec::len).unwrap_or_default();
                        [vec![Slot::Case(variant.cases.len() as u32)], longest].concat()
                    }
                    other => panic!("no argument of this kind is understood: {other:?}"),
                }
            }
            other => panic!("no argument of this type is understood: {other:?}"),
        }
    }
}

impl Slot {
    fn core(self) -> &'static [&'static str] {
        match self {
            Self::Text | Self::Pairs => &["i32", "i32"],
            Self::Session | Self::Publication | Self::Long => &["i64"],
            Self::Float => &["f64"],
            Self::Effect | Self::Case(_) | Self::Code | Self::Number | Self::Answer => &["i32"],
        }
    }
}

fn core_type(ty: WasmType) -> &'static str {
    match ty {
        WasmType::I64 => "i64",
        WasmType::F64 => "f64",
        WasmType::F32 => "f32",
        _ => "i32",
    }
}

fn wanted(waits: bool) -> impl Fn(&str) -> bool {
    move |name| waits || !WAITING.contains(&name)
}

/// The host functions that the guest calls, in the order of their numbers.
pub fn functions(waits: bool) -> Vec<HostFunction> {
    let read = Interface::read();
    let function = |(interface, function): (String, &Function)| HostFunction {
        interface,
        name: function.name.clone(),
        slots: read.slots(function),
    };
    read.imports(wanted(waits)).into_iter().map(function).collect()
}

/// The guest's text. One that imports what waits for a store is called on a stack of its own.
pub fn guest(waits: bool) -> String {
    text(wanted(waits))
}

/// Where the texts lie, in their order.
pub fn places() -> Vec<(u32, u32)> {
    let mut at = STRINGS;
    let place = |text: &&[u8]| {
        let place = (at, text.len() as u32);
        at += text.len() as u32;
        place
    };
    TEXTS.iter().map(place).collect()
}

fn text(wanted: impl Fn(&str) -> bool) -> String {
    let interface = Interface::read();
    let imports = interface.imports(wanted);
    let mut out = String::from("(module\n");
    for (number, (name, function)) in imports.iter().enumerate() {
        let signature = interface.resolve.wasm_signature(AbiVariant::GuestImport, function);
        let params: String = signature.params.iter().map(|ty| format!(" {}", core_type(*ty))).collect();
        let results: String = signature.results.iter().map(|ty| format!(" {}", core_type(*ty))).collect();
        let import = format!("\"tidegate:plugin/{name}@0.1.0\" \"{}\"", function.name);
        writeln!(out, "(import {import} (func $host{number} (param{params}) (result{results})))").unwrap();
    }
    writeln!(out, "(memory (export \"memory\") {})", MEMORY >> 16).unwrap();
    let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    writeln!(out, "(data (i32.const {STRINGS}) \"{}\")", escaped(&TEXTS.concat())).unwrap();
    let pairs: Vec<u8> =
        places().iter().flat_map(|(at, length)| [at.to_le_bytes(), length.to_le_bytes()].concat()).collect();
    writeln!(out, "(data (i32.const {PAIRS}) \"{}\")", escaped(&pairs)).unwrap();
    out.push_str(RUNTIME);
    out.push_str("(func $run (result i32)\n(global.set $at (i32.const ");
    write!(out, "{SCRIPT}))\n(i64.store (i32.const {RESULT}) (i64.const 0))\n").unwrap();
    write!(out, "(i64.store (i32.const {}) (i64.const 0))\n(loop $next\n", RESULT + 8).unwrap();
    writeln!(out, "(if (i32.ge_u (global.get $at) (global.get $end)) (then (return (i32.const {RESULT}))))").unwrap();
    let count = imports.len() + Special::ALL.len();
    out.push_str("(block $none ");
    (0..count).rev().for_each(|number| write!(out, "(block $case{number} ").unwrap());
    out.push_str("\n(br_table");
    (0..count).for_each(|number| write!(out, " $case{number}").unwrap());
    out.push_str(" $none (call $u16)))\n");
    for (number, (_, function)) in imports.iter().enumerate() {
        let signature = interface.resolve.wasm_signature(AbiVariant::GuestImport, function);
        let read = |slot: &Slot| match slot {
            Slot::Effect => " (call $effect)".to_owned(),
            slot => slot.core().iter().map(|ty| format!(" (call ${ty})")).collect(),
        };
        let params: String = interface.slots(function).iter().map(read).collect();
        let call = format!("(call $host{number}{params})");
        // The number of an effect stays where that of a refusable one is put.
        let call = match signature.results[..] {
            [] => call,
            [WasmType::I32] => format!("(i32.store (i32.const {}) {call})", ANSWER + 4),
            _ => format!("(drop {call})"),
        };
        let close = if number + 1 < count { ")" } else { "" };
        writeln!(out, "{call} (br $next){close}").unwrap();
    }
    for (place, special) in Special::ALL.iter().enumerate() {
        let close = if imports.len() + place + 1 < count { ")" } else { "" };
        writeln!(out, "{} (br $next){close}", special.code()).unwrap();
    }
    out.push_str(")\n(br $next))\n(unreachable))\n");
    for (name, function) in interface.hooks() {
        let signature = interface.resolve.wasm_signature(AbiVariant::GuestExport, function);
        let params: String = signature.params.iter().map(|ty| format!(" {}", core_type(*ty))).collect();
        let export = format!("tidegate:plugin/{name}@0.1.0#{}", function.name);
        let body = if name == "on-inbound" {
            "(if (call $keep (local.get 2) (local.get 3)) (then (return (i32.const 64))))"
        } else {
            ""
        };
        writeln!(out, "(func (export \"{export}\") (param{params}) (result i32) {body} (call $run))").unwrap();
        writeln!(out, "(func (export \"cabi_post_{export}\") (param i32) (call $after))").unwrap();
    }
    out.push(')');
    out
}

impl Special {
    fn code(self) -> &'static str {
        match self {
            Self::Realloc => "(global.set $mode (call $i32)) (global.set $value (call $i32))",
            Self::Poke => "(i64.store (call $i32) (call $i64))",
            Self::Return => "(return (call $i32))",
            Self::Grow => "(drop (memory.grow (call $i32)))",
            Self::Spin => "(loop $ever (br $ever))",
            Self::Recurse => "(call $deep)",
            Self::Unreachable => "(unreachable)",
        }
    }
}

/// Reading the script, and giving memory to the host in seven ways.
const RUNTIME: &str = r#"
(global $at (mut i32) (i32.const 0))
(global $end (mut i32) (i32.const 8192))
(global $mode (mut i32) (i32.const 0))
(global $value (mut i32) (i32.const 0))
(global $free (mut i32) (i32.const 65536))
(func $u16 (result i32)
  (global.set $at (i32.add (global.get $at) (i32.const 2)))
  (i32.load16_u (i32.sub (global.get $at) (i32.const 2))))
(func $i32 (result i32)
  (global.set $at (i32.add (global.get $at) (i32.const 4)))
  (i32.load (i32.sub (global.get $at) (i32.const 4))))
(func $i64 (result i64)
  (global.set $at (i32.add (global.get $at) (i32.const 8)))
  (i64.load (i32.sub (global.get $at) (i32.const 8))))
(func $effect (result i32) (local $number i32)
  (local.set $number (call $i32))
  (select (i32.load (i32.const 516)) (local.get $number) (i32.eq (local.get $number) (i32.const 0xfffffff0))))
(func $f64 (result f64) (f64.reinterpret_i64 (call $i64)))
(func $deep (call $deep) (call $deep))
(func $keep (param $from i32) (param $length i32) (result i32)
  (if (i32.eqz (local.get $length)) (then (return (i32.const 0))))
  (if (i32.ne (i32.load8_u (local.get $from)) (i32.const 255)) (then (return (i32.const 0))))
  (memory.copy (i32.const 8192) (i32.add (local.get $from) (i32.const 1)) (i32.sub (local.get $length) (i32.const 1)))
  (global.set $end (i32.add (i32.const 8191) (local.get $length)))
  (global.set $mode (i32.const 0))
  (i64.store (i32.const 64) (i64.const 0))
  (i32.const 1))
(func $bump (param $size i32) (result i32) (local $place i32)
  (if (i32.gt_u (i32.add (global.get $free) (local.get $size)) (i32.const 131072))
    (then (global.set $free (i32.const 65536))))
  (local.set $place (global.get $free))
  (global.set $free (i32.and (i32.add (i32.add (local.get $place) (local.get $size)) (i32.const 15)) (i32.const -16)))
  (local.get $place))
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (if (i32.eq (global.get $mode) (i32.const 1)) (then (return (global.get $value))))
  (if (i32.eq (global.get $mode) (i32.const 2)) (then (drop (call $run))))
  (if (i32.eq (global.get $mode) (i32.const 3)) (then (drop (memory.grow (i32.const 1)))))
  (if (i32.eq (global.get $mode) (i32.const 4)) (then (unreachable)))
  (if (i32.eq (global.get $mode) (i32.const 5)) (then (return (i32.add (call $bump (local.get 3)) (i32.const 1)))))
  (call $bump (local.get 3)))
(func $after (if (i32.eq (global.get $mode) (i32.const 6)) (then (drop (call $run)))))
"#;
