// The page: asks the worker, which has the database, and shows its rows.
const element = (id) => document.getElementById(id);
const worker = new Worker('worker.js', { type: 'module' });

worker.onmessage = ({ data }) => {
  if (data.error) {
    element('state').className = 'error';
    element('state').textContent = data.error;
    return;
  }
  element('state').textContent =
    `SQLite ${data.version}, ${data.file} by ${data.vfs}: ${data.notes.length} notes`;
  element('notes').replaceChildren(
    ...data.notes.map(({ text, written }) => {
      const item = document.createElement('li');
      item.textContent = text;
      item.title = written;
      return item;
    }),
  );
};
worker.onerror = (event) => {
  element('state').textContent = `Cannot start the worker: ${event.message}`;
};
worker.postMessage({});

document.forms[0].onsubmit = (event) => {
  event.preventDefault();
  worker.postMessage({ text: element('text').value });
  event.target.reset();
};
