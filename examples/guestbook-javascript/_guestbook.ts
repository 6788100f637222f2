// What an entry is, and where entries, visits and files are kept.
//
// All is in the key-value store `default` (env.KV), which wharf.toml grants each worker:
// `entries` and `visits` are counters, `entry/1` and `file/NAME` the rest.

export interface Env {
  KV: Store;
}

/** What the workers use of a store: Cloudflare's KV, and `increment`. */
export interface Store {
  get(key: string): Promise<string | null>;
  get(key: string, type: "arrayBuffer"): Promise<ArrayBuffer | null>;
  get<T>(key: string, type: "json"): Promise<T | null>;
  get<T>(keys: string[], type: "json"): Promise<Map<string, T | null>>;
  put(key: string, value: string | ArrayBuffer): Promise<void>;
  increment(key: string, delta?: number): Promise<number>;
}

/** What a worker is given beside the request: the parameters of its route. */
export interface Context {
  params: Record<string, string>;
}

export interface Entry {
  id: number;
  name: string;
  text: string;
}

/** No entry can be made of what was sent; the message says why. */
export class Invalid extends Error {}

/** Adds an entry of the texts `name` and `text` in `fields`. */
export async function sign(kv: Store, fields: Record<string, unknown>): Promise<Entry> {
  const name = checked(fields, "name", 100);
  const text = checked(fields, "text", 1000);
  // No two requests get the same number: the store counts in one step.
  const id = await kv.increment("entries");
  const entry = { id, name, text };
  await kv.put(`entry/${id}`, JSON.stringify(entry));
  return entry;
}

/** All entries, oldest first. */
export async function entries(kv: Store): Promise<Entry[]> {
  const last = Number(await kv.get("entries"));
  const keys = Array.from({ length: last }, (_, index) => `entry/${index + 1}`);
  const found = await kv.get<Entry>(keys, "json");
  // One that is being added has its number before it is there.
  return [...found.values()].filter((entry) => entry !== null);
}

/** The entry of that id, if there is one. */
export async function entry(kv: Store, id: string): Promise<Entry | null> {
  return /^[1-9][0-9]{0,15}$/.test(id) ? kv.get<Entry>(`entry/${id}`, "json") : null;
}

/** What a request of another method is answered. */
export function notAllowed(allow: string): Response {
  return new Response("method not allowed\n", { status: 405, headers: { allow } });
}

function checked(fields: Record<string, unknown>, field: string, most: number): string {
  const value = fields[field];
  const text = typeof value === "string" ? value.trim().toWellFormed() : "";
  if (text === "") throw new Invalid(`${field}: expected a text`);
  // By characters: `length` counts those beyond U+FFFF twice.
  if ([...text].length > most) throw new Invalid(`${field}: expected at most ${most} characters`);
  return text;
}
