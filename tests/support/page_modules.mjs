// @ts-check
// The pure modules of the chart page, tested by Node's own runner; tests/e2e/test_page_modules.py calls it.
import assert from "node:assert/strict";
import { test } from "node:test";

const { MOST_SYMBOLS, added, moved, read: readKept, removed } = await import(`${process.env.STATIC}/board_symbols.js`);
const { Candles } = await import(`${process.env.STATIC}/candles.js`);
const { DayAgo, dayOf, priceAt } = await import(`${process.env.STATIC}/day.js`);
const {
  closeOf,
  countdown,
  decimalsOf,
  intervalsOf,
  moment,
  onceUtc,
  percent,
  price,
  secondsOf,
  sideOf,
  span,
  split,
  utc,
  withTimes,
  zone,
} = await import(`${process.env.STATIC}/format.js`);
const { countFor, format, parse: parseStreams, read: readStreams } = await import(`${process.env.STATIC}/layout.js`);
const { readLink, wrongOf } = await import(`${process.env.STATIC}/link.js`);
const { COMMON_NAMES, QUOTES } = await import(`${process.env.STATIC}/names.js`);
const { differsInPin } = await import(`${process.env.STATIC}/client/parsing.js`);
const { parse, prepare, search } = await import(`${process.env.STATIC}/search.js`);

const candle = (time, close = 1) => ({ time, open: 1, high: 2, low: 0, close, volume: 5 });
const update = (time, marks = {}) => ({
  candle: candle(time, marks.close),
  isClosed: true,
  isBackfilled: false,
  isRevised: false,
  ...marks,
});
const loaded = (...times) => {
  const candles = new Candles();
  candles.reset(
    times.map((time) => candle(time)),
    false,
  );
  return candles;
};
const times = (candles) => candles.entries.map(({ time }) => time);

test("a snapshot is closed but for its last candle", () => {
  assert.deepEqual(
    loaded(60, 120, 180).entries.map(({ isClosed }) => isClosed),
    [true, true, false],
  );
});

test("an update is put where its time belongs", () => {
  const candles = loaded(60, 120, 240);
  assert.equal(candles.put(update(300)), "last");
  assert.equal(candles.put(update(300, { close: 7 })), "last");
  assert.equal(candles.put(update(120, { close: 8, isRevised: true })), "older");
  assert.equal(candles.put(update(180, { isRevised: true })), "inserted");
  assert.deepEqual(times(candles), [60, 120, 180, 240, 300]);
  assert.equal(candles.at(120).close, 8);
  assert.equal(candles.at(300).close, 7);
  assert.equal(candles.at(121), undefined);
});

test("a candle that was backfilled or revised stays so", () => {
  const candles = loaded(60);
  candles.put(update(120, { isBackfilled: true }));
  candles.put(update(120, { isRevised: true }));
  candles.put(update(120));
  const { isBackfilled, isRevised } = candles.at(120);
  assert.deepEqual([isBackfilled, isRevised], [true, true]);
});

test("older candles come in front, known ones are left out", () => {
  const candles = loaded(180, 240);
  assert.equal(candles.prepend([candle(60), candle(120), candle(180)]), 2);
  assert.deepEqual(times(candles), [60, 120, 180, 240]);
  assert.equal(candles.prepend([]), 0);
});

test("random updates leave the candles sorted and each time once", () => {
  let seed = 1;
  const dice = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  for (let round = 0; round < 50; round += 1) {
    const candles = loaded(600);
    const known = new Map([[600, 1]]);
    for (let step = 0; step < 60; step += 1) {
      const time = 60 * Math.floor(dice() * 40);
      known.set(time, step);
      candles.put(update(time, { close: step }));
    }
    const expected = [...known].sort(([one], [other]) => one - other);
    assert.deepEqual(
      candles.entries.map(({ time, close }) => [time, close]),
      expected,
    );
  }
});

