// Asks a page of `export --format web` in headless Chromium and prints, as JSON, what it answered and what it asked for.
// node answers.js SETTINGS, a JSON file: {pages, texts, folder, cdn}. Needs playwright-core and axe-core beside it.
"use strict";
const fs = require("fs"), path = require("path");
const { chromium } = require("playwright-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf-8");
const { chrome, pages, texts, shots, cdn } = JSON.parse(fs.readFileSync(process.argv[2], "utf-8"));

async function opened(browser, url, options = {}) {
  const context = await browser.newContext({ bypassCSP: false, ...options });
  const page = await context.newPage();
  const asked = [], complaints = [];
  page.on("request", (request) => asked.push(request.url()));
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  if (cdn) {  // the public server's part is played by the files that npm gave
    await context.route("https://cdn.jsdelivr.net/**", (route) => route.fulfill({
      path: path.join(cdn, path.basename(new URL(route.request().url()).pathname)),
      headers: { "access-control-allow-origin": "*" },
    }));
  }
  await page.goto(url);
  await page.waitForFunction(() => !document.getElementById("go").disabled, null, { timeout: 120000 });
  return { context, page, asked, complaints };
}

async function asAPersonWould(page) {
  const done = {};
  await page.keyboard.press("Tab");  // the keyboard alone
  done.focus = await page.evaluate(() => document.activeElement.id);
  await page.keyboard.type("A wonderful film.");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#answer strong");
  done.sentence = await page.innerText("#answer");
  await page.locator("#examples button").nth(1).click();
  await page.waitForFunction((before) => document.getElementById("answer").innerText !== before, done.sentence);
  done.example = await page.inputValue("#sentence");
  await page.fill("#texts", 'A wonderful film.\n\nDull, "very" dull\r\n=1+1');
  await page.click("#all");
  await page.waitForSelector("#download:not([hidden])");
  done.table = await page.locator("#rows tr").allInnerTexts();
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  done.csv = fs.readFileSync(await download.path(), "utf-8");
  return done;
}

async function faults(page) {
  await page.evaluate(axe);  // by the debugger: the page's own policy stays as it is
  const { violations } = await page.evaluate(() => axe.run());
  return violations.map(({ id, impact, nodes }) => ({ id, impact, where: nodes.map((node) => node.html) }));
}

(async () => {
  const browser = await chromium.launch({ executablePath: chrome, args: ["--no-sandbox"] });
  const result = { opened: {} };
  for (const url of pages) {
    const { context, page, asked, complaints } = await opened(browser, url);
    const one = await page.evaluate(async () => (await answer("A wonderful film.")).classes);
    result.opened[url] = { one, asked, complaints };
    if (url === pages[0]) {
      result.person = await asAPersonWould(page);
      result.answers = await page.evaluate(async (rows) => {
        const found = [];
        for (const row of rows) found.push(await answer(row));
        return found;
      }, texts);
      result.asked = asked;
    }
    await context.close();
  }
  for (const width of shots ? [390, 1280] : []) {
    for (const colorScheme of ["light", "dark"]) {
      const viewport = { width, height: 900 };
      const { context, page } = await opened(browser, pages[0], { viewport, colorScheme });
      await asAPersonWould(page);
      await page.screenshot({ path: path.join(shots, `${width}-${colorScheme}.png`), fullPage: true });
      result[`${width}-${colorScheme}`] = {
        wide: await page.evaluate(() => document.documentElement.scrollWidth), faults: await faults(page),
      };
      await context.close();
    }
  }
  await browser.close();
  console.log(JSON.stringify(result));
})().catch((error) => { console.error(error); process.exit(1); });
