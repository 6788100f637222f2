// Does with one page in headless Chromium what it is told, a line of JSON on stdin
// each, and answers each by a line of JSON on stdout: {"ok": VALUE} or
// {"error": "…"}. Ends with its stdin.
//
//   {"goto": URL}                       opens the page
//   {"text": SELECTOR, "has": TEXT}     waits until it is shown and has the text; all of it
//   {"gone": SELECTOR}                  waits until it is shown no more
//   {"evaluate": EXPRESSION}            in the page
import { createInterface } from 'node:readline';
import { withBrowser } from './chromium.mjs';

await withBrowser(async (browser) => {
  const page = await browser.newPage();
  const trouble = [];
  browser.on('weberror', (event) => trouble.push(`page: ${event.error().message}`));

  async function act(step) {
    if (step.goto) {
      await page.goto(step.goto);
    } else if (step.text) {
      const shown = page.locator(step.text).filter({ hasText: step.has ?? '' }).first();
      await shown.waitFor();
      return await shown.innerText();
    } else if (step.gone) {
      await page.locator(step.gone).waitFor({ state: 'detached' });
    } else {
      try {
        return await page.evaluate(step.evaluate);
      } catch (error) {
        // The page was just being loaded again.
        if (!/navigation|context was destroyed/i.test(error.message)) throw error;
        await page.waitForLoadState();
        return await page.evaluate(step.evaluate);
      }
    }
    return null;
  }

  for await (const line of createInterface({ input: process.stdin })) {
    let answer;
    try {
      answer = { ok: (await act(JSON.parse(line))) ?? null };
    } catch (error) {
      const text = await page.locator('body').innerText({ timeout: 5_000 }).catch(() => '');
      answer = { error: `${error.message}\nat ${page.url()}: ${text.slice(0, 2000)}\n${trouble.join('\n')}` };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
});
