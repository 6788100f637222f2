// Opens a page in headless Chromium with an empty cache and waits until it shows
// SELECTOR and the network has been idle for half a second. What it asks for is in
// the server's log.
//
//   node page.mjs URL SELECTOR
//
// No host but 127.0.0.1 can be reached. WHARF_CHROMIUM names another browser.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const PATIENCE = 180_000;

const [url, selector] = process.argv.slice(2);
const profile = await mkdtemp(join(tmpdir(), 'wharf-browser-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.WHARF_CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost',
  ],
});
try {
  browser.setDefaultTimeout(PATIENCE);
  browser.setDefaultNavigationTimeout(PATIENCE);
  const page = await browser.newPage();
  await page.goto(url);
  await page.locator(selector).first().waitFor();
  await page.waitForLoadState('networkidle');
} finally {
  await browser.close();
  await rm(profile, { recursive: true, force: true });
}
