#!/usr/bin/env node
// Builds a plugin in JavaScript: node build.mjs plugin.js plugin.wasm
//
// A component imports the whole world that it was built against, used or not, and exports all hooks of it, written or
// not. So a world is made of exactly what the file imports and exports, and QuickJS is put around it
// (componentize-qjs).
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve, sep } from "node:path";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";

const INTERFACE = join(dirname(fileURLToPath(import.meta.url)), "../wit/tidegate.wit");
const VERSION = "0.1.0";

const [input, output] = process.argv.slice(2);
if (!output) {
  console.error("usage: node build.mjs plugin.js plugin.wasm");
  process.exit(64);
}
const source = readFileSync(input, "utf8");
const known = [...readFileSync(INTERFACE, "utf8").matchAll(/^interface ([a-z-]+) \{/gm)].map((match) => match[1]);

/** Writes the world of a plugin into a folder, as componentize-qjs wants it. */
function writeWorld(folder, imports, hooks) {
  mkdirSync(join(folder, "deps/tidegate"), { recursive: true });
  cpSync(INTERFACE, join(folder, "deps/tidegate/tidegate.wit"));
  const lines = [
    ...imports.map((name) => `  import tidegate:plugin/${name}@${VERSION};`),
    ...hooks.map((name) => `  export tidegate:plugin/${name}@${VERSION};`),
  ];
  writeFileSync(join(folder, "world.wit"), `package plugin:built;\n\nworld built {\n${lines.join("\n")}\n}\n`);
}

/** Adds the interfaces that are imported, in this file (`files`) or those that it imports by a relative path. */
function importsOf(file, files, found = new Set()) {
  if (files.has(file)) return found;
  files.add(file);
  const text = readFileSync(file, "utf8");
  for (const [, name] of text.matchAll(/\b(?:from|import)\s*\(?["']tidegate:plugin\/([a-z-]+)(?:@[\d.]+)?["']/g)) {
    if (!known.includes(name)) fail(`${file}: there is no interface tidegate:plugin/${name}`);
    found.add(name);
  }
  for (const [, path] of text.matchAll(/\b(?:from|import)\s*\(?["'](\.{1,2}\/[^"']+)["']/g)) {
    importsOf(resolve(dirname(file), path), files, found);
  }
  return found;
}

/** The hooks that the file exports: `export const onInbound = …`, `export { onInbound }`, `export class`. */
function hooksOf(text) {
  const names = new Set();
  const declared = /^\s*export\s+(?:const|let|var|function|class)\s+(on[A-Z]\w*)/gm;
  for (const [, name] of text.matchAll(declared)) names.add(name);
  for (const [, list] of text.matchAll(/^\s*export\s*\{([^}]*)\}/gm)) {
    for (const part of list.split(",")) {
      const name = part.trim().split(/\s+as\s+/).pop();
      if (/^on[A-Z]/.test(name)) names.add(name);
    }
  }
  const hooks = [...names].map((name) => name.replace(/[A-Z]/g, (letter) => "-" + letter.toLowerCase()));
  const unknown = hooks.filter((hook) => !known.includes(hook));
  if (unknown.length) fail(`${input}: there is no hook ${unknown.join(", ")}`);
  if (!hooks.length) fail(`${input} exports no hook: \`export const onInbound = { handle(session, message) { … } }\``);
  return hooks;
}

/** The folder that imports are resolved in: the deepest with all of the files, or where the packages are. */
function rootOf(files) {
  let root = dirname(resolve(input));
  while (![...files].every((file) => file.startsWith(root + sep))) root = dirname(root);
  for (let folder = root; ; folder = dirname(folder)) {
    if (existsSync(join(folder, "node_modules"))) return folder;
    if (folder === dirname(folder)) return root;
  }
}

function fail(why) {
  console.error(`error: ${why}`);
  process.exit(1);
}

/** componentize-qjs of the plugin's own project, or of the folder that this is run in. */
async function tool() {
  for (const base of [resolve(input), join(process.cwd(), "x")]) {
    try {
      const path = createRequire(base).resolve("componentize-qjs");
      const { default: whole, ...named } = await import(pathToFileURL(path));
      return named.componentize ?? whole.componentize;
    } catch (error) {
      if (error.code !== "MODULE_NOT_FOUND") throw error;
    }
  }
  fail("componentize-qjs is not installed: npm install --save-dev componentize-qjs");
}

const folder = mkdtempSync(join(tmpdir(), "tidegate-js-"));
try {
  const componentize = await tool();
  const files = new Set();
  writeWorld(folder, [...importsOf(resolve(input), files)], hooksOf(source));
  const { component } = await componentize({
    witPath: folder,
    world: "built",
    jsSource: source,
    jsPath: resolve(input),
    moduleRoot: rootOf(files),
    // Components of the synchronous kind that import nothing but the gateway.
    sync: true,
    stubWasi: true,
  });
  // A gateway that watches the folder sees the old file or the new.
  writeFileSync(`${output}.tmp`, component);
  renameSync(`${output}.tmp`, output);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
