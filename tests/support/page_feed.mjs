// @ts-check
// Follows streams as the chart page does, without a page: says each change of a stream and of the connection.
import readline from "node:readline";

const [, , file, url, options] = process.argv;
globalThis.addEventListener = () => {};
// @ts-expect-error  only so much of it as is used
globalThis.document = { addEventListener() {}, hidden: false };
const { Feed } = await import(file);

const say = (value) => process.stdout.write(`${JSON.stringify({ message: value })}\n`);
const feed = new Feed({ url, ...JSON.parse(options) });
feed.addEventListener("connection", () => say({ type: "connection", ...feed.connection }));

let live;
const followed = [];
function follow(name, wanted) {
  const listener = ({ kind }) => {
    const { status, text, isComplete, candles } = live;
    const times = candles.entries.filter(({ isClosed }) => isClosed).map(({ time }) => time);
    const closes = candles.entries.map(({ close }) => close);
    const outdated = candles.entries.filter(({ isOutdated }) => isOutdated).map(({ time }) => time);
    const { gaps } = candles;
    say({ type: kind, stream: live.name, status, text, isComplete, times, closes, outdated, gaps, now: feed.now });
  };
  live = feed.follow(name, listener, wanted);
  followed.push([live, listener]);
}

feed.run().catch(({ name, message }) => process.stdout.write(`${JSON.stringify({ fault: { name, message } })}\n`));
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [call, ...args] = JSON.parse(line);
  try {
    if (call === "follow") follow(...args);
    if (call === "leave") feed.leave(...followed[args[0]]);
    if (call === "loadOlder") feed.loadOlder(live);
    process.stdout.write(`${JSON.stringify({ result: null })}\n`);
  } catch (fault) {
    const { name, message } = /** @type {Error} */ (fault);
    process.stdout.write(`${JSON.stringify({ fault: { name, message } })}\n`);
  }
}
process.exit();