test("a gap is a hole until its candles come", () => {
  const candles = loaded(60, 120);
  candles.addGap(121, 300, "gone");
  candles.put(update(300));
  assert.deepEqual(candles.holes("1m"), [{ times: [180, 240], reason: "gone", before: 120 }]);
  candles.put(update(180, { isRevised: true }));
  candles.put(update(240, { isRevised: true }));
  assert.deepEqual(candles.holes("1m"), []);
});

test("a hole of years is not filled with a million places", () => {
  const candles = loaded(0);
  candles.addGap(1, 10 ** 9, "gone");
  candles.put(update(10 ** 9));
  assert.equal(candles.holes("1s")[0].times.length, 400);
});

test("trimming keeps the newest", () => {
  const candles = loaded(60, 120, 180, 240);
  assert.equal(candles.trim(4), false);
  assert.equal(candles.trim(2), true);
  assert.deepEqual(times(candles), [180, 240]);
});

test("prices have the decimals that they are written with", () => {
  assert.deepEqual([51193.2, 6.38e-6, 1e-7, 5, 1.14571].map(decimalsOf), [1, 8, 7, 0, 5]);
  assert.deepEqual([109.71000000000001, 110.55799999999999, 1234567.12345678].map(decimalsOf), [2, 3, 8]);
  assert.equal(price(51193.2, 2), "51,193.20");
  assert.equal(price(0.00000638, 8), "0.00000638");
});

test("numbers read as people write them", () => {
  assert.deepEqual([0.0043, -0.0043, -0.000001].map(percent), ["+0.43%", "−0.43%", "0.00%"]);
  assert.deepEqual([0.0043, -0.0043, -0.000001].map(sideOf), ["up", "down", ""]);
  assert.deepEqual([4, 999, 1500, 45_000, 180_000, 7_200_000].map(span), [
    "4 ms",
    "999 ms",
    "1.5 s",
    "45 s",
    "3 min",
    "2 h",
  ]);
  assert.equal(utc(1_764_000_000), "2025-11-24 16:00:00");
  assert.deepEqual(["1s", "5m", "4h", "1d", "1w", "1M"].map(secondsOf), [1, 300, 14_400, 86_400, 604_800, null]);
  assert.deepEqual(split("binance:BTCUSDT@1m"), { symbol: "binance:BTCUSDT", interval: "1m" });
});

test("a name is another one with its provider only where the provider is all that differs", () => {
  for (const [one, other, same] of [
    ["venue:BTC/USDT:USDT@1m", "BTC/USDT:USDT@1m", true],
    ["ES=F@1m", "VENUE:ES=F@1m", true],
    ["BTC/USDT:USDT@1m", "USDT@1m", false],
    ["BTC/USDT:USDT@1m", "ETH/USDT:USDT@1m", false],
    ["^GSPC@1m", "venue:^GSPC@1h", false],
  ])
    assert.equal(differsInPin(one, other), same, `${one} ${other}`);
});

test("the address holds streams with any names and nothing else", () => {
  const streams = ["BTCUSDT@1m", "EUR/USD@1h", "币安人生USDT@1M", "binance:A,B@1d"];
  assert.deepEqual(parseStreams(format(streams)), streams);
  assert.equal(format(["EUR/USD@1h", "binance:BTC@1m"]), "EUR/USD@1h,binance:BTC@1m");
  const signs = ["^GSPC@1d", "ES=F@1m", "M&M.NS@1h", "NQ1!@1m", "EURUSD+@1m", "#AAPL@1m", "BTC/USDT:USDT@1m"];
  assert.deepEqual(parseStreams(format(signs)), signs);
  assert.deepEqual(parseStreams("BTCUSDT,@1m,%E0%A4%A@1m,<script>@1m x,OK@5m"), ["OK@5m"]);
  assert.deepEqual([1, 2, 3, 5, 9].map(countFor), [1, 2, 4, 8, 8]);
});

