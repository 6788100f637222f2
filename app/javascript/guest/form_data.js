// `formData()` of multipart bodies. The engine's own reads files as if they were text, so
// that others come out, and takes seconds for a megabyte.

for (const { prototype } of [Request, Response]) {
  const own = prototype.formData;
  prototype.formData = async function formData() {
    const type = this.headers.get("content-type") ?? "";
    if (!/^\s*multipart\/form-data\s*(;|$)/i.test(type)) return own.call(this);
    const [, quoted, plain] = /;\s*boundary=(?:"([^"]*)"|([^\s;]+))/i.exec(type) ?? fail("content-type has no boundary");
    return parse(new Uint8Array(await this.arrayBuffer()), quoted ?? plain);
  };
  prototype.bytes ??= async function bytes() {
    return new Uint8Array(await this.arrayBuffer());
  };
}

function fail(reason) {
  throw new TypeError(`cannot read the form: ${reason}`);
}

/** RFC 7578, as browsers write it (HTML, "multipart/form-data encoding algorithm"). */
function parse(bytes, boundary) {
  // A character for each byte, so that places in one are places in the other.
  const text = new TextDecoder("latin1").decode(bytes);
  const form = new FormData();
  const delimiter = `\r\n--${boundary}`;
  // The first one needs no line before it.
  let at = text.startsWith(delimiter.slice(2)) ? -2 : text.indexOf(delimiter);
  if (at === -1) fail("the body does not begin with the boundary");
  for (;;) {
    at += delimiter.length;
    if (text.startsWith("--", at)) return form;
    while (text[at] === " " || text[at] === "\t") at += 1;
    if (!text.startsWith("\r\n", at)) fail("a boundary is not followed by a line break");
    const head = text.indexOf("\r\n\r\n", at);
    const start = head + 4;
    const end = head < 0 ? -1 : text.indexOf(delimiter, start);
    if (end < 0) fail("the body ends in the middle of a part");
    append(form, decode(bytes.subarray(at, head)), bytes.subarray(start, end));
    at = end;
  }
}

function append(form, head, content) {
  const disposition = /\r\ncontent-disposition:\s*form-data\s*(;[^\r\n]*)/i.exec(head)?.[1] ?? "";
  const name = parameter(disposition, "name") ?? fail("a part has no name");
  const file = parameter(disposition, "filename");
  if (file === undefined) return form.append(name, decode(content));
  const type = /\r\ncontent-type:[ \t]*([^\r\n]*)/i.exec(head)?.[1].trim() ?? "text/plain";
  return form.append(name, new File([content], file, { type }));
}

function parameter(disposition, name) {
  const [, quoted, plain] = new RegExp(`;\\s*${name}=(?:"([^"]*)"|([^\\s;"]+))`, "i").exec(disposition) ?? [];
  const escapes = { "%0A": "\n", "%0D": "\r", "%22": '"' };
  return (quoted ?? plain)?.replace(/%0A|%0D|%22/g, (escape) => escapes[escape]);
}

function decode(bytes) {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}
