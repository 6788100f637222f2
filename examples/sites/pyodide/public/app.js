// The page: hands code to the worker and shows what comes back.
const element = (id) => document.getElementById(id);
const worker = new Worker('worker.js', { type: 'module' });
// A signal for Python in memory that the worker sees while it computes.
const signal = new Uint8Array(new SharedArrayBuffer(1));
const SIGINT = 2;

function show(state, running) {
  element('state').textContent = state;
  element('run').disabled = running;
  element('stop').disabled = !running;
}

worker.onmessage = ({ data }) => {
  if (data.ready) show(`Python ${data.ready} is ready.`, false);
  if (data.output !== undefined) element('output').textContent += `${data.output}\n`;
  if (data.result !== undefined || data.error !== undefined) {
    element('result').className = data.error === undefined ? '' : 'error';
    element('result').textContent = data.error ?? data.result;
    show('Done.', false);
  }
};
worker.onerror = (event) => show(`Cannot load Python: ${event.message}`, true);
worker.postMessage({ signal });

document.forms[0].onsubmit = (event) => {
  event.preventDefault();
  element('output').textContent = '';
  element('result').textContent = '';
  signal[0] = 0;
  show('Running…', true);
  worker.postMessage({ code: element('code').value });
};
element('stop').onclick = () => {
  signal[0] = SIGINT;
};