test("what of an address is no stream, or one too many, is told apart", () => {
  assert.deepEqual(readStreams("BTCUSDT@1m,EURUSD,%E0%A4%A@1m,"), {
    streams: ["BTCUSDT@1m"],
    unread: ["EURUSD", "%E0%A4%A@1m"],
  });
  assert.deepEqual(readStreams("BTCUSDT@1m,%20EUR/USD@1h").streams, ["BTCUSDT@1m", "EUR/USD@1h"]);
  const nine = Array.from({ length: 9 }, (_, index) => `A${index}@1m`);
  assert.deepEqual(readStreams(nine.join()), { streams: nine.slice(0, 8), unread: ["A8@1m"] });
});

test("a query names a stream, a theme and a frame, or streams as the hash does", () => {
  const none = { streams: [], unread: [], isEmbedded: false, faults: [] };
  for (const [query, expected] of /** @type {[string, object][]} */ ([
    ["", {}],
    ["?BTCUSDT@5m,EURUSD", { streams: ["BTCUSDT@5m"], unread: ["EURUSD"] }],
    ["?symbol=BTCUSDT", { streams: ["BTCUSDT@1m"] }],
    ["?symbol=EUR%2FUSD&interval=1h&embed=1&theme=dark", { streams: ["EUR/USD@1h"], isEmbedded: true }],
    ["?symbol=%5EGSPC&interval=1d&embed=0", { streams: ["^GSPC@1d"] }],
    ["?symbol=NQ%26M,X&interval=1M", { streams: ["NQ&M,X@1M"] }],
    ["?theme=light", {}],
  ]))
    assert.deepEqual(readLink(query), { ...none, ...expected }, query);
});

test("what is wrong in a query is said, and nothing is guessed", () => {
  for (const [query, streams, ...faults] of /** @type {[string, string[], ...string[]][]} */ ([
    ["?embed=1", [], "symbol is missing, such as symbol=BTCUSDT"],
    ["?interval=1m", [], "symbol is missing, such as symbol=BTCUSDT"],
    ["?symbol=&embed=1", [], "“” is not a symbol such as BTCUSDT or EUR/USD"],
    ["?symbol=BTCUSDT@1m", [], "“BTCUSDT@1m” is not a symbol such as BTCUSDT or EUR/USD"],
    ["?symbol=A&interval=hour", [], "“hour” is not an interval such as 1m, 5m, 1h or 1d"],
    ["?symbol=A&symbol=B", [], "symbol is given more than once"],
    ["?symbol=A&theme=Dark", ["A@1m"], "theme “Dark” is neither dark nor light"],
    ["?symbol=A&embed=yes", ["A@1m"], "embed “yes” is neither 0 nor 1"],
    ["?sybmol=A", [], "“sybmol” is not one of symbol, interval, theme, embed"],
    [`?symbol=A&theme=${"x".repeat(90)}`, ["A@1m"], `theme “${"x".repeat(39)}…” is neither dark nor light`],
  ])) {
    const link = readLink(query);
    assert.deepEqual([link.streams, link.faults], [streams, faults], query);
  }
});

test("what is wrong in an address is one text", () => {
  assert.equal(wrongOf({ faults: [], unread: [] }), "");
  assert.equal(wrongOf({ faults: ["a is b", "c is d"], unread: [] }), "The address is wrong: a is b; c is d.");
  assert.equal(
    wrongOf({ faults: [], unread: ["A", "B", "C", "D", "E"] }),
    "Part of the address cannot be read: “A”, “B”, “C”, 2 more. Write at most 8 streams, such as BTCUSDT@1m,EUR/USD@1h.",
  );
});

test("a candle closes at its end, also that of a month", () => {
  assert.equal(closeOf(60, "5m"), 360);
  assert.equal(closeOf(Date.UTC(2026, 11, 1) / 1000, "1M"), Date.UTC(2027, 0, 1) / 1000);
  assert.deepEqual([0, 41.2, 65, 3909, 183_600].map(countdown), ["0:00", "0:42", "1:05", "1:05:09", "2 d 3 h"]);
});

