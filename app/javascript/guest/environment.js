// The environment variables of a worker. The host is asked once somebody looks:
// it takes longer than all else that is done for a small request.

import { getEnvironment } from "wasi:cli/environment@0.2.10";
import { building } from "./web.js";

/** The variables, and what `further` gives for other names. */
export function environment(further = () => undefined) {
  const variables = {};
  let known = false;
  const load = () => {
    if (!known && !building) {
      Object.assign(variables, Object.fromEntries(getEnvironment()));
      known = true;
    }
    return variables;
  };
  const find = (name) => load()[name] ?? (typeof name === "string" ? further(name) : undefined);
  return new Proxy(variables, {
    get: (_, name) => find(name),
    has: (_, name) => find(name) !== undefined,
    ownKeys: () => Reflect.ownKeys(load()),
    getOwnPropertyDescriptor: (_, name) => Reflect.getOwnPropertyDescriptor(load(), name),
  });
}
