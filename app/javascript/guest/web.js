// What the engine lacks of the web, as far as it is small and certain.

// While the component is built there are no clock and no random numbers: the
// engine would trap. Packages ask for them at the top level all the same.
export let building = true;

const nativeNow = performance.now;
performance.now = function now() {
  return building ? 0 : nativeNow.call(performance);
};

const nativeRandom = Math.random;
let last = 1234567891;
Math.random = function random() {
  if (!building) return nativeRandom();
  // As good as any for what all requests share (Park and Miller, 1988).
  last = (last * 48271) % 0x7fffffff;
  return last / 0x7fffffff;
};

/** A request has come: clock and random numbers are the host's. */
export function built() {
  building = false;
}

globalThis.TextDecoderStream ??= class TextDecoderStream {
  constructor(label, options) {
    const decoder = new TextDecoder(label, options);
    const pass = (controller, text) => text && controller.enqueue(text);
    const { readable, writable } = new TransformStream({
      transform: (chunk, controller) => pass(controller, decoder.decode(chunk, { stream: true })),
      flush: (controller) => pass(controller, decoder.decode()),
    });
    Object.assign(this, { readable, writable, encoding: decoder.encoding });
  }
};

globalThis.TextEncoderStream ??= class TextEncoderStream {
  constructor() {
    const encoder = new TextEncoder();
    // The first half of a character whose other half is in the next chunk.
    let half = "";
    const { readable, writable } = new TransformStream({
      transform(chunk, controller) {
        const text = half + chunk;
        half = /[\ud800-\udbff]$/.exec(text)?.[0] ?? "";
        if (text.length > half.length) controller.enqueue(encoder.encode(text.slice(0, text.length - half.length)));
      },
      flush: (controller) => half && controller.enqueue(encoder.encode(half)),
    });
    Object.assign(this, { readable, writable, encoding: "utf-8" });
  }
};