test("times are of UTC or of the reader's clock", () => {
  const before = process.env.TZ;
  process.env.TZ = "America/St_Johns";
  try {
    const winter = 1_764_000_000;
    assert.equal(moment(winter, true, false), "2025-11-24 16:00:00");
    assert.equal(moment(winter, true, true), "2025-11-24 12:30:00");
    assert.deepEqual([zone(false, winter), zone(true, winter)], ["UTC", "UTC−3:30"]);
    assert.deepEqual([onceUtc("2025-11-24T16:00", false), onceUtc("2025-11-24T12:30", true)], [winter, winter]);
    assert.equal(onceUtc("", false), null);
    assert.equal(withTimes("opens 2025-11-24T16:00:00Z", false), "opens 2025-11-24 16:00 UTC");
    assert.equal(withTimes("opens 2025-11-24T16:00:00Z", true), "opens 2025-11-24 12:30 UTC−3:30");
  } finally {
    if (before === undefined) delete process.env.TZ;
    else process.env.TZ = before;
  }
});

test("an average begins where there are enough candles, and reaches one beyond what is in sight", () => {
  const candles = loaded(0, 60, 120, 180, 240, 300);
  [1, 2, 3, 4, 5, 9].forEach((close, index) => Object.assign(candles.entries[index], { close }));
  const values = (...span) => candles.averages("close", 3, ...span).map(({ time, value }) => [time, value]);
  const whole = [[120, 2], [180, 3], [240, 4], [300, 6]]; // prettier-ignore
  assert.deepEqual(values(0, 300), whole);
  assert.deepEqual(values(240, 240), whole.slice(1));
  assert.deepEqual(values(0, 60), whole.slice(0, 1));
  assert.deepEqual(loaded(0, 60).averages("close", 3, 0, 60), []);
  candles.outdate(0, 120);
  assert.deepEqual(values(0, 300), [[240, 4], [300, 6]]); // prettier-ignore
});

test("candles whose values are not valid any more are marked until each of them is had anew, or is none any more", () => {
  const candles = loaded(0, 60, 120, 180, 240);
  const marked = () => candles.entries.filter(({ isOutdated }) => isOutdated).map(({ time }) => time);
  assert.equal(candles.outdate(600, 900), false);
  assert.equal(candles.outdate(0, 240), true);
  assert.deepEqual(marked(), [0, 60, 120, 180]);
  candles.put({ candle: candle(180), isClosed: true, isBackfilled: false, isRevised: true });
  assert.equal(candles.newestOutdated, 120);
  candles.renew([{ ...candle(120), close: 7 }], 120);
  assert.deepEqual([candles.at(120).close, candles.at(120).isRevised, ...marked()], [7, true, 0, 60]);
  candles.renew([candle(0)], 60);
  assert.deepEqual([candles.at(60), candles.at(0).isRevised, candles.newestOutdated], [undefined, false, undefined]);
  candles.outdate(0, 60);
  candles.renew([], 0);
  assert.deepEqual(
    candles.entries.map(({ time }) => time),
    [120, 180, 240],
  );
});

test("the price a day ago is of the candle that was open then, or of the last one before a rest", () => {
  const candles = [0, 900, 7200].map((time) => ({ time, open: time + 1, close: time + 2 }));
  assert.deepEqual(
    [-1, 0, 899, 1000, 5000, 7300].map((time) => priceAt(candles, time, 900)),
    [null, 1, 1, 901, 902, 7201],
  );
});

test("the intervals of an instrument are its own and those that the relay builds, shortest first", () => {
  const instrument = { intervals: ["1m", "1h", "1d"], derivedIntervals: ["3m", "2h", "1w", "1M"] };
  assert.deepEqual(intervalsOf(instrument), ["1m", "3m", "1h", "2h", "1d", "1w", "1M"]);
  assert.deepEqual(intervalsOf({ intervals: ["5m"] }), ["5m"]);
  assert.deepEqual(intervalsOf(undefined), []);
});

