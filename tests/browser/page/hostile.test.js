import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Person, Robot, Server, becomes, eventually, launch } from "../harness.js";

const ELSEWHERE = "http://elsewhere.example";

const TEXTS = [
  "<script>window.hurt = 1</script>",
  "<img src=x onerror='window.hurt = 1'>",
  `<img src="${ELSEWHERE}/pixel.png">`,
  `<svg onload="window.hurt = 1"><image href="${ELSEWHERE}/i.svg"/></svg>`,
  "<iframe srcdoc='<script>parent.hurt = 1</script>'></iframe>",
  `<link rel=stylesheet href=${ELSEWHERE}/x.css>`,
  "<style>* { display: none !important }</style>",
  "<body style='display:none'>",
  "</article></main></body></html>",
  "</template><script>window.hurt = 1</script>",
  "<form action='http://elsewhere.example'><button>Log in</button></form>",
  "<base href='http://elsewhere.example/'>",
  "<meta http-equiv=refresh content='0;url=http://elsewhere.example/'>",
  "<a href='javascript:window.hurt = 1'>Send</a>",
  "javascript:window.hurt=1",
  "data:text/html,<script>window.hurt=1</script>",
  `${ELSEWHERE}/"onmouseover="window.hurt=1"`,
  `${ELSEWHERE}/<b>bold</b>`,
  "http://javascript:alert(1)@elsewhere.example/",
  "https://",
  "http://%/",
  "http://[:::]/",
  `${ELSEWHERE}/\u202egpj.exe`,
  "\u202etxet desrever\u202c",
  "\u2066\u2067\u2068",
  "\u200b\u200c\u200d\ufeffinvisible\u200b",
  "Z̸̢͎͚̘̓̊̅͌a̷̛͔͗l̵̢̰̇g̷̬͗ő̶̺ ".repeat(20).trim(),
  "W".repeat(4_000),
  "🏳️‍🌈👨‍👩‍👧‍👦".repeat(200),
  "ﷺ".repeat(500),
  "a\n".repeat(300) + "b",
  "مرحبا بالعالم",
  "שלום, עולם!",
  "{{constructor.constructor('window.hurt = 1')()}}",
  "${window.hurt = 1}",
  "'; DROP TABLE messages; --",
  "&lt;b&gt; &amp; &#60;",
  "\\u003cscript\\u003e",
  '{"type":"message","id":1}',
  "%3Cscript%3E%00%0d%0a",
  "__proto__",
  "tab\there\tand\tthere",
];

const NAMES = ["constructor", "toString", "hasOwnProperty", "valueOf", "0", "null", "undefined", "x".repeat(32), "a.b-c_d"];

let server, browser, ada, robots;

before(async () => {
  server = await Server.start();
  browser = await launch();
  ada = await Person.join(browser, server.url, "Ada");
  robots = [];
  for (const name of NAMES) robots.push(await Robot.join(server, name));
});

after(async () => {
  await browser?.close();
  await server?.close();
});

test("hostile texts are shown as they are, and nothing of them is done", async () => {
  assert.ok(TEXTS.length >= 40);
  for (const [n, text] of TEXTS.entries()) await robots[n % robots.length].say(text);
  await robots[0].say("the end");
  await ada.sees("the end");
  const shown = (await ada.shown()).map(({ text }) => text);
  assert.deepEqual(shown.slice(0, TEXTS.length), TEXTS);
  await becomes(() => ada.page.evaluate(() => window.hurt), undefined);
  await becomes(() => ada.articles().locator("img, svg, script, style, iframe, form, link, input").count(), 0);
});

test("hostile names are names, in the log and in the list", async () => {
  const names = [...NAMES];
  await ada.text(`${names.length + 1} online`).waitFor();
  const listed = () => ada.people().getByRole("listitem").allTextContents();
  await becomes(async () => (await listed()).sort(), ["Ada", ...names].sort());
  const authors = new Set((await ada.shown()).map(({ author }) => author));
  assert.deepEqual([...authors].sort(), names.sort());
  robots[0].typing();
  await ada.text(`${robots[0].name} is typing…`).waitFor();
});

