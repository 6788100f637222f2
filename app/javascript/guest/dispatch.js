// All JavaScript workers of a project as one component of wasi:http.
//
// build.mjs bundles this file with the workers. What is at the top level runs
// once, when the component is built, and its result is part of the component;
// every request gets a fresh copy of that.

import { exit } from "wasi:cli/exit@0.2.10";
import { environment } from "./environment.js";
import "./form_data.js";
import { Cache, binding, forget } from "./kv.js";
import { positions } from "./source_map.js";
import { built } from "./web.js";

// build.mjs puts the map of the finished bundle here.
const SOURCE_MAP = "wharf:source-map";

const INTERNAL_ERROR = "500 Internal Server Error\n";

/** The workers by name: { path, isWws, fetch, listeners }. */
const workers = new Map();

/** The worker whose modules run now; none once requests come. */
let loading;

/** Before the modules of a worker run, which is perhaps one of Wasm Workers Server. */
export function begin(name, path, isWws) {
  loading = { path, isWws, listeners: [] };
  workers.set(name, loading);
}

/** After they have run: `module` has the worker's exports. */
export function end(module) {
  const worker = loading;
  const given = module.default;
  if (typeof given?.fetch === "function") {
    worker.fetch = (request, env, ctx) => given.fetch(request, env, ctx);
  } else if (typeof given === "function") {
    worker.fetch = given;
  } else if (worker.listeners.length === 0) {
    throw new NoHandler(worker.path);
  }
  loading = undefined;
}

class NoHandler extends Error {
  name = "NoHandler";
}

// ---- The global object, before any worker sees it ----

const listen = globalThis.addEventListener;

// The workers share one global object. That of a "fetch" listener is told by
// whose modules run, and not by whose file has the call: a library may make it
// for its caller, as Hono's fire() does.
globalThis.addEventListener = function addEventListener(type, listener, options) {
  if (type !== "fetch") return listen.call(globalThis, type, listener, options);
  if (!loading) throw new Error('addEventListener("fetch", …) in a handler: expected it at the top level');
  loading.listeners.push(listener);
};

/** Refuses what has no meaning when the component is built, or is a secret that all requests would share. */
function onlyInHandlers(object, name, label) {
  const native = object[name];
  object[name] = function (...values) {
    if (loading) {
      throw new Error(`${label} at the top level, which runs when the worker is built: call it in the handler`);
    }
    return native.apply(this === undefined ? globalThis : this, values);
  };
}
onlyInHandlers(globalThis, "fetch", "fetch()");
onlyInHandlers(globalThis, "setTimeout", "setTimeout()");
onlyInHandlers(globalThis, "setInterval", "setInterval()");
onlyInHandlers(Crypto.prototype, "getRandomValues", "crypto.getRandomValues()");
onlyInHandlers(Crypto.prototype, "randomUUID", "crypto.randomUUID()");

// Stacks tell the user's files and lines, wherever they are printed.
const nativeStack = Object.getOwnPropertyDescriptor(Error.prototype, "stack");
Object.defineProperty(Error.prototype, "stack", {
  ...nativeStack,
  get() {
    const stack = nativeStack.get.call(this);
    return typeof stack === "string" && !loading ? positions(stack, SOURCE_MAP) : stack;
  },
});

for (const name of ["debug", "error", "info", "log", "trace", "warn"]) {
  const native = console[name];
  console[name] = (...values) => native(...values.map((value) => (value instanceof Error ? describe(value) : value)));
}

// Node's, as far as packages for browsers look at it.
globalThis.process ??= { env: environment() };

// The key-value store of Wasm Workers Server.
globalThis.Cache = Cache;
onlyInHandlers(Cache, "get", "Cache.get()");
onlyInHandlers(Cache, "set", "Cache.set()");

// ---- A request ----

listen.call(globalThis, "fetch", (event) => event.respondWith(answer(event)));