test("the last day of a symbol is asked for once a day, by the candles that it has", async () => {
  const asked = [];
  const day = new DayAgo(async (...what) => {
    asked.push(what);
    return [{ time: 0, open: 7, close: 8 }];
  });
  const instrument = { symbol: "X", intervals: ["1m", "1h"] };
  assert.equal(day.priceOf(instrument, 86_500), null);
  await Promise.resolve();
  assert.equal(day.priceOf(instrument, 86_500), 7);
  assert.equal(day.priceOf(instrument, 90_000), 8);
  assert.deepEqual(asked, [["X", "1h", 28]]);
  assert.equal(day.priceOf({ symbol: "Y", intervals: ["1d"] }, 86_500), null);
  assert.equal(asked.length, 1);
});

test("the last day is a hundred candles of a quarter of an hour, or what there is near to that", () => {
  const of = (...intervals) => dayOf({ intervals });
  assert.deepEqual(of("1m", "5m", "15m", "1h"), { interval: "15m", step: 900, count: 100 });
  assert.deepEqual(of("1h", "5m"), { interval: "5m", step: 300, count: 292 });
  assert.equal(of("1m", "1d"), null);
  assert.equal(dayOf(undefined), null);
});

test("the watch list has each symbol once, and no more than it has room for", () => {
  const list = ["A", "B"];
  assert.deepEqual(added(list, "C"), ["A", "B", "C"]);
  assert.equal(added(list, "B"), list);
  const full = Array.from({ length: MOST_SYMBOLS }, (_, index) => `S${index}`);
  assert.equal(added(full, "A"), null);
  assert.equal(added(full, "S7"), full);
  assert.deepEqual(removed(list, "A"), ["B"]);
});

test("a symbol of the watch list moves to another place, or to the end that is nearer", () => {
  const list = ["A", "B", "C"];
  const places = [-1, 0, 1, 2, 9].map((place) => moved(list, "B", place).join(""));
  assert.deepEqual(places, ["BAC", "BAC", "ABC", "ACB", "ACB"]);
});

test("a watch list that was remembered is read, whatever became of it", () => {
  assert.deepEqual(readKept('{"symbols":["A","EUR/USD"],"isOpen":true}'), { symbols: ["A", "EUR/USD"], isOpen: true });
  assert.deepEqual(readKept('{"symbols":[]}'), { symbols: [], isOpen: false });
  assert.deepEqual(readKept('{"symbols":["A",7,"A","B@1m","",null,"C"]}').symbols, ["A", "C"]);
  const many = JSON.stringify({ symbols: Array.from({ length: 99 }, (_, index) => `S${index}`) });
  assert.equal(readKept(many).symbols.length, MOST_SYMBOLS);
  for (const text of [null, "", "{", "null", "[]", '"A"', "7", '{"symbols":"A"}']) {
    assert.deepEqual(readKept(text), { symbols: null, isOpen: false }, String(text));
  }
});

const market = prepare(
  [
    "BTCAUD BTC AUD",
    "BTCEUR BTC EUR",
    "BTCUSDT BTC USDT",
    "WBTCBTC WBTC BTC",
    "EUR/USD EUR USD",
    "ETHBTC ETH BTC",
    "BTCSTUSDT BTCST USDT",
  ]
    .map((line) => line.split(" "))
    .map(([symbol, base, quote]) => ({ symbol, base, quote, provider: "demo", assetClass: "demo" })),
);
const venues = prepare(
  ["^GSPC", "ES=F", "M&M.NS", "NQ1!", "BTC/USDT:USDT", "demo:X:EURUSD"].map((symbol) => ({
    symbol,
    base: "B",
    quote: "Q",
    name: { "^GSPC": "S&P 500", "M&M.NS": "Mahindra" }[symbol] ?? null,
    provider: "demo",
    assetClass: "demo",
  })),
);
const found = (text, hints) => search(market, parse(text).words, hints).map(({ symbol }) => symbol);

