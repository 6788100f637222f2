// PostgreSQL in the page, with its data folder in IndexedDB.
import { PGlite } from './vendor/index.js';

const element = (id) => document.getElementById(id);

function row(tag, values) {
  const row = document.createElement('tr');
  for (const value of values) {
    const cell = document.createElement(tag);
    cell.textContent = value === null ? 'NULL' : typeof value === 'object' ? JSON.stringify(value) : value;
    row.append(cell);
  }
  return row;
}

let database;
try {
  database = await PGlite.create('idb://wharf');
  const { rows } = await database.query('show server_version');
  element('state').textContent = `PostgreSQL ${rows[0].server_version} is ready.`;
  element('run').disabled = false;
} catch (error) {
  element('state').textContent = `Cannot start PostgreSQL: ${error.message}`;
}

document.forms[0].onsubmit = async (event) => {
  event.preventDefault();
  element('error').textContent = '';
  element('rows').replaceChildren();
  element('run').disabled = true;
  try {
    const results = await database.exec(element('sql').value);
    const { fields, rows, affectedRows } = results.at(-1) ?? { fields: [], rows: [] };
    element('rows').append(
      row('th', fields.map(({ name }) => name)),
      ...rows.map((values) => row('td', fields.map(({ name }) => values[name]))),
    );
    element('state').textContent = `${results.length} statements, ${rows.length || affectedRows || 0} rows.`;
  } catch (error) {
    element('error').textContent = error.message;
  }
  element('run').disabled = false;
};
