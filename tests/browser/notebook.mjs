// Runs every code cell of a JupyterLite notebook in headless Chromium and prints
// what each answered, as a JSON array of strings on stdout.
//
//   node notebook.mjs BASE_URL NOTEBOOK [CELLS]
import { withBrowser } from './chromium.mjs';

const [base, notebook, cells = '2'] = process.argv.slice(2);
await withBrowser(async (browser) => {
  const trouble = [];
  browser.on('weberror', (event) => trouble.push(`page: ${event.error().message}`));
  browser.on('requestfailed', (request) => trouble.push(`${request.url()}: ${request.failure()?.errorText}`));
  browser.on('response', (response) => {
    if (response.status() >= 400) trouble.push(`${response.url()}: ${response.status()}`);
  });
  let page = await browser.newPage();
  try {
    // First the way that a person takes: the worker's page, and the link on it.
    await page.goto(base);
    await page.click('a[href="/dist/"]');
    await page.waitForURL('**/dist/lab/**');
    // A page of its own for the notebook: the lab still changes its own address
    // while it starts, which would interrupt a navigation of ours.
    await page.close();

    page = await browser.newPage();
    await page.goto(`${base}/dist/notebooks/index.html?path=${notebook}`);
    const code = page.locator('.jp-Notebook .jp-CodeCell');
    await code.first().waitFor();
    // Without a kernel, running a cell asks which kernel it shall be.
    await page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').waitFor();
    await code.first().locator('.cm-content').click();
    const answers = [];
    for (let cell = 0; cell < Number(cells); cell += 1) {
      await page.keyboard.press('Shift+Enter');
      const answer = code.nth(cell).locator('.jp-OutputArea-executeResult .jp-OutputArea-output');
      await answer.waitFor();
      answers.push((await answer.innerText()).trim());
    }
    process.stdout.write(`${JSON.stringify(answers)}\n`);
  } catch (error) {
    console.error(error.message);
    const text = await page.locator('body').innerText({ timeout: 5_000 }).catch(() => '');
    console.error(`at ${page.url()}: ${text.slice(0, 2000)}`);
    for (const line of trouble) console.error(line);
    process.exitCode = 1;
  }
});
