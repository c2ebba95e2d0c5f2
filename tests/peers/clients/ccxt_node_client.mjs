// @ts-check
// Drive ccxt and ccxt.pro of Node with addresses from the constructor only; print JSON.
import { createRequire } from "node:module";

const [folder, rest, ws] = process.argv.slice(2);
const ccxt = createRequire(`${folder}/`)("ccxt");
const OPTIONS = {
  options: { fetchCurrencies: false },
  urls: {
    api: {
      public: `${rest}/api/v3`,
      fapiPublic: `${rest}/fapi/v1`,
      dapiPublic: `${rest}/dapi/v1`,
      ws: { spot: `${ws}/ws` },
    },
  },
};
const CANDLES = 14;

async function watch() {
  const exchange = new ccxt.pro.binance(OPTIONS);
  // Without this line ccxt refuses addresses that begin with ws:.
  await exchange.loadHttpProxyAgent();
  const candles = new Map();
  let hasBegun = false;
  while (candles.size < CANDLES) {
    for (const candle of await exchange.watchOHLCV("BTC/USDT", "1s")) candles.set(candle[0], candle);
    if (!hasBegun) console.log("begun");
    hasBegun = true;
  }
  await exchange.close();
  return [...candles.values()];
}

const client = new ccxt.binance(OPTIONS);
const markets = await client.loadMarkets();
const said = {
  markets: Object.keys(markets).length,
  candles: await client.fetchOHLCV("BTC/USDT", "1m", 1790000040000, 3),
  ticker: (await client.fetchTicker("BTC/USDT")).symbol,
  book: (await client.fetchOrderBook("BTC/USDT", 5)).bids.length,
  closes: await watch(),
};
console.log(JSON.stringify(said));
process.exit(0);
