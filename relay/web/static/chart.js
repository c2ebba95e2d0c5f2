// @ts-check
// One chart: candles and volume by Lightweight Charts, drawn at most once a frame. Knows no network and no page.

import { cancel, soon } from "./frames.js";
import { AverageLine } from "./averages.js";
import { GapBands } from "./gaps.js";
import { moment, percent, price, secondsOf } from "./format.js";
import { TimeAxis } from "./time_axis.js";

// A classic script that the page loads first.
const { CandlestickSeries, HistogramSeries, LineSeries, PriceScaleMode, createChartEx, createSeriesMarkers } =
  globalThis.LightweightCharts;

const OLDER_MARGIN = 60;
const MOST_SINGLE_UPDATES = 200;
const RIGHT_OFFSET = 5;
const DAY_S = 86_400;
const SCALES = {
  normal: PriceScaleMode.Normal,
  logarithmic: PriceScaleMode.Logarithmic,
  percent: PriceScaleMode.Percentage,
};
/** Of how many candles, of which of their values, and in which colour of the style sheet. */
const AVERAGES = [
  { count: 20, name: "close", color: "average-short" },
  { count: 50, name: "close", color: "average-long" },
  { count: 20, name: "volume", color: "average-short" },
];

/** Shows one `Candles`. `onOlder` is called when the left edge comes near, `onPointer` with a time or null. */
export class Chart {
  /** @type {any} The `Candles` that are shown; null before the first ones. */
  #candles = null;
  #interval = "";
  #axis = new TimeAxis();
  #chart;
  #series;
  #volume;
  #markers;
  #bands;
  #onTheme;
  #changed = new Set();
  #isWhole = false;
  #drawnTo = 0;
  #colors = {};
  #marked = "";
  #last;
  #averages = [];
  #view = { scale: "normal", isLocal: false, hasAverages: false };

