// SQLite with a database file in the origin private file system (OPFS). It lives in a
// worker, since a page may not wait for a file.
import sqlite3InitModule from './vendor/index.mjs';

const FILE = '/notes.sqlite3';

async function open() {
  const sqlite3 = await sqlite3InitModule();
  if (!sqlite3.oo1.OpfsDb) {
    throw new Error(`no OPFS: the page is ${globalThis.crossOriginIsolated ? '' : 'not '}isolated`);
  }
  const database = new sqlite3.oo1.OpfsDb(FILE);
  database.exec('create table if not exists note (text, written default current_timestamp)');
  return { sqlite3, database };
}
const opened = open();

onmessage = async ({ data }) => {
  try {
    const { sqlite3, database } = await opened;
    if (data.text) database.exec({ sql: 'insert into note (text) values (?)', bind: [data.text] });
    postMessage({
      version: sqlite3.version.libVersion,
      file: database.dbFilename(),
      vfs: database.dbVfsName(),
      notes: database.selectObjects('select text, written from note order by rowid'),
    });
  } catch (error) {
    postMessage({ error: error.message });
  }
};
