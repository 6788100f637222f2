// Headless Chromium with an empty profile, for the drivers beside this file.
//
// No host but 127.0.0.1 can be reached. WHARF_CHROMIUM names another browser.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

// Milliseconds for each step. A person waits no minute; a busy machine with two
// cores, of which other tests use both, does.
const PATIENCE = 180_000;

/** Runs `work` with a browser, which is closed afterwards. */
export async function withBrowser(work) {
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
    await work(browser);
  } finally {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  }
}
