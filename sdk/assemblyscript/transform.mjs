// Makes hooks of the functions that a plugin's main file exports: asc --transform tidegate/transform
//
// AssemblyScript cannot spell the names under which the gateway looks for hooks, and knows nothing of the canonical ABI.
// So a file is added which takes each call apart (assembly/hooks.ts) and is exported under the hook's name.
import { CommonFlags, NodeKind, SourceKind } from "assemblyscript";
import { Transform } from "assemblyscript/transform";

// The exported function → interface, function, parameters as the canonical ABI flattens them.
const HOOKS = {
  init: ["on-init", "handle", ""],
  authenticate: ["on-authenticate", "handle", "session: u64"],
  opened: ["on-session", "opened", "session: u64"],
  closed: ["on-session", "closed", "session: u64, code: i32, reason: usize, reasonLength: usize, by: i32"],
  inbound: ["on-inbound", "handle", "session: u64, kind: i32, data: usize, length: usize"],
  publication: ["on-publication", "handle",
    "publication: u64, topic: usize, topicLength: usize, kind: i32, data: usize, length: usize"],
  broadcast: ["on-broadcast", "handle",
    "publication: u64, topic: usize, topicLength: usize, kind: i32, data: usize, length: usize"],
  outbound: ["on-outbound", "handle",
    "session: u64, published: i32, publication: u64, kind: i32, data: usize, length: usize"],
  subscription: ["on-subscription", "handle",
    "session: u64, topic: usize, topicLength: usize, event: i32, positioned: i32, epoch: u64, offset: u64"],
  timer: ["on-timer", "handle", "session: u64, name: usize, nameLength: usize"],
  reply: ["on-reply", "handle",
    "session: u64, tag: usize, tagLength: usize, failed: i32, status: i32, kind: i32, data: usize, length: usize"],
  presence: ["on-presence", "handle",
    "topic: usize, topicLength: usize, event: i32, id: usize, idLength: usize, known: i32, user: usize, " +
    "userLength: usize, info: usize, infoLength: usize, sessions: u32"],
};

export default class extends Transform {
  afterParse(parser) {
    // The runtime is an entry as well.
    const isMain = (source) => source.sourceKind === SourceKind.UserEntry && !source.normalizedPath.startsWith("~lib/");
    const main = parser.sources.find(isMain);
    const exported = main.statements
      .filter((statement) => statement.kind === NodeKind.FunctionDeclaration && statement.is(CommonFlags.Export))
      .map((statement) => statement.name.text);
    const written = exported.filter((name) => name in HOOKS);
    if (!written.length) throw new Error(`${main.normalizedPath} exports no hook: ${Object.keys(HOOKS).join(", ")}`);
    // The gateway calls both or neither.
    const opens = written.includes("opened"), closes = written.includes("closed");
    const missing = opens && !closes ? ["closed"] : closes && !opens ? ["opened"] : [];

    const glue = (name) => {
      const parameters = HOOKS[name][2];
      const names = parameters.split(", ").filter(Boolean).map((parameter) => parameter.split(":")[0]);
      const hook = missing.includes(name) ? `hooks.no_${name}` : `plugin.${name}`;
      return `export function ${name}(${parameters}): usize { return hooks.${name}(${[hook, ...names].join(", ")}); }`;
    };
    this.hooks = [...written, ...missing];
    this.path = main.normalizedPath.replace(/[^/]*$/, "tidegate-hooks");
    parser.parseFile(
      [
        `import * as plugin from "./${main.normalizedPath.split("/").pop().replace(/\.ts$/, "")}";`,
        `import { hooks } from "tidegate";`,
        `export { cabi_realloc } from "tidegate";`,
        ...this.hooks.map(glue),
      ].join("\n"),
      this.path + ".ts",
      true,
    );
    main.sourceKind = SourceKind.User;
  }

  afterCompile(module) {
    for (const name of this.hooks) {
      const [hook, handle] = HOOKS[name];
      module.addFunctionExport(`${this.path}/${name}`, `tidegate:plugin/${hook}@0.1.0#${handle}`);
      module.removeExport(name);
    }
  }
}
