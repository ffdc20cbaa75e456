// Checks a page of `sinew bench --html` in headless Chromium; called by scripts/check-page.
"use strict";
const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const { chromium } = require("playwright-core");

// Points of a curve below which a plot has lost its data.
const CURVE_POINTS = 30, BUCKETS = 20;
const [file, screenshots] = process.argv.slice(2);
const url = pathToFileURL(path.resolve(file)).href;

// Points of an SVG path: each of its commands draws to one.
const points = (d) => (d.match(/[ML]/g) || []).length;

async function check(browser, options, look) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 1400 }, ...options });
  const page = await context.newPage(), requests = [], complaints = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(url, { waitUntil: "load" });
  await look(page);
  // The icon is data within the page, so that no browser asks a server for one.
  assert.deepEqual(requests.filter((one) => one !== url && !one.startsWith("data:")), [], "requests");
  assert.deepEqual(complaints, [], "console");
  await context.close();
}

async function plotsAreDrawn(page) {
  const plots = await page.$$eval("figure.plot", (figures) => figures.map((figure) => ({
    kind: figure.className,
    width: figure.querySelector("svg").getBoundingClientRect().width,
    curves: [...figure.querySelectorAll("path.curve")].map((curve) => ({
      d: curve.getAttribute("d"),
      stroke: getComputedStyle(curve).stroke,
      box: { width: curve.getBBox().width, height: curve.getBBox().height },
    })),
    bands: [...figure.querySelectorAll("path.band")].map((band) => band.getAttribute("d")),
    outliers: figure.querySelectorAll("circle.outlier").length,
    labels: figure.querySelectorAll("svg text").length,
  })));
  const rows = await page.$$eval("table.figures tbody tr", (rows) => rows.length);
  const curves = plots.filter((plot) => plot.kind.includes("percentiles"));
  const courses = plots.filter((plot) => plot.kind.includes("over-time"));
  assert.ok(rows > 0 && curves.length > 0 && courses.length > 0, `${rows} rows, ${plots.length} plots`);
  assert.equal(curves.flatMap((plot) => plot.curves).length, rows, "a curve for each row");
  for (const plot of plots) {
    assert.ok(plot.width > 500 && plot.labels > 6, `${plot.kind}: ${plot.width} wide`);
    for (const { d, stroke, box } of plot.curves) {
      const enough = plot.kind.includes("percentiles") ? CURVE_POINTS : BUCKETS;
      assert.ok(points(d) > enough, `${plot.kind}: ${points(d)} points`);
      assert.ok(!/NaN|inf|undefined/.test(d), d);
      assert.notEqual(stroke, "none");
      assert.ok(box.width > 400 && box.height > 2, `${plot.kind}: ${box.width} by ${box.height}`);
    }
  }
  for (const plot of courses) {
    assert.ok(plot.bands.every((d) => points(d) > BUCKETS), "buckets");
    assert.ok(plot.outliers > 0, "outliers");
  }
}

async function valuesFollowThePointer(page) {
  for (const figure of await page.$$("figure.plot")) {
    await figure.scrollIntoViewIfNeeded();
    const svg = await figure.$("svg"), box = await svg.boundingBox();
    const texts = [];
    for (const share of [0.3, 0.8]) {
      await page.mouse.move(box.x + share * box.width, box.y + box.height / 2);
      texts.push(await figure.$eval(".tip:not([hidden])", (tip) => tip.textContent));
    }
    assert.match(texts[0], /\d (ns|µs|ms|s)/);
    assert.notEqual(texts[0], texts[1], "another place has other values");
    await page.mouse.move(1, 1);
    assert.equal(await figure.$(".tip:not([hidden])"), null, "nothing stays behind");
  }
}

async function prints(page) {
  const pdf = await page.pdf({ format: "A4", printBackground: true });
  assert.equal(pdf.subarray(0, 5).toString(), "%PDF-");
  assert.ok(pdf.length > 20_000, `${pdf.length} bytes`);
  await page.emulateMedia({ media: "print" });
  const { wide, room } = await page.evaluate(() => {
    document.documentElement.style.width = "182mm";
    const room = document.documentElement.getBoundingClientRect().width;
    const ends = [...document.querySelectorAll("table, svg")].map((one) => one.getBoundingClientRect().right);
    return { wide: Math.max(...ends), room };
  });
  assert.ok(wide <= room + 1, `A4 is ${room} wide, the page ${wide}`);
  return pdf;
}

async function main() {
  const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args, timeout: 60_000 });
  try {
    for (const colorScheme of ["light", "dark"]) {
      await check(browser, { colorScheme }, async (page) => {
        await plotsAreDrawn(page);
        await valuesFollowThePointer(page);
        if (screenshots) {
          fs.mkdirSync(screenshots, { recursive: true });
          const target = path.join(screenshots, `report-${colorScheme}.png`);
          // Without the last section, which says more of the machine than a picture needs.
          await page.evaluate(() => window.scrollTo(0, 0));
          const machine = page.locator("h2", { hasText: "The machine" });
          const height = Math.floor((await machine.boundingBox()).y) - 16;
          await page.screenshot({ path: target, fullPage: true, clip: { x: 0, y: 0, width: 1000, height } });
        }
      });
    }
    await check(browser, { javaScriptEnabled: false }, async (page) => {
      assert.ok((await page.textContent("main")).includes("p99.9"), "tables without scripts");
      assert.ok((await page.locator("path.curve").count()) > 1, "plots without scripts");
    });
    await check(browser, {}, async (page) => {
      const pdf = await prints(page);
      fs.writeFileSync(file.replace(/\.html$/, "") + ".pdf", pdf);
    });
  } finally {
    await browser.close();
  }
  console.log(`${file}: plots drawn, nothing loaded, console empty, prints`);
}

main().catch((error) => {
  console.error(`check-page: ${error.message}`);
  process.exit(1);
});