test("only http and https addresses are links, and they give nothing away", async () => {
  const links = await ada.articles().getByRole("link").evaluateAll((links) => links.map(({ href, target, rel, textContent }) => ({ href, target, rel, textContent })));
  assert.ok(links.length > 0);
  for (const { href, target, rel, textContent } of links) {
    assert.match(href, /^https?:\/\//);
    assert.deepEqual([target, rel], ["_blank", "noopener noreferrer"]);
    assert.match(textContent, /^https?:\/\/[^\s<>"\u202a-\u202e]+$/);
  }
});

test("no request went to anyone else, and the token was in no address", async () => {
  for (const address of ada.requests) assert.ok(address.startsWith(`${server.url}/`), address);
  const token = await ada.page.evaluate(() => JSON.parse(localStorage.getItem("chinwag.session")).token);
  for (const address of ada.requests) assert.ok(!address.includes(token));
  assert.ok(!ada.page.url().includes(token));
});

test("nothing scrolls sideways or leaves its place, also at 320 px and with text twice as large", async () => {
  for (const [width, size] of [[1280, "100%"], [320, "100%"], [1280, "200%"], [640, "200%"], [320, "200%"]]) {
    await ada.page.setViewportSize({ width, height: 700 });
    await ada.page.evaluate((size) => (document.documentElement.style.fontSize = size), size);
    // What is laid out in one frame may be put in its place in the next.
    await eventually(async () => {
      const wide = await ada.page.evaluate(() =>
        [document.documentElement, document.body, ...document.querySelectorAll("main, .room, [role=log], .room-bar, form.composer")]
          .filter((element) => element.scrollWidth > element.clientWidth + 1)
          .map((element) => `${element.tagName}.${element.className}#${element.id} ${element.scrollWidth} > ${element.clientWidth}`),
      );
      assert.deepEqual(wide, [], `${width}px at ${size}`);
      for (const control of [ada.box(), ada.button("Send"), ada.status()]) {
        const box = await control.boundingBox();
        assert.ok(box.x >= 0 && box.x + box.width <= width + 1, `${control} at ${width}px, ${size}`);
        assert.ok(box.y >= 0 && box.y + box.height <= 700, `${control} at ${width}px, ${size}`);
      }
    });
  }
});

test("the composer stays above a keyboard that covers the page", async () => {
  await ada.page.setViewportSize({ width: 375, height: 700 });
  await ada.page.evaluate(() => {
    document.documentElement.style.fontSize = "";
    Object.defineProperty(visualViewport, "height", { configurable: true, value: 380 });
    visualViewport.dispatchEvent(new Event("resize"));
  });
  await eventually(async () => {
    for (const control of [ada.box(), ada.button("Send")]) {
      const { y, height } = await control.boundingBox();
      assert.ok(y > 0 && y + height <= 380);
    }
    const end = await ada.articles().last().boundingBox();
    assert.ok(end.y + end.height <= 380, "what was said last stays in sight");
  });
});

test("the headers forbid what the page does not do", async () => {
  const { headers } = await fetch(server.url);
  const policy = new Map(headers.get("content-security-policy").split(";").map((rule) => rule.trim().split(/\s+(.*)/)));
  assert.match(policy.get("default-src"), /^'(none|self)'$/);
  for (const [directive, sources] of policy) {
    // Pictures are fetched with the session, which an address cannot carry.
    const forbidden = directive === "img-src" ? /unsafe|\*|https?:|data:/ : /unsafe|\*|https?:|data:|blob:/;
    assert.doesNotMatch(sources ?? "", forbidden, directive);
  }
  for (const name of ["object-src", "base-uri", "frame-ancestors"]) assert.equal(policy.get(name), "'none'");
  assert.equal(policy.get("form-action"), "'self'");
  assert.equal(headers.get("x-content-type-options"), "nosniff");
  assert.equal(headers.get("referrer-policy"), "no-referrer");
  await ada.leave();
});
