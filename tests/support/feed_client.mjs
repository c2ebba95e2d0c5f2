// @ts-check
// Runs the chart page's feed without a page: follows streams, and writes what its charts would show.
const [, , feed, ...streams] = process.argv;
globalThis.addEventListener ??= () => {};
// @ts-expect-error  only so much of it as is used
globalThis.document = { addEventListener: () => {}, hidden: false };
// @ts-expect-error  only so much of it as is used
globalThis.sessionStorage = { getItem: () => null };
const { Feed } = await import(feed);

const page = new Feed();
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
page.addEventListener("connection", () => say({ type: "connection", state: page.connection.state }));
for (const name of streams) {
  const live = page.follow(name, ({ kind, time }) => {
    const { entries, gaps } = live.candles;
    if (kind === "state") say({ type: "state", stream: live.name, status: live.status });
    else if (kind === "gap") say({ type: "gap", stream: live.name, ...gaps.at(-1) });
    else if (kind === "candle") say({ type: "candle", stream: live.name, ...live.candles.at(time) });
    else if (kind === "older") say({ type: "older", stream: live.name, entries });
    else if (kind === "reset") say({ type: "reset", stream: live.name, isComplete: live.isComplete, entries });
  });
}
await page.run();
