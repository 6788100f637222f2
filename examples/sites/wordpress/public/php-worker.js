// PHP with WordPress, its files in memory and its database kept in the origin private
// file system (OPFS).
import { PHP, PHPRequestHandler, loadPHPRuntime, loader } from './vendor/php.js';

const ROOT = '/wordpress';
const DATABASE = `${ROOT}/wp-content/database/.ht.sqlite`;
const SITE = `${location.origin}/site`;

const CONFIG = `<?php
define('WP_HOME', '${SITE}');
define('WP_SITEURL', '${SITE}');
define('DB_NAME', 'wordpress');
define('CONCATENATE_SCRIPTS', false);
// There is no other host, and nothing runs between requests.
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('DISABLE_WP_CRON', true);
$table_prefix = 'wp_';
defined('ABSPATH') || define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
`;

// Avatars would come from another host.
const PLUGIN = `<?php
add_filter('pre_option_show_avatars', '__return_zero');
`;

// Unpacks WordPress and its SQLite drop-in.
const INSTALL = `<?php
function unpack_archive($archive, $folder) {
  $zip = new ZipArchive();
  if ($zip->open($archive) !== true || !$zip->extractTo($folder)) throw new Exception("cannot unpack $archive");
  $zip->close();
  unlink($archive);
}
unpack_archive('/tmp/wordpress.zip', '${ROOT}');
unpack_archive('/tmp/sqlite.zip', '/tmp');
$plugin = '${ROOT}/wp-content/mu-plugins/sqlite-database-integration';
mkdir(dirname($plugin));
rename('/tmp/sqlite-database-integration-main', $plugin);
$dropin = file_get_contents("$plugin/db.copy");
file_put_contents('${ROOT}/wp-content/db.php', str_replace('{SQLITE_IMPLEMENTATION_FOLDER_PATH}', $plugin, $dropin));
require '${ROOT}/wp-includes/version.php';
echo json_encode(['wordpress' => $wp_version, 'php' => PHP_VERSION]);
`;

async function download(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** The file that keeps the database. */
async function kept(options) {
  const folder = await navigator.storage.getDirectory();
  return folder.getFileHandle('wordpress.sqlite', options);
}

async function start() {
  const locateFile = (path) => new URL(path, new URL('vendor/', location)).href;
  const php = new PHP(await loadPHPRuntime(loader, { locateFile }));
  for (const archive of ['wordpress.zip', 'sqlite.zip']) {
    php.writeFile(`/tmp/${archive}`, await download(`/vendor/${archive}`));
  }
  php.mkdir(ROOT);
  const installed = await php.run({ code: INSTALL });
  const versions = installed.json;
  php.writeFile(`${ROOT}/wp-config.php`, CONFIG);
  php.writeFile(`${ROOT}/wp-content/mu-plugins/local.php`, PLUGIN);
  try {
    const file = await (await kept()).getFile();
    php.writeFile(DATABASE, new Uint8Array(await file.arrayBuffer()));
  } catch (error) {
    // The first visit.
    if (error.name !== 'NotFoundError') throw error;
  }
  const site = new PHPRequestHandler({
    php,
    documentRoot: ROOT,
    absoluteUrl: SITE,
    getFileNotFoundAction: () => ({ type: 'internal-redirect', uri: '/index.php' }),
  });
  // The visitor is the administrator of a blog that is theirs alone. The handler keeps
  // the cookies, which a service worker can't set.
  await site.request({
    method: 'POST',
    url: `${SITE}/wp-login.php`,
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: 'log=admin&pwd=password&testcookie=1',
  });
  return { php, site, versions };
}

/** Keeps the database, if it was changed. */
let last;
async function keep(php) {
  const content = php.readFileAsBuffer(DATABASE);
  if (last?.length === content.length && last.every((byte, at) => byte === content[at])) return;
  last = content;
  const file = await (await kept({ create: true })).createWritable();
  await file.write(content);
  await file.close();
}

const started = start();
started.then(({ versions }) => postMessage(versions), (error) => postMessage({ error: error.message }));

// One request at a time, as PHP does them, and each answered when its changes are kept.
let queue = Promise.resolve();
onmessage = ({ data: request, ports: [port] }) => {
  queue = queue.then(async () => {
    try {
      const { php, site } = await started;
      const response = await site.request(request);
      if (request.method !== 'GET' && request.method !== 'HEAD') await keep(php);
      const headers = Object.entries(response.headers).flatMap(([name, values]) => values.map((value) => [name, value]));
      port.postMessage({ status: response.httpStatusCode, headers, body: response.bytes });
    } catch (error) {
      const body = new TextEncoder().encode(`PHP failed: ${error.message}`);
      port.postMessage({ status: 500, headers: [['content-type', 'text/plain']], body });
    }
  });
};
