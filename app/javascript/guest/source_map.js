// Positions in the bundle as positions in the user's files (ECMA-426).

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Every line of `mappings` as a list of [column, source, line, column], counted from 0. */
function decode(mappings) {
  let source = 0;
  let line = 0;
  let column = 0;
  return mappings.split(";").map((text) => {
    let generated = 0;
    return text.split(",").flatMap((segment) => {
      const [step, ...at] = numbers(segment);
      generated += step ?? 0;
      if (at.length < 3) return [];
      source += at[0];
      line += at[1];
      column += at[2];
      return [[generated, source, line, column]];
    });
  });
}

/** The numbers of a segment: base 64, least first, the lowest bit the sign. */
function numbers(segment) {
  const found = [];
  let value = 0;
  let shift = 0;
  for (const digit of segment) {
    const bits = DIGITS.indexOf(digit);
    value += (bits & 31) << shift;
    shift += 5;
    if (bits < 32) {
      found.push(value & 1 ? -(value >>> 1) : value >>> 1);
      value = shift = 0;
    }
  }
  return found;
}

/** Where line `line`, column `column` (both from 1) is from: { source, line, column } (from 1), if known. */
export function original({ sources, lines }, line, column) {
  const at = lines[line - 1]?.findLast(([start]) => start <= column - 1);
  return at && { source: sources[at[1]], line: at[2] + 1, column: at[3] + 1 };
}

/** A map with its mappings decoded. */
export function decoded({ sources, mappings }) {
  return { sources, lines: decode(mappings) };
}

/** `stack` as SpiderMonkey has it, in the user's files; without the frames that are in none. */
export function positions(stack, map) {
  const known = decoded(map);
  const frames = stack.split("\n").flatMap((frame) => {
    const [, name, line, column] = /^(.*)@.*:(\d+):(\d+)$/.exec(frame) ?? [];
    const at = line && original(known, Number(line), Number(column));
    if (!at || at.source.startsWith("wharf:")) return [];
    const where = `${at.source}:${at.line}:${at.column}`;
    return [name ? `    at ${name} (${where})\n` : `    at ${where}\n`];
  });
  return frames.join("");
}
