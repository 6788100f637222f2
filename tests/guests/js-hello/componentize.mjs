// Makes a component of a module with a fetch handler.
//
//   node componentize.mjs SOURCE WIT-FOLDER OUTPUT
import { componentize } from '@bytecodealliance/componentize-js';
import { readFile, writeFile } from 'node:fs/promises';

const [source, witPath, output] = process.argv.slice(2);
const { component } = await componentize(await readFile(source, 'utf8'), {
  sourceName: source,
  witPath,
  worldName: 'worker',
});
await writeFile(output, component);
