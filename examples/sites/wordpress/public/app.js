// The page: keeps the worker that runs PHP, and hands it what the frame asks for, which
// comes from the service worker.
const element = (id) => document.getElementById(id);
const form = document.forms[0];
let php;

function show(text, failed) {
  element('state').textContent = text;
  element('state').className = failed ? 'error' : '';
}

/** Waits until no other tab has the database, and keeps it while this one is open. */
function onlyTab() {
  return new Promise((resolve) => {
    navigator.locks.request('wordpress', () => {
      resolve();
      return new Promise(() => {});
    });
  });
}

/** Starts PHP: what runs, and of which version. */
function start() {
  php = new Worker('php-worker.js', { type: 'module' });
  return new Promise((resolve, reject) => {
    php.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
    php.onerror = (event) => reject(new Error(event.message));
  });
}

async function serviceWorker() {
  const registration = await navigator.serviceWorker.register('service-worker.js', { scope: '/site/' });
  const worker = registration.installing ?? registration.waiting ?? registration.active;
  if (worker.state === 'activated') return;
  await new Promise((resolve) => {
    worker.onstatechange = () => worker.state === 'activated' && resolve();
  });
}

// A request from the service worker, which asks every tab, with the port on which it
// waits for the answer.
navigator.serviceWorker.onmessage = ({ data, ports }) => php?.postMessage(data, ports);

/** Asks PHP itself: this page is not the service worker's. */
function ask(method, url, headers, body) {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = ({ data }) => resolve(data);
    php.postMessage({ method, url: new URL(url, location.origin).href, headers, body }, [port2]);
  });
}
const text = ({ body }) => new TextDecoder().decode(body);

try {
  show('WordPress is open in another tab: close it to go on here.');
  await onlyTab();
  show('Starting PHP…');
  const [versions] = await Promise.all([start(), serviceWorker()]);
  // `?path=` is where someone was sent from who came to the blog without this page.
  const path = new URLSearchParams(location.search).get('path') ?? '/site/';
  element('site').src = path.startsWith('/site/') ? path : '/site/';
  await new Promise((resolve) => element('site').addEventListener('load', resolve, { once: true }));
  show(`WordPress ${versions.wordpress} on PHP ${versions.php}`);
  form.querySelector('button').disabled = false;
} catch (error) {
  show(`Cannot start: ${error.message}`, true);
}

form.onsubmit = async (event) => {
  event.preventDefault();
  const { title, content } = Object.fromEntries(new FormData(form));
  const nonce = text(await ask('GET', '/site/wp-admin/admin-ajax.php?action=rest-nonce'));
  const headers = { 'content-type': 'application/json', 'x-wp-nonce': nonce };
  const post = new TextEncoder().encode(JSON.stringify({ title, content, status: 'publish' }));
  const answer = await ask('POST', '/site/index.php?rest_route=/wp/v2/posts', headers, post);
  if (answer.status !== 201) {
    show(`Cannot publish: ${answer.status} ${text(answer).slice(0, 200)}`, true);
    return;
  }
  form.reset();
  show(`Published “${title}”.`);
  element('site').contentWindow.location = JSON.parse(text(answer)).link;
};
