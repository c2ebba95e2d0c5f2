// @ts-check
// One stream of a market relay in a chart: its past, then live, and over an outage without a hole.
// The address may name relay and stream: ?relay=http://127.0.0.1:8000&stream=BTCUSDT@1m

import { CandlestickSeries, createChart } from "lightweight-charts";
import { ClientError, RelayClient } from "market-relay-client";

const asked = new URLSearchParams(location.search);
const stream = asked.get("stream") ?? "BTCUSDT@1m";
const relay = new RelayClient(asked.get("relay") ?? "http://127.0.0.1:8000", { waitsForRelay: true });

const chart = createChart(/** @type {HTMLElement} */ (document.getElementById("chart")), {
  autoSize: true,
  timeScale: { timeVisible: true, secondsVisible: true },
});
export const series = chart.addSeries(CandlestickSeries);

/** All bars by time. */
const bars = new Map();
let newest = 0;

/** Put candles into the chart. A series takes the newest one alone; for older ones it gets all again. */
function put(candles) {
  const isNewest = candles.length === 1 && candles[0].time >= newest;
  for (const { time, open, high, low, close } of candles) {
    bars.set(time, { time, open, high, low, close });
    newest = Math.max(newest, time);
  }
  if (isNewest) series.update(bars.get(newest));
  else series.setData([...bars.values()].sort((one, other) => one.time - other.time));
}

/** Write a text above the chart. */
function say(id, text) {
  const element = document.getElementById(id);
  if (element !== null) element.textContent = text;
}

function utc(time) {
  return new Date(time * 1000).toISOString();
}

/** Request candles of the chart again that may have other values now. */
async function renew({ symbol, interval, from, before }) {
  // A page that is open for days has more bars than a call may have arguments.
  const oldest = [...bars.keys()].reduce((one, other) => Math.min(one, other), Infinity);
  const startTime = Math.max(from, oldest);
  if (startTime >= before) return;
  try {
    put((await relay.history(symbol, interval, { startTime, endTime: before - 1, limit: 5000 })).candles);
  } catch (fault) {
    if (!(fault instanceof ClientError)) throw fault;
    say("state", `older candles may have changed, load the page again: ${fault.message}`);
  }
}

/** Follow the stream as long as the page is open. The client connects again by itself. */
async function follow() {
  relay.subscribe(stream, { bars: 500 });
  for await (const message of relay) {
    switch (message.type) {
      case "confirmed":
        say("stream", message.stream);
        say("state", "live");
        break;
      case "snapshot":
        // With `isRenewed` the provider changed its history, or gave it late: these candles replace all others.
        if (message.isRenewed) bars.clear();
        put(message.candles);
        break;
      case "update":
        // What closed during an outage comes as updates, in order, before anything newer.
        put([message.candle]);
        break;
      case "gap":
        say("state", `no provider has the candles from ${utc(message.from)} to ${utc(message.to)}`);
        break;
      case "outdated":
        await renew(message);
        break;
      case "state":
        say("state", message.status === "connected" ? "live" : `${message.status}: ${message.text}`);
        break;
      case "lost":
        say("state", `offline: ${message.reason}`);
        break;
      case "failure":
        say("state", `refused: ${message.text}`);
        break;
    }
  }
}

follow().catch((fault) => {
  if (!(fault instanceof ClientError)) throw fault;
  say("state", fault.message);
});