test("the search puts the exact symbol first, then its base, then what begins with it", () => {
  assert.deepEqual(found("btcusdt"), ["BTCUSDT"]);
  assert.deepEqual(found("btc").slice(0, 4), ["BTCUSDT", "BTCEUR", "BTCAUD", "BTCSTUSDT"]);
  assert.deepEqual(found("eurusd"), ["EUR/USD"]);
  assert.deepEqual(found("eur usd")[0], "EUR/USD");
  assert.deepEqual(found("nothing"), []);
});

test("among equals the symbol on screen comes first, then what people trade against, then what was used last", () => {
  assert.deepEqual(found("btc").slice(0, 3), ["BTCUSDT", "BTCEUR", "BTCAUD"]);
  assert.deepEqual(found("btc", { shown: "BTCAUD", recent: ["BTCEUR"] }).slice(0, 2), ["BTCAUD", "BTCUSDT"]);
  assert.equal(found("btc", { recent: ["BTCEUR"] })[0], "BTCUSDT");
  assert.equal(found("", { recent: ["ETHBTC"] })[0], "ETHBTC");
  assert.equal(found("btcusdt", { recent: ["BTCSTUSDT"], shown: "BTCEUR" })[0], "BTCUSDT");
});

test("currencies are found by their names too, and by how those begin", () => {
  assert.equal(found("bitcoin")[0], "BTCUSDT");
  assert.equal(found("bitc 5m")[0], "BTCUSDT");
  assert.equal(found("bitcoin euro")[0], "BTCEUR");
  assert.equal(found("ether")[0], "ETHBTC");
  assert.equal(found("euro dollar")[0], "EUR/USD");
});

test("the names are those by which the relay says what may be meant", () => {
  assert.deepEqual({ COMMON_NAMES, QUOTES }, JSON.parse(process.env.SPELLINGS ?? ""));
});

test("an interval after the words is one, as people write it; alone it is for the symbol on screen", () => {
  assert.deepEqual(parse("btc 5m"), { words: ["BTC"], name: "BTC", interval: "5m" });
  assert.deepEqual(parse("BTCUSDT@1M"), { words: ["BTCUSDT"], name: "BTCUSDT", interval: "1M" });
  assert.deepEqual(
    ["btc 1H", "btc 1min", "btc 5 m", "btc 1 Day", "btc 1 month", "5m"].map((text) => parse(text).interval),
    ["1h", "1m", "5m", "1d", "1M", "5m"],
  );
  assert.deepEqual(parse("1inch usdt"), { words: ["1INCH", "USDT"], name: "1INCH", interval: null });
  assert.equal(found(parse("5m").words.join(" "), { recent: ["ETHBTC"], shown: "BTCEUR" })[0], "BTCEUR");
});

test("symbols with the signs of venues are found as they are written, and by their names", () => {
  const first = (text) => search(venues, parse(text).words)[0]?.symbol;
  for (const symbol of ["^GSPC", "ES=F", "M&M.NS", "NQ1!", "BTC/USDT:USDT"]) assert.equal(first(symbol), symbol);
  assert.equal(first("x:eurusd"), "demo:X:EURUSD");
  assert.equal(first("btcusdtusdt"), "BTC/USDT:USDT");
  assert.equal(first("gspc 5m"), "^GSPC");
  assert.equal(first("s&p"), "^GSPC");
  assert.equal(first("mahindra"), "M&M.NS");
});

test("a symbol is found by other signs between its currencies, and with its provider", () => {
  assert.equal(found("BTC/USDT")[0], "BTCUSDT");
  assert.equal(found("btc-usdt 15m")[0], "BTCUSDT");
  assert.equal(found("xbt/eur")[0], "BTCEUR");
  assert.equal(found("demo:BTCUSDT")[0], "BTCUSDT");
  assert.equal(parse("EUR/USD 1h").name, "EUR/USD");
});