  constructor(element, { onOlder, onPointer, onMove }) {
    this.#chart = createChartEx(element, this.#axis, {
      autoSize: true,
      layout: {
        // It would bring an inline style, which the content policy forbids; the page's footer holds the notice.
        attributionLogo: false,
        fontFamily: getComputedStyle(element).fontFamily,
        fontSize: 11,
        background: { color: "transparent" },
      },
      crosshair: { mode: 0 },
      // Pages scroll under a finger that moves up or down.
      handleScroll: { vertTouchDrag: false },
      rightPriceScale: { scaleMargins: { top: 0.02, bottom: 0.22 } },
      timeScale: {
        rightOffset: RIGHT_OFFSET,
        minBarSpacing: 0.8,
        timeVisible: true,
        tickMarkFormatter: this.#axis.textOf,
      },
      localization: { locale: "en", percentageFormatter: (value) => percent(value / 100) },
    });
    // The library's own tag shows the last candle in sight, which is not the last price when scrolled back.
    const own = { borderVisible: true, lastValueVisible: false, priceLineVisible: false };
    this.#series = this.#chart.addSeries(CandlestickSeries, own);
    this.#volume = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.#volume.priceScale().applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    this.#markers = createSeriesMarkers(this.#series, []);
    this.#bands = new GapBands();
    this.#series.attachPrimitive(this.#bands);
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range === null || !this.#candles?.entries.length) return;
      if (range.from < OLDER_MARGIN) onOlder();
      onMove(this.isAtEnd);
    });
    this.#chart.subscribeCrosshairMove(({ time }) => onPointer(time ?? null));
    // A finger has no pointer that hovers: a tap shows the candle under it, a second one the newest again.
    let tapped = null;
    this.#chart.subscribeClick(({ time, sourceEvent }) => {
      if (time === undefined || matchMedia("(hover: hover)").matches || sourceEvent === undefined) return;
      const entry = this.#candles?.at(time);
      tapped = entry === undefined || tapped === time ? null : time;
      if (tapped === null) this.#chart.clearCrosshairPosition();
      else this.#chart.setCrosshairPosition(entry.close, time, this.#series);
      onPointer(tapped);
    });
    this.#onTheme = () => this.#paint();
    document.addEventListener("themechange", this.#onTheme);
    this.#paint();
  }

  /** Whether the newest candle is in sight, and not far from where it stands at first. */
  get isAtEnd() {
    const scale = this.#chart.timeScale();
    const { from, to } = scale.getVisibleLogicalRange() ?? { from: 0, to: 0 };
    return scale.scrollPosition() > -2 && scale.scrollPosition() <= Math.max(RIGHT_OFFSET, (to - from) / 2);
  }

  /** The bars in sight, counted from the first candle, and the times at the edges. */
  get visible() {
    const scale = this.#chart.timeScale();
    return {
      bars: scale.getVisibleLogicalRange(),
      times: scale.getVisibleRange(),
      spacing: scale.options().barSpacing,
    };
  }

  /** What stands beside the candles: the tag of the last price, the mode of the scale, how many averages are seen. */
  get marks() {
    const value = this.#last?.options().price ?? null;
    const tag = value === null ? "" : this.#series.priceFormatter().format(value);
    const averages = this.#averages.filter(({ line }) => line.isShown).length;
    return { value, tag, scale: this.#view.scale, averages };
  }

  /** The width of the price scale; the charts of a grid have the widest of theirs. */
  get scaleWidth() {
    return this.#chart.priceScale("right").width();
  }

  set scaleWidth(least) {
    this.#chart.priceScale("right").applyOptions({ minimumWidth: least });
  }

  /** Show candles, from their newest on. */
  show(candles, interval, decimals) {
    this.#candles = candles;
    this.#interval = interval;
    this.setDecimals(decimals);
    const step = secondsOf(interval) ?? Infinity;
    this.#chart.applyOptions({ timeScale: { timeVisible: step < DAY_S, secondsVisible: step < 60 } });
    this.#showTimes();
    this.#drawAll();
    this.#settle();
    this.#chart.timeScale().resetTimeScale();
    this.#chart.priceScale("right").applyOptions({ autoScale: true });
  }

  /** Show prices with so many decimals. */
  setDecimals(decimals) {
    const formatter = (value) => price(value, decimals);
    this.#series.applyOptions({ priceFormat: { type: "custom", formatter, minMove: 10 ** -decimals } });
  }

  /** Keep the candles below what is written over their first pixels. */
  setHeadroom(pixels) {
    const autoscaleInfoProvider = (original) => {
      const info = original();
      const { above = 0, below = 0 } = info?.margins ?? {};
      return info && { ...info, margins: { above: above + pixels, below } };
    };
    this.#series.applyOptions({ autoscaleInfoProvider });
  }

  /** Show prices on another scale, times of another zone, with averages or without. */
  setView(view) {
    this.#view = view;
    this.#chart.priceScale("right").applyOptions({ mode: SCALES[view.scale] });
    this.#showTimes();
    for (const { series, line } of this.#averages) series.detachPrimitive(line);
    this.#averages = view.hasAverages ? AVERAGES.map((average) => this.#newAverage(average)) : [];
    if (this.#candles !== null) this.redraw();
  }

  /** Go to the candle that was open at a time. */
  goTo(time) {
    // What was loaded for it waits for its turn to be drawn.
    this.#draw();
    const scale = this.#chart.timeScale();
    const index = scale.timeToIndex(time, true);
    const range = scale.getVisibleLogicalRange();
    if (index === null || range === null) return;
    const half = (range.to - range.from) / 2;
    scale.setVisibleLogicalRange({ from: index - half, to: index + half });
  }

  /** Draw one candle again with the next frame. */
  changed(time) {
    this.#changed.add(time);
    soon(this.#draw);
  }

  /** Draw everything again with the next frame; what is in sight stays where it is. */
  redraw() {
    this.#isWhole = true;
    soon(this.#draw);
  }

  /** Move by a share of the width, up to the newest candle; negative into the past. */
  scroll(share) {
    const scale = this.#chart.timeScale();
    const range = scale.getVisibleLogicalRange();
    if (range === null) return;
    scale.scrollToPosition(Math.min(RIGHT_OFFSET, scale.scrollPosition() + share * (range.to - range.from)), false);
  }

  /** Make candles wider (above 1) or narrower. */
  zoom(factor) {
    const scale = this.#chart.timeScale();
    const barSpacing = Math.min(60, Math.max(0.8, scale.options().barSpacing * factor));
    scale.applyOptions({ barSpacing });
  }

  /** Go to the newest candle. */
  toEnd() {
    this.#chart.timeScale().scrollToPosition(RIGHT_OFFSET, false);
  }

  /** Free everything. */
  close() {
    cancel(this.#draw);
    document.removeEventListener("themechange", this.#onTheme);
    this.#chart.remove();
  }

  // -- drawing -------------------------------------------------------------------------------------------------------

  #draw = () => {
    if (this.#candles !== null) {
      if (this.#isWhole || this.#changed.size > MOST_SINGLE_UPDATES) this.#drawAll();
      else this.#drawChanged();
    }
    this.#settle();
  };

  /** Candles of a day and more open at midnight in UTC, wherever the reader is. */
  #showTimes() {
    const step = secondsOf(this.#interval) ?? Infinity;
    const isLocal = this.#view.isLocal && step < DAY_S;
    const text = (time) => moment(time, step < 60, isLocal);
    this.#chart.applyOptions({
      localization: { timeFormatter: (time) => (step < DAY_S ? text(time) : text(time).slice(0, 10)) },
    });
    if (this.#axis.isLocal === isLocal) return;
    this.#axis.isLocal = isLocal;
    // The axis weighs a time when it comes; what is there already has to come anew.
    for (const one of [this.#series, this.#volume]) one.setData([]);
  }

  #newAverage(average) {
    const series = average.name === "volume" ? this.#volume : this.#series;
    const line = new AverageLine(average, this.#colors[average.color]);
    series.attachPrimitive(line);
    return { series, line };
  }

  /** Put the tag of the last price where that is, whatever is in sight. */
  #drawLast() {
    const last = this.#candles?.last;
    if (last === undefined) {
      if (this.#last !== undefined) this.#series.removePriceLine(this.#last);
      this.#last = undefined;
      return;
    }
    const color = this.#colors[last.close >= last.open ? "up" : "down"];
    const options = { price: last.close, color, axisLabelColor: color };
    if (this.#last !== undefined) this.#last.applyOptions(options);
    else
      this.#last = this.#series.createPriceLine({
        lineWidth: 1,
        lineStyle: 1,
        axisLabelVisible: true,
        title: "",
        ...options,
      });
  }

  #settle() {
    cancel(this.#draw);
    this.#changed.clear();
    this.#isWhole = false;
  }

  #drawAll() {
    const holes = this.#candles.holes(this.#interval);
    const rows = this.#candles.entries.map((entry) => this.#row(entry));
    for (const { times } of holes) rows.push(...times.map((time) => ({ time })));
    if (holes.length) rows.sort((one, other) => one.time - other.time);
    this.#series.setData(rows);
    // Where a market has no volume, a row of nothing is no picture of it.
    const hasVolume = this.#candles.entries.some(({ volume }) => volume > 0);
    this.#volume.applyOptions({ visible: hasVolume });
    for (const { series, line } of this.#averages) {
      line.isShown = series !== this.#volume || hasVolume;
      line.show(this.#candles);
    }
    this.#volume.setData(this.#candles.entries.map((entry) => this.#bar(entry)));
    this.#bands.show(holes, this.#colors.gap);
    this.#drawnTo = this.#candles.last?.time ?? 0;
    this.#drawLast();
    this.#mark();
  }

  #drawChanged() {
    let isMarked = false;
    for (const time of [...this.#changed].sort((one, other) => one - other)) {
      const entry = this.#candles.at(time);
      if (entry === undefined) continue;
      const isOlder = time < this.#drawnTo;
      this.#series.update(this.#row(entry), isOlder);
      this.#volume.update(this.#bar(entry), isOlder);
      isMarked ||= entry.isBackfilled || entry.isRevised;
      this.#drawnTo = Math.max(this.#drawnTo, time);
    }
    this.#drawLast();
    if (isMarked) this.#mark();
  }

  #row({ time, open, high, low, close, isClosed, isBackfilled, isRevised, isOutdated }) {
    const row = { time, open, high, low, close };
    const side = close >= open ? "up" : "down";
    if (isOutdated) {
      const grey = this.#colors.outdatedFaint;
      return { ...row, color: grey, borderColor: grey, wickColor: grey };
    }
    const edge = isRevised ? this.#colors.revised : isBackfilled ? this.#colors.backfilled : null;
    if (edge !== null) Object.assign(row, { borderColor: edge, wickColor: edge, color: this.#colors[`${side}Faint`] });
    // Not quite empty: the label of the last price takes its colour from it.
    if (!isClosed) row.color = this.#colors[`${side}Hollow`];
    return row;
  }

  #bar({ time, volume, open, close, isBackfilled, isRevised, isOutdated }) {
    const side = close >= open ? "upFaint" : "downFaint";
    const color =
      this.#colors[isOutdated ? "outdatedFaint" : isRevised ? "revisedFaint" : isBackfilled ? "backfilledFaint" : side];
    return { time, value: volume, color };
  }

  /** One dot under each run of backfilled candles, one square over each revised one: colour alone is not enough. */
  #mark() {
    const markers = [];
    let wasBackfilled = false;
    for (const { time, isBackfilled, isRevised } of this.#candles.entries) {
      if (isRevised)
        markers.push({ time, position: "aboveBar", shape: "square", color: this.#colors.revised, size: 0.7 });
      if (isBackfilled && !wasBackfilled) {
        markers.push({ time, position: "belowBar", shape: "circle", color: this.#colors.backfilled, size: 0.7 });
      }
      wasBackfilled = isBackfilled;
    }
    const text = JSON.stringify(markers);
    if (text !== this.#marked) this.#markers.setMarkers(markers);
    this.#marked = text;
  }

  #paint() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const { up, down, backfilled, revised, outdated } = (this.#colors = {
      up: color("up"),
      down: color("down"),
      backfilled: color("backfilled"),
      revised: color("revised"),
      outdated: color("muted"),
      gap: color("gap"),
    });
    for (const { color: name } of AVERAGES) this.#colors[name] = color(name);
    for (const [name, value] of Object.entries({ up, down, backfilled, revised, outdated })) {
      this.#colors[`${name}Faint`] = `${value}73`;
      this.#colors[`${name}Hollow`] = `${value}2e`;
    }
    this.#chart.applyOptions({
      layout: { textColor: color("muted") },
      grid: { vertLines: { color: color("grid") }, horzLines: { color: color("grid") } },
      rightPriceScale: { borderColor: color("line") },
      timeScale: { borderColor: color("line") },
      crosshair: {
        vertLine: { color: color("line-strong"), labelBackgroundColor: color("crosshair") },
        horzLine: { color: color("line-strong"), labelBackgroundColor: color("crosshair") },
      },
    });
    this.#series.applyOptions({
      upColor: up,
      borderUpColor: up,
      wickUpColor: up,
      downColor: down,
      borderDownColor: down,
      wickDownColor: down,
    });
    this.setView(this.#view);
    this.redraw();
  }
}
