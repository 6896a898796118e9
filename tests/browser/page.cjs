// Drops a file on the example page in headless Chromium, prints what it then says: node page.cjs URL IMAGE SCREENSHOT.
const fs = require("fs");
const puppeteer = require("puppeteer-core");

async function drop(page, file) {
  const bytes = fs.readFileSync(file).toString("base64");
  await page.evaluate((bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], "picture.png", { type: "image/png" }));
    const event = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer });
    document.getElementById("drop").dispatchEvent(event);
  }, bytes);
}

async function main() {
  const [url, image, screenshot] = process.argv.slice(2);
  const options = { executablePath: process.env.CHROMIUM || "/usr/bin/chromium", headless: true, args: ["--no-sandbox"] };
  const browser = await puppeteer.launch(options);
  const errors = [];
  try {
    const page = await browser.newPage();
    page.on("pageerror", (error) => errors.push(error.message));
    await page.goto(url);
    await page.waitForSelector("body[data-ready]", { timeout: 120000 });
    await drop(page, image);
    await page.waitForFunction(() => document.body.dataset.done || /no image/.test(document.getElementById("verdict").textContent),
      { timeout: 120000 });
    const said = await page.evaluate(() => ({
      verdict: document.getElementById("verdict").textContent,
      ...Object.fromEntries(["base", "model"].map((id) => [id, {
        latency: document.querySelector(`#${id} .latency`).textContent,
        rows: [...document.querySelectorAll(`#${id} li`)].map((row) => [row.children[0].textContent, row.children[2].textContent]),
      }])),
    }));
    await page.screenshot({ path: screenshot });
    console.log(JSON.stringify({ ...said, errors }));
  } finally {
    await browser.close();
  }
}

main();
