// Key-value stores (wasi:keyvalue), as Cloudflare's KV has them, and as the
// Cache of Wasm Workers Server.

import { open } from "wasi:keyvalue/store@0.2.0-draft";
import { increment } from "wasi:keyvalue/atomics@0.2.0-draft";

const DEFAULT = "default";

/** The store that is granted under `name`, if one is. */
export function binding(name) {
  try {
    return new KV(name, open(name));
  } catch {
    // Whoever asks for it is told how it is granted.
    return name === "KV" ? new KV(DEFAULT) : undefined;
  }
}

class KV {
  #name;
  #bucket;

  constructor(name, bucket) {
    this.#name = name;
    this.#bucket = bucket;
  }

  #use(operation) {
    return use(this.#name, this.#bucket, operation);
  }

  async get(key, options) {
    if (Array.isArray(key)) {
      const values = await Promise.all(key.map((one) => this.get(one, options)));
      return new Map(key.map((one, at) => [one, values[at]]));
    }
    const bytes = this.#use((bucket) => bucket.get(String(key)));
    const type = typeof options === "string" ? options : (options?.type ?? "text");
    return bytes === undefined ? null : decoded(bytes, type);
  }

  async getWithMetadata(key, options) {
    return { value: await this.get(key, options), metadata: null, cacheStatus: null };
  }

  async put(key, value, options = {}) {
    for (const name of ["expiration", "expirationTtl", "metadata"]) {
      if (options[name] != null) {
        throw new Error(`cannot put ${JSON.stringify(key)}: key-value stores have no ${name}`);
      }
    }
    const bytes = await new Response(value).arrayBuffer();
    this.#use((bucket) => bucket.set(String(key), new Uint8Array(bytes)));
  }

  async delete(key) {
    this.#use((bucket) => bucket.delete(String(key)));
  }

  /** Adds to a number, atomically; the new value. Not part of Cloudflare's. */
  async increment(key, delta = 1) {
    return Number(this.#use((bucket) => increment(bucket, String(key), BigInt(delta))));
  }

  /** The names in order. A cursor is the last name of the page before. */
  async list({ prefix = "", limit = 1000, cursor } = {}) {
    const names = this.#use(allKeys).filter((name) => name.startsWith(prefix) && (!cursor || name > cursor));
    const page = names.sort().slice(0, limit);
    const keys = page.map((name) => ({ name }));
    return page.length < names.length
      ? { keys, list_complete: false, cursor: page.at(-1), cacheStatus: null }
      : { keys, list_complete: true, cacheStatus: null };
  }
}

/** What `operation` makes of the store. */
function use(name, bucket, operation) {
  try {
    return operation(bucket ?? open(name));
  } catch (error) {
    throw failure(name, error);
  }
}

function allKeys(bucket) {
  const found = new Set();
  let cursor;
  do {
    const page = bucket.listKeys(cursor);
    page.keys.forEach((key) => found.add(key));
    cursor = page.cursor;
  } while (cursor !== undefined);
  return [...found];
}

function decoded(bytes, type) {
  switch (type) {
    case "text":
      return new TextDecoder().decode(bytes);
    case "json":
      return JSON.parse(new TextDecoder().decode(bytes));
    case "arrayBuffer":
      return new Uint8Array(bytes).buffer;
    case "stream":
      return new Response(bytes).body;
    default:
      throw new TypeError(`malformed type ${JSON.stringify(type)}: expected text, json, arrayBuffer or stream`);
  }
}

/** The host's refusal in words; any other error as it is. */
function failure(store, error) {
  const refusal = error?.payload;
  if (refusal?.tag === undefined) return error;
  const words =
    refusal.tag === "other" ? refusal.val : `expected it in wharf.toml, kv = { ${store} = "/data/kv" } of the worker`;
  return new Error(`cannot use key-value store ${JSON.stringify(store)}: ${words}`);
}

// What is no string: its JSON, behind a sign that no text of a user begins with.
const JSON_SIGN = "\0json:";

// What a worker without a store keeps during a request.
const kept = new Map();

/** Before each request. */
export function forget() {
  kept.clear();
}

/** The default store; none if the worker is granted none. */
function granted() {
  try {
    return open(DEFAULT);
  } catch (error) {
    if (error?.payload?.tag === "access-denied" || error?.payload?.tag === "no-such-store") return undefined;
    throw failure(DEFAULT, error);
  }
}

/** The store of Wasm Workers Server, which waits for nothing. Without a grant it is empty at each request. */
export const Cache = {
  get(key) {
    const bucket = granted();
    const bytes = bucket ? use(DEFAULT, bucket, () => bucket.get(String(key))) : kept.get(String(key));
    if (bytes === undefined) return undefined;
    const text = new TextDecoder().decode(bytes);
    return text.startsWith(JSON_SIGN) ? JSON.parse(text.slice(JSON_SIGN.length)) : text;
  },
  set(key, value) {
    // A stream: the body of a request there, see requestOfText() in dispatch.js.
    const plain = typeof value === "string" || value instanceof ReadableStream;
    const text = plain ? String(value) : JSON_SIGN + JSON.stringify(value);
    const bytes = new TextEncoder().encode(text);
    const bucket = granted();
    if (bucket) use(DEFAULT, bucket, () => bucket.set(String(key), bytes));
    else kept.set(String(key), bytes);
  },
};
