// @ts-check
// What people call currencies, and which ones they trade against: the tables of `relay/instruments/spellings.py`, to
// which a test holds these.

/** The currencies that most people mean who name none, the likeliest first. */
export const QUOTES = ["USDT", "USDC", "USD", "EUR", "BTC"];

/** @type {Record<string, string>} */
export const COMMON_NAMES = {
  BITCOIN: "BTC",
  XBT: "BTC",
  ETHEREUM: "ETH",
  ETHER: "ETH",
  RIPPLE: "XRP",
  SOLANA: "SOL",
  CARDANO: "ADA",
  DOGECOIN: "DOGE",
  LITECOIN: "LTC",
  POLKADOT: "DOT",
  AVALANCHE: "AVAX",
  CHAINLINK: "LINK",
  TRON: "TRX",
  STELLAR: "XLM",
  MONERO: "XMR",
  TONCOIN: "TON",
  SHIBA: "SHIB",
  UNISWAP: "UNI",
  COSMOS: "ATOM",
  POLYGON: "POL",
  APTOS: "APT",
  TETHER: "USDT",
  GOLD: "XAU",
  SILVER: "XAG",
  EURO: "EUR",
  POUND: "GBP",
  STERLING: "GBP",
  DOLLAR: "USD",
  YEN: "JPY",
  FRANC: "CHF",
};
