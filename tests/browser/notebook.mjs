// Runs every code cell of a JupyterLite notebook in headless Chromium and prints
// what each answered, as a JSON array of strings on stdout.
//
//   node notebook.mjs BASE_URL NOTEBOOK [CELLS]
//
// No host but 127.0.0.1 can be reached. WHARF_CHROMIUM names another browser.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [base, notebook, cells = '2'] = process.argv.slice(2);
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
  const page = await browser.newPage();
  const trouble = [];
  page.on('pageerror', (error) => trouble.push(`page: ${error.message}`));
  page.on('requestfailed', (request) => trouble.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on('response', (response) => {
    if (response.status() >= 400) trouble.push(`${response.url()}: ${response.status()}`);
  });
  try {
    // First the way that a person takes: the worker's page, and the link on it.
    await page.goto(base);
    await page.click('a[href="/dist/"]');
    await page.waitForURL('**/dist/lab/**', { timeout: 60_000 });

    await page.goto(`${base}/dist/notebooks/index.html?path=${notebook}`);
    const code = page.locator('.jp-Notebook .jp-CodeCell');
    await code.first().waitFor({ timeout: 60_000 });
    await code.first().locator('.cm-content').click();
    const answers = [];
    for (let cell = 0; cell < Number(cells); cell += 1) {
      await page.keyboard.press('Shift+Enter');
      const answer = code.nth(cell).locator('.jp-OutputArea-executeResult .jp-OutputArea-output');
      await answer.waitFor({ timeout: 120_000 });
      answers.push((await answer.innerText()).trim());
    }
    process.stdout.write(`${JSON.stringify(answers)}\n`);
  } catch (error) {
    console.error(error.message);
    console.error(`at ${page.url()}: ${(await page.locator('body').innerText().catch(() => '')).slice(0, 2000)}`);
    for (const line of trouble) console.error(line);
    process.exitCode = 1;
  }
} finally {
  await browser.close();
  await rm(profile, { recursive: true, force: true });
}
