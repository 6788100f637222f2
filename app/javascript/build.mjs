// Makes one component of all JavaScript workers of a project.
//
//   node build.mjs config.json
//
// The working directory is the folder to build in, with guest/ and wit/ beside
// this file. config.json: project (its folder, without symbolic links), workers
// (name → path of the source in it), tools (the folder whose node_modules has
// what package.json names), wit, output, confined (no file beside the project goes
// in), wws (whether the project is one of Wasm Workers Server). inputs.json then lists
// what went into the component. Errors are on stderr, `api/x.ts:3:7: error: …`, with a
// `hint: …`.

import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire, isBuiltin } from "node:module";
import { dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";

import { decoded, original } from "./guest/source_map.js";

const BUNDLE = "bundle.js";
const FORMS =
  "export default { fetch(request, env, ctx) { … } }, export default function (request, env, ctx) { … }, " +
  'or addEventListener("fetch", (event) => event.respondWith(…))';

/** What the user can mend: `message` is the report. */
class Failure extends Error {}

const config = JSON.parse(await readFile(process.argv[2], "utf8"));
const stage = process.cwd();

// ---- Bundle ----

async function bundle() {
  const { build } = createRequire(join(config.tools, "index.js"))("esbuild");
  const read = new Set(Object.values(config.workers).map((path) => join(config.project, path)));
  const settings = {
    absWorkingDir: config.project,
    stdin: { contents: 'import "wharf:entry";', sourcefile: "wharf:stdin" },
    outfile: join(config.project, BUNDLE),
    write: false,
    bundle: true,
    format: "esm",
    platform: "browser",
    // As Wrangler has them, less what is Cloudflare's own.
    conditions: ["worker", "browser"],
    mainFields: ["browser", "module", "main"],
    // What SpiderMonkey has; decorators and `using` it has not.
    target: "es2024",
    // It is built without Unicode's tables: see withoutProperties().
    supported: { "regexp-unicode-property-escapes": false },
    loader: { ".txt": "text", ".html": "text", ".sql": "text", ".md": "text", ".css": "text" },
    define: { "process.env.NODE_ENV": '"production"' },
    legalComments: "none",
    sourcemap: "external",
    sourcesContent: false,
    logLevel: "silent",
    plugins: [workers, nodeModules, { name: "inputs", setup: (hooks) => note(hooks, read) }],
  };
  try {
    const { outputFiles, warnings } = await build(settings);
    for (const warning of warnings.filter(({ location }) => !location?.file.includes("node_modules/"))) {
      process.stderr.write(`${line(warning, "warning")}\n`);
    }
    const [map, code] = ["map", "js"].map((ending) => outputFiles.find(({ path }) => path.endsWith(ending)).text);
    const { sources, mappings } = JSON.parse(map);
    // In a map they are addresses, where `[` is `%5B`.
    const small = { sources: sources.map(decodeURIComponent), mappings };
    const whole = withoutProperties(code).replace('"wharf:source-map"', () => JSON.stringify(small));
    return { code: whole, map: decoded(small) };
  } catch (error) {
    if (!error.errors) throw error;
    throw new Failure(report(error.errors));
  } finally {
    await writeFile("inputs.json", JSON.stringify(inputs(read)));
  }
}

/**
 * Spells out the characters of `\p{…}` in regular expressions. esbuild has
 * made `new RegExp("…", "u")` of those that were written as literals.
 */
function withoutProperties(code) {
  const rewrite = createRequire(join(config.tools, "index.js"))("regexpu-core");
  return code.replace(/new RegExp\(("(?:[^"\\]|\\.)*"), "(\w*[uv]\w*)"\)/g, (call, text, flags) => {
    if (!/\\[pP]\{/.test(text)) return call;
    try {
      const options = { unicodePropertyEscapes: "transform", unicodeSetsFlag: "transform" };
      const pattern = rewrite(JSON.parse(text), flags, { ...options, onNewFlags: (changed) => (flags = changed) });
      return `new RegExp(${JSON.stringify(pattern)}, "${flags}")`;
    } catch {
      // Not JSON, or malformed: it fails where it is used, with its line.
      return call;
    }
  });
}

/** Our own modules, and one for each worker that runs it between begin() and end(). */
const workers = {
  name: "workers",
  setup({ onResolve, onLoad }) {
    const list = Object.entries(config.workers);
    const ours = { namespace: "wharf" };
    onResolve({ filter: /^wharf:entry$/ }, () => ({ path: "entry", ...ours }));
    onResolve({ filter: /^wharf:/, ...ours }, ({ path }) => ({ path: path.slice("wharf:".length), ...ours }));
    onResolve({ filter: /^\.\//, ...ours }, ({ path }) => ({ path: path.slice(2), ...ours }));
    onResolve({ filter: /^wasi:/, ...ours }, ({ path }) => ({ path, external: true }));
    onLoad({ filter: /^entry$/, ...ours }, () => ({
      contents: list.map((_, index) => `import "wharf:worker/${index}";`).join("\n"),
    }));
    onLoad({ filter: /^begin\//, ...ours }, ({ path }) => {
      const [name, source] = list[path.split("/")[1]].map((text) => JSON.stringify(text));
      return { contents: `import { begin } from "wharf:dispatch.js"; begin(${name}, ${source}, ${config.wws});` };
    });
    onLoad({ filter: /^worker\//, ...ours }, ({ path }) => {
      const index = path.split("/")[1];
      const source = JSON.stringify(join(config.project, list[index][1]));
      // A namespace: what it lacks is undefined, and no error of esbuild's.
      const contents = `import "wharf:begin/${index}"; import * as module from ${source};
        import { end } from "wharf:dispatch.js"; end(module);`;
      return { contents, resolveDir: config.project };
    });
    onLoad({ filter: /\.js$/, ...ours }, async ({ path }) => ({
      contents: await readFile(join(stage, "guest", path), "utf8"),
    }));
  },
};

/** `node:events` is the package `events`, where the project has it. */
const nodeModules = {
  name: "node-modules",
  setup({ onResolve, resolve: find }) {
    onResolve({ filter: /^node:/ }, async ({ path, kind, importer, resolveDir }) => {
      // With the slash it is a package, even where Node has a module of that name.
      const found = await find(`${path.slice("node:".length)}/`, { kind, importer, resolveDir });
      return found.errors.length === 0 ? { path: found.path } : undefined;
    });
  },
};

function note({ onLoad }, read) {
  onLoad({ filter: /.*/, namespace: "file" }, ({ path }) => {
    // A project from elsewhere: what it reads would be in what is served.
    if (config.confined && relative(config.project, path).startsWith("..")) {
      return { errors: [{ text: `cannot import ${path}: expected a file of the project, which is from elsewhere` }] };
    }
    read.add(path);
    return undefined;
  });
}

/** What of the project the component depends on: files that were read, and those of settings, there or not. */
function inputs(read) {
  const names = (paths) => [...paths].map((path) => relative(config.project, path)).sort();
  const settings = new Set();
  for (const path of read) {
    for (let folder = dirname(path); folder.startsWith(config.project); folder = dirname(folder)) {
      settings.add(join(folder, "package.json"));
      settings.add(join(folder, "tsconfig.json"));
    }
  }
  const found = [...settings].filter((path) => existsSync(path));
  const missing = [...settings].filter((path) => !found.includes(path) && !path.includes("node_modules"));
  return { files: names([...read, ...found]), absent: names(missing) };
}

// ---- Errors of the bundler ----

function report(errors) {
  const hint = errors.map(advice).find((text) => text);
  return [...errors.map((error) => line(error, "error")), ...(hint ? [`hint: ${hint}`] : [])].join("\n");
}

function line({ text, location }, severity) {
  const place = location ? `${location.file}:${location.line}:${location.column + 1}: ` : "";
  return `${place}${severity}: ${words(text)}`;
}

/** The import that could not be resolved. */
const unresolved = (text) => /^Could not resolve "(.*)"/.exec(text)?.[1];
const loader = (text) => /^No loader is configured for "(.*)" files: (.*)/.exec(text);

function words(text) {
  const name = unresolved(text);
  if (name && isBuiltin(name)) {
    return `cannot import "${name}": it is a module of Node.js, and a worker runs in WebAssembly without Node.js`;
  }
  if (name) return `cannot find ${/^[./]/.test(name) ? "file" : "package"} "${name}"`;
  const [, ending, path] = loader(text) ?? [];
  if (ending === ".node") return `cannot import ${path}: it is a program for Node.js, and not WebAssembly`;
  if (ending) return `cannot import ${path}: expected JavaScript, TypeScript, JSON or text`;
  return text[0].toLowerCase() + text.slice(1);
}

/** Node's modules of which npm has a package for browsers under the same name. */
const PACKAGES = ["assert", "buffer", "events", "path", "process", "punycode", "querystring", "string_decoder", "url", "util"];

function advice({ text }) {
  const name = unresolved(text)?.replace(/^node:/, "");
  if (!name || /^[./]/.test(name)) return undefined;
  const [scope, rest] = name.split("/");
  if (isBuiltin(name) && !PACKAGES.includes(name)) {
    return "use what the web has instead (fetch, crypto, streams), or an npm package for browsers";
  }
  return `npm install ${scope.startsWith("@") ? `${scope}/${rest}` : scope}`;
}

// ---- Component ----

async function component(map) {
  const tool = join(config.tools, "node_modules/@bytecodealliance/componentize-js/src/componentize.js");
  // It makes its own folder in the one for temporary files, by a random name.
  process.env.TMPDIR = stage;
  const { componentize } = await import(pathToFileURL(tool));
  try {
    const made = await componentize({ sourcePath: BUNDLE, sourceName: BUNDLE, witPath: config.wit, worldName: "worker" });
    return withoutPath(Buffer.from(made.component));
  } catch (error) {
    throw new Failure(initialisation(error.message, map));
  }
}

/** What the engine says of code that fails when it is first run. */
function initialisation(message, map) {
  const places = [...message.matchAll(/bundle\.js:(\d+):(\d+)/g)]
    .map(([, line, column]) => original(map, Number(line), Number(column)))
    .filter((at) => at && !at.source.startsWith("wharf:"));
  const text = /^(?:bundle\.js:\d+:\d+|uncaught exception:) (.*)$/m.exec(message)?.[1];
  // A trap, which knows no line; its cause is the last.
  const cause = message.match(/(?<=^ +\d+: )(?!0x).*$/gm)?.at(-1) ?? message;
  if (!text) return `error: cannot run the workers for the first time: ${cause}`;
  const missing = /^NoHandler: (.*)$/.exec(text)?.[1];
  if (missing) return `${missing}:1:1: error: no handler found: expected ${FORMS}`;
  const place = places[0] ? `${places[0].source}:${places[0].line}:${places[0].column}: ` : "";
  return `${place}error: ${text}\nhint: the top level runs when the worker is built, without environment variables, stores and network: use them in the handler`;
}

/** The folder's path is of no use in the component, and nobody's business. */
function withoutPath(component) {
  const path = Buffer.from(stage.slice(1));
  for (let at = component.indexOf(path); at >= 0; at = component.indexOf(path, at)) {
    component.fill("-", at, at + path.length);
  }
  return component;
}

try {
  const { code, map } = await bundle();
  await writeFile(BUNDLE, code);
  await writeFile(config.output, await component(map));
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