async function answer(event) {
  built();
  forget();
  const name = decodeURIComponent(event.request.headers.get("wharf-worker") ?? "");
  const worker = workers.get(name) ?? (workers.size === 1 ? workers.values().next().value : undefined);
  if (!worker) return text("no such worker\n", 404);
  try {
    if (loading) throw new Error(`${loading.path}: the top level has not ended: it awaits what never comes`);
    const waitUntil = (promise) => event.waitUntil(Promise.resolve(promise).catch(report));
    const response = worker.fetch
      ? await callHandler(worker, event.request, waitUntil)
      : await callListeners(worker, event.request, waitUntil);
    if (!(response instanceof Response)) {
      throw new TypeError(`${worker.path}: the handler gave ${kind(response)}: expected a Response`);
    }
    return response.body ? new Response(whole(response.body), response) : response;
  } catch (error) {
    report(error);
    return text(INTERNAL_ERROR, 500);
  }
}

async function callHandler(worker, incoming, waitUntil) {
  const request = worker.isWws ? await requestOfText(incoming) : userRequest(incoming, incoming.body);
  const ctx = { params: request.params, waitUntil, passThroughOnException() {} };
  const response = await worker.fetch(request, environment(binding), ctx);
  return worker.isWws ? asHtml(response) : response;
}

/** Calls the listeners of a worker, as Wasm Workers Server does, and service workers. */
async function callListeners(worker, incoming, waitUntil) {
  // Both have their variables as global constants.
  for (const [name, value] of Object.entries(process.env)) {
    if (!(name in globalThis)) globalThis[name] = value;
  }
  let response;
  const event = {
    type: "fetch",
    request: await requestOfText(incoming),
    waitUntil,
    passThroughOnException() {},
    respondWith(given) {
      if (response) throw new Error("event.respondWith() was called twice");
      response = Promise.resolve(given);
    },
  };
  for (const listener of worker.listeners) {
    listener.handleEvent ? listener.handleEvent(event) : listener(event);
    if (response) return asHtml(await response);
  }
  throw new TypeError(`${worker.path}: no listener of "fetch" called event.respondWith()`);
}

/** The request without what the host tells us, and with the parameters of the route. */
function userRequest({ url, method, headers }, body) {
  // Not `new Request(incoming, …)`: with a body, the engine traps at it.
  const request = new Request(url, { method, headers, body });
  const params = request.headers.get("wharf-params");
  request.headers.delete("wharf-worker");
  request.headers.delete("wharf-params");
  request.params = params === null ? {} : Object.fromEntries(new URLSearchParams(params));
  return request;
}

/** The body is a string in Wasm Workers Server: here it is a stream that can be used as one. */
async function requestOfText(incoming) {
  const bytes = incoming.body && (await incoming.arrayBuffer());
  if (!bytes?.byteLength) return userRequest(incoming, null);
  const content = new TextDecoder().decode(bytes);
  const request = userRequest(incoming, bytes);
  const body = Object.assign(request.body, { toString: () => content });
  return Object.defineProperty(request, "body", { value: body, configurable: true });
}

/** There, text without a content-type is HTML: here it is if it begins as a document of it. */
async function asHtml(response) {
  // What a Response of a string gets if the user sets no other, in this very form.
  if (response?.headers?.get("content-type") !== "text/plain;charset=UTF-8") return response;
  const content = await response.text();
  const headers = new Headers(response.headers);
  if (/^\s*<(!doctype )?html/i.test(content)) headers.set("content-type", "text/html;charset=UTF-8");
  return new Response(content, { status: response.status, statusText: response.statusText, headers });
}

/**
 * `body`, which traps if it fails: the engine would only warn and end the
 * response as if it were whole. The host then breaks off the connection.
 */
function whole(body) {
  const reader = body.getReader();
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) return controller.close();
        if (!(value instanceof Uint8Array)) {
          throw new TypeError(`the body of a response gave ${kind(value)}: expected a Uint8Array`);
        }
        controller.enqueue(value);
      } catch (error) {
        report(error);
        exit({ tag: "err" });
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
}

function text(content, status) {
  return new Response(content, { status, headers: { "content-type": "text/plain; charset=utf-8" } });
}

function kind(value) {
  if (value === null || value === undefined) return String(value);
  return typeof value === "object" ? `an object (${value.constructor?.name ?? "no class"})` : `a ${typeof value}`;
}

function report(error) {
  console.error(error instanceof Error ? error : `uncaught: ${String(error)}`);
}

/** An error as Node prints it: what, where, and its causes. */
function describe(error) {
  const cause = error.cause instanceof Error ? `\ncaused by: ${describe(error.cause)}` : "";
  return `${error.name}: ${error.message}\n${error.stack}`.trimEnd() + cause;
}
