// @ts-check
// Drive binance-api-node, REST and sockets, against the addresses given; print JSON.
import { createRequire } from "node:module";

const [folder, rest, ws] = process.argv.slice(2);
const Binance = createRequire(`${folder}/`)("binance-api-node").default;
const CLOSES = 14;
const client = Binance({ httpBase: rest, wsBase: `${ws}/ws` });

/**
 * @param {Promise<unknown>} promise
 * @returns {Promise<unknown>}
 */
async function errorOf(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return /** @type {{code?: number}} */ (error).code;
  }
}

/** @returns {Promise<[object[], string[]]>} */
function watch() {
  return new Promise((resolve) => {
    /** @type {object[]} */
    const closes = [];
    /** @type {Set<string>} */
    const others = new Set();
    const stop = client.ws.candles(
      ["BTCUSDT", "ETHUSDT"],
      "1s",
      (/** @type {{symbol: string, isFinal: boolean}} */ candle) => {
        if (candle.symbol !== "BTCUSDT") {
          others.add(candle.symbol);
        } else if (candle.isFinal) {
          closes.push(candle);
          if (closes.length === 1) console.log("begun");
          if (closes.length === CLOSES) {
            stop();
            resolve([closes, [...others]]);
          }
        }
      },
    );
  });
}

const [closes, others] = await watch();
const said = {
  candles: await client.candles({ symbol: "BTCUSDT", interval: "1m", startTime: 1790000040000, limit: 3 }),
  time: await client.time(),
  listed: (await client.exchangeInfo()).symbols.map((/** @type {{symbol: string}} */ one) => one.symbol),
  book: (await client.book({ symbol: "BTCUSDT", limit: 5 })).bids.length,
  price: Object.keys(await client.prices({ symbol: "BTCUSDT" })),
  error: await errorOf(client.candles({ symbol: "NOPE" })),
  closes,
  others,
};
console.log(JSON.stringify(said));
process.exit(0);
