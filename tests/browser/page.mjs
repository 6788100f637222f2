// Opens a page in headless Chromium with an empty cache and waits until it shows
// SELECTOR and the network has been idle for half a second. What it asks for is in
// the server's log.
//
//   node page.mjs URL SELECTOR
import { withBrowser } from './chromium.mjs';

const [url, selector] = process.argv.slice(2);
await withBrowser(async (browser) => {
  const page = await browser.newPage();
  await page.goto(url);
  await page.locator(selector).first().waitFor();
  await page.waitForLoadState('networkidle');
});
