// @ts-check
// The status page: asks the relay every two seconds while somebody looks, and shows what it answers.

import { span, utc } from "./format.js";
import { byId, fill, hide, make, write, writeState } from "./page.js";
import { partOf, relaysTile, showRelays } from "./relays.js";
import { Streams } from "./streams.js";
import { askToken, currentToken } from "./token.js";

const EVERY_MS = 2000;
const TIMEOUT_MS = 10_000;
const ADDRESS = "api/v1/market-data/status";

const count = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const size = (bytes) => {
  const step = bytes < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** step).toPrecision(step ? 3 : bytes < 100 ? 2 : 3).replace(/\.0$/, "")} ${["B", "kB", "MB", "GB", "TB"][step]}`;
};

/** Return a long time in two units: 3 d 4 h, 5 h 12 min, 7 min 30 s. */
function long(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const [d, h, m] = [Math.floor(s / 86_400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  return m ? `${m} min ${s % 60} s` : `${s} s`;
}

const level = (value, warn, bad) => (value >= bad ? "bad" : value >= warn ? "warn" : undefined);
const spread = (lag) => (lag === null ? "–" : `${span(lag.p50)} / ${span(lag.p99)}`);
const sum = (counts) => Object.values(counts).reduce((total, one) => total + one, 0);

// -- tiles ----------------------------------------------------------------------------------------------------------

function tiles(status, rates) {
  const { clients, traffic, streams, store, history, facades, cluster } = status;
  const live = streams.filter(({ status: state }) => state === "connected" || state === "market_closed").length;
  const delay = traffic.write_delay_ms;
  return [
    { title: "Up for", figure: long(status.uptime_s), detail: `version ${status.version}` },
    {
      title: "Clients",
      figure: count.format(clients.connected),
      detail: clients.lagging ? `${count.format(clients.lagging)} lag` : some(clients.subscriptions, "subscription"),
      level: clients.lagging ? "warn" : undefined,
    },
    {
      title: "Live streams",
      figure: `${count.format(live)} of ${count.format(streams.length)}`,
      detail: some(status.connections, "upstream connection"),
      level: live < streams.length ? "warn" : undefined,
    },
    {
      title: "Updates in",
      figure: rate(rates.updates_in, "update"),
      detail: `${short.format(traffic.updates_in)} so far`,
    },
    {
      title: "Frames out",
      figure: rate(rates.frames_out, "frame"),
      detail: `${short.format(traffic.frames_out)} so far`,
    },
    {
      title: "Bytes out",
      figure: rates.bytes_out === null ? "–" : `${size(rates.bytes_out)}/s`,
      detail: `${size(traffic.bytes_out)} so far`,
    },
    {
      title: "Delay in the relay",
      figure: delay === null ? "–" : fine(delay.p99),
      detail: delay === null ? "nothing was sent yet" : `at most, for 99 in 100; half within ${fine(delay.p50)}`,
      level: level(delay?.p99 ?? 0, 100, 250),
    },
    {
      title: "Longest pause",
      figure: fine(traffic.loop_lag_longest_ms),
      detail: "of the relay in the last minute",
      level: level(traffic.loop_lag_longest_ms, 100, 500),
    },
    {
      title: "History answers",
      figure: short.format(sum(history)),
      detail: Object.entries(history)
        .map(([source, number]) => `${short.format(number)} ${source}`)
        .join(", "),
    },
    ...facades
      .filter(({ requests }) => sum(requests) > 0)
      .map((facade) => ({
        title: `Answers to ${facade.title}`,
        figure: short.format(sum(facade.requests)),
        detail: `${some(facade.upstream_calls, "call")} upstream${facade.weight_asked ? `, weight ${short.format(facade.weight_saved)} saved` : ""}`,
      })),
    ...(cluster ? [relaysTile(cluster)] : []),
    {
      title: "Store",
      figure: store.problem ? "cannot be used" : size(store.file_bytes ?? 0),
      detail:
        store.problem ??
        `${short.format(store.candles ?? 0)} candles${store.queued ? `, ${count.format(store.queued)} wait` : ""}${store.set_aside.length ? `, ${count.format(store.set_aside.length)} symbols set aside` : ""}`,
      level: store.problem ? "bad" : undefined,
    },
  ];
}

function fine(ms) {
  return ms < 9.95 ? `${ms.toFixed(1)} ms` : span(ms);
}

function rate(perSecond, what) {
  return perSecond === null ? "–" : `${some(perSecond, what)}/s`;
}

/** Return how many of what there are: 1 update, 2.5 updates. */
function some(number, what) {
  const text = short.format(number);
  return `${text} ${what}${text === "1" ? "" : "s"}`;
}

// How a connection ends, by who ends it and the close code; 1006 is none.
const ENDS = {
  client: {
    1000: "closed by the program",
    1001: "left by closing the page",
    1005: "closed without a reason",
    1006: "lost or timed out",
  },
  relay: {
    1001: "closed because the relay ended",
    1002: "disconnected for broken frames",
    1006: "lost or timed out",
    1007: "disconnected for text that is not UTF-8",
    1009: "disconnected for a message that was too long",
    4000: "disconnected for reading too slowly",
    4001: "disconnected for too many invalid messages",
    4002: "disconnected for too many requests",
    4003: "disconnected because the token was removed",
  },
};

/** Return in words how a connection ended, `left by closing the page`. */
function endOf(by, code) {
  return ENDS[by]?.[code] ?? `closed by the ${by} with code ${code}`;
}

function showTiles(all) {
  fill(
    document.getElementById("tiles"),
    all,
    ({ title }) => title,
    ({ title }) =>
      make(
        "div",
        {},
        make("dt", {}, title),
        make("dd", { className: "figure number" }),
        make("dd", { className: "detail number" }),
      ),
    (tile, { figure, detail, level: found }) => {
      write(tile.children[1], figure);
      write(tile.children[2], detail);
      if (found) tile.children[1].dataset.level = found;
      else delete tile.children[1].dataset.level;
    },
  );
}

// -- providers and budgets ------------------------------------------------------------------------------------------

function showProviders(providers, refused) {
  const rows = [];
  for (const provider of providers) {
    rows.push({ key: provider.name, provider });
    const notes = [
      provider.message,
      waits(provider),
      causes(provider.reconnects),
      blocks(provider.blocked_loop),
    ].filter(Boolean);
    if (notes.length) rows.push({ key: `${provider.name} notes`, notes });
  }
  for (const { source } of refused) {
    rows.push({ key: `refused ${source}`, notes: [`${source} could not be loaded; relay plugins says why`] });
  }
  fill(
    byId("providers", HTMLTableElement).tBodies[0],
    rows,
    ({ key }) => key,
    ({ notes }) => (notes ? make("tr", {}, make("td", { className: "wide", colSpan: 13 })) : makeProvider()),
    (row, { provider, notes }) => (notes ? writeNotes(row.cells[0], notes) : writeProvider(row, provider)),
  );
}

function makeProvider() {
  const row = make("tr", {}, make("th", { scope: "row" }), make("td", {}, make("span", { className: "state" })));
  for (let place = 2; place < 13; place += 1) row.append(make("td", { className: "amount" }));
  return row;
}

function writeProvider(row, provider) {
  writeState(row.cells[1].firstElementChild, provider.state);
  const texts = [
    provider.title,
    null,
    count.format(provider.connections),
    count.format(provider.streams),
    `${short.format(provider.updates_in)} / ${short.format(provider.updates_out)}`,
    spread(provider.lag_spread_ms),
    count.format(sum(provider.reconnects)),
    count.format(provider.gaps),
    `${count.format(provider.backfills)} / ${count.format(provider.backfilled)}`,
    count.format(provider.revised),
    short.format(provider.conflated),
    count.format(provider.messages_skipped),
    provider.longest_recovery_s ? span(provider.longest_recovery_s * 1000) : "–",
  ];
  for (const [place, text] of texts.entries()) if (text !== null) write(row.cells[place], text);
}

function waits({ wait_s: seconds, wait_reason: reason }) {
  return seconds ? `Takes no requests for ${long(seconds)}: ${reason}` : "";
}

function causes(reconnects) {
  const known = Object.entries(reconnects).sort(([, one], [, other]) => other - one);
  const told = known.slice(0, 5).map(([cause, number]) => `${count.format(number)} × ${cause}`);
  if (known.length > 5) told.push(`${known.length - 5} more reasons`);
  return told.length ? `Reconnects: ${told.join("; ")}` : "";
}

function blocks({ count: times, longest_s: longest, last }) {
  if (!times) return "";
  const place = last ? `; last in ${last.place}, ${utc(last.time)} UTC` : "";
  return `Blocked the event loop ${count.format(times)} times, ${span(longest * 1000)} at most${place}`;
}

function writeNotes(cell, notes) {
  fill(
    cell,
    notes.map((text, place) => ({ text, place })),
    ({ place }) => String(place),
    () => make("p"),
    (line, { text }) => write(line, text),
  );
}

function showBudgets(budgets, titles, cluster) {
  const list = byId("budgets");
  hide(list.closest("section"), !budgets.length);
  fill(
    list,
    budgets,
    ({ provider, name }) => `${provider} ${name}`,
    () =>
      make(
        "li",
        {},
        make("span"),
        make("b"),
        make("meter"),
        ...["", "", ""].map(() => make("span", { className: "muted" })),
      ),
    (item, { provider, name, limit, used, left, reserved, resets_in_s: resets }) => {
      const [title, figure, bar, detail, reset, note] = item.children;
      const words = `${titles.get(provider) ?? provider}: ${name}`;
      write(title, words);
      write(figure, `${count.format(left)} left`);
      Object.assign(bar, { max: limit, low: limit / 10, high: limit / 4, optimum: limit, value: left });
      bar.setAttribute("aria-label", `${words}, left`);
      const part = partOf(cluster, provider);
      // What others spend of is kept from this relay, too.
      const kept = reserved ? `, ${count.format(reserved)} reserved for history${part ? " and other relays" : ""}` : "";
      write(detail, `${count.format(used)} of ${count.format(limit)} used${kept}`);
      write(reset, used ? `resets in ${long(resets)}` : "");
      write(note, part);
    },
  );
}

// -- clients --------------------------------------------------------------------------------------------------------

function showClients(clients) {
  const requests = Object.entries(clients.requests).map(
    ([action, number]) => `${count.format(number)} ${action.replaceAll("_", " ")}`,
  );
  const closes = [...clients.closes]
    .sort((one, other) => other.count - one.count)
    .slice(0, 8)
    .map(({ by, code, count: number }) => `${endOf(by, code)} ${count.format(number)}`);
  const facts = [
    ["Connected now", count.format(clients.connected)],
    ["By Server-Sent Events", count.format(clients.event_streams)],
    ["Connected so far", count.format(clients.opened)],
    ["Requests", requests.join(", ") || "none"],
    ["How they left", closes.join(", ") || "none left"],
  ];
  // Only where tokens are set: who used which.
  const tokens = Object.entries(clients.tokens ?? {}).map(([name, number]) => `${name} ${count.format(number)}`);
  if (tokens.length) facts.splice(1, 0, ["By token", tokens.join(", ")]);
  fill(
    document.getElementById("client-facts"),
    facts,
    ([name]) => name,
    ([name]) => make("div", {}, make("dt", {}, name), make("dd")),
    (fact, [, text]) => write(fact.lastElementChild, text),
  );
  const table = byId("clients", HTMLTableElement);
  hide(table.parentElement, !clients.newest.length);
  fill(
    table.tBodies[0],
    clients.newest,
    ({ id }) => String(id),
    ({ id }) => {
      const row = make(
        "tr",
        {},
        make("th", { scope: "row" }, String(id)),
        make("td", {}, make("span", { className: "state" })),
      );
      row.append(...Array.from({ length: 4 }, () => make("td", { className: "amount" })));
      return row;
    },
    (row, client) => {
      writeState(
        row.cells[1].firstElementChild,
        client.lagging ? "stale" : "connected",
        client.lagging ? "lags" : "keeps up",
      );
      write(row.cells[2], long(client.age_s));
      write(row.cells[3], count.format(client.streams));
      write(row.cells[4], client.waiting_bytes ? size(client.waiting_bytes) : "–");
      write(row.cells[5], client.conflated ? count.format(client.conflated) : "–");
    },
  );
}

// -- asking ---------------------------------------------------------------------------------------------------------

const connection = byId("connection");
const trouble = byId("trouble");
const pause = byId("pause");
const streams = new Streams();
/** @type {Record<string, any> | null} */
let before = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
let isAsking = false;
/** @type {number | null} */
let answeredAt = null;

function show(status) {
  const rates = {};
  for (const name of ["updates_in", "frames_out", "bytes_out"]) {
    // Of the same run only: a relay that was started again counts from 0.
    const last = before?.epoch === status.epoch ? before : status;
    const seconds = status.uptime_s - last.uptime_s;
    rates[name] = seconds > 0 ? (status.traffic[name] - last.traffic[name]) / seconds : null;
  }
  before = status;
  const titles = new Map(status.providers.map(({ name, title }) => [name, title]));
  showTiles(tiles(status, rates));
  showProviders(status.providers, status.plugins_refused);
  showRelays(status.cluster, titles);
  showBudgets(status.budgets, titles, status.cluster);
  streams.show(status.streams, status.server_time);
  showClients(status.clients);
}

async function ask() {
  const token = currentToken();
  /** @type {Record<string, string>} */
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const answer = await fetch(ADDRESS, { headers, cache: "no-store", redirect: "error", signal });
  if (answer.status === 401) {
    await askToken(token ? "The token that was entered is not valid." : "Enter a token to see its status.");
    return ask();
  }
  if (!answer.ok) throw new Error(`it answered ${answer.status}`);
  return answer.json();
}

async function turn() {
  timer = undefined;
  isAsking = true;
  const started = performance.now();
  try {
    const status = await ask();
    show(status);
    answeredAt = Date.now();
    writeState(connection, "connected", "Live");
    trouble.hidden = true;
  } catch (error) {
    writeState(connection, "disconnected", "No answer");
    const since = answeredAt === null ? "" : ` The values shown are ${long((Date.now() - answeredAt) / 1000)} old.`;
    const { name, message } = /** @type {Error} */ (error);
    const reason =
      name === "TimeoutError"
        ? "it takes too long to answer"
        : error instanceof TypeError
          ? "it cannot be reached"
          : message;
    write(
      trouble,
      `The status of the relay is not available: ${reason}. Trying again every ${EVERY_MS / 1000} s.${since}`,
    );
    trouble.hidden = false;
  }
  isAsking = false;
  showRest();
  // A relay with very many streams takes long to answer: leave it four times as long in peace.
  plan(Math.max(EVERY_MS, 4 * (performance.now() - started)));
}

function isResting() {
  return document.hidden || pause.getAttribute("aria-pressed") === "true";
}

function plan(ms) {
  if (timer === undefined && !isAsking && !isResting()) timer = setTimeout(turn, ms);
}

function changeRest() {
  if (isResting()) {
    clearTimeout(timer);
    timer = undefined;
    showRest();
  } else {
    plan(0);
  }
}

function showRest() {
  if (isResting()) writeState(connection, "", "Paused");
}

document.addEventListener("visibilitychange", changeRest);
pause.addEventListener("click", () => {
  const isPaused = pause.getAttribute("aria-pressed") !== "true";
  pause.setAttribute("aria-pressed", String(isPaused));
  changeRest();
});
plan(0);
