// Python, beside the page: an endless loop of it does not freeze the page.
import { loadPyodide } from './vendor/pyodide.mjs';

const say = (output) => postMessage({ output });
const ready = loadPyodide({ stdout: say, stderr: say }).then((python) => {
  postMessage({ ready: python.runPython('import sys; sys.version.split()[0]') });
  return python;
});

onmessage = async ({ data }) => {
  const python = await ready;
  if (data.signal) {
    python.setInterruptBuffer(data.signal);
    return;
  }
  try {
    const result = await python.runPythonAsync(data.code);
    postMessage({ result: result === undefined ? 'None' : String(result) });
    result?.destroy?.();
  } catch (error) {
    postMessage({ error: error.message });
  }
};
