// Answers what is below /site/ from the PHP in the page at `/`. WordPress's own scripts,
// styles and images are the server's (see _redirects).
const SCOPE = '/site/';
const FILE = /^wp-(admin|includes|content\/themes)\/.*\.(css|js|json|png|gif|jpe?g|webp|svg|woff2?|ttf|eot)$/;

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('fetch', (event) => {
  const url = new URL(event.request.url);
  const own = url.origin === location.origin && url.pathname.startsWith(SCOPE);
  if (own && !FILE.test(url.pathname.slice(SCOPE.length))) event.respondWith(answer(event.request, url));
});

async function answer(request, url) {
  const windows = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
  const pages = windows.filter((page) => new URL(page.url).pathname === '/');
  // Without that page, or instead of it in its tab: it comes first.
  if (!pages.length || request.destination === 'document') {
    return Response.redirect(`/?path=${encodeURIComponent(url.pathname + url.search)}`);
  }
  const body = /^(GET|HEAD)$/.test(request.method) ? undefined : new Uint8Array(await request.arrayBuffer());
  const headers = Object.fromEntries(request.headers);
  const message = { method: request.method, url: request.url, headers, body };
  // One of the tabs has PHP; the others say nothing.
  const { status, headers: fields, body: content } = await Promise.race(pages.map((page) => ask(page, message)));
  const empty = [204, 205, 304].includes(status);
  return new Response(empty ? null : content, { status, headers: fields });
}

function ask(page, message) {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = ({ data }) => resolve(data);
    page.postMessage(message, [port2]);
  });
}
