// @ts-check
// Draws moving averages into a Lightweight Charts series, where that has its prices: on a scale of per cent a series of
// its own would begin at zero, wherever the candles are.

/** A series primitive: the average of the last `count` values called `name`. Drawn with its series, from its candles. */
export class AverageLine {
  isShown = true;
  /** @type {Record<string, any> | null} */
  #host = null;
  /** @type {import("./candles.js").Candles | null} */
  #candles = null;
  #count;
  #name;
  #color;

  constructor({ count, name }, color) {
    this.#count = count;
    this.#name = name;
    this.#color = color;
  }

  /** Draw the average of these from now on. */
  show(candles) {
    this.#candles = candles;
    this.#host?.requestUpdate();
  }

  attached(host) {
    this.#host = host;
  }

  detached() {
    this.#host = null;
  }

  /** Keep the line in sight as the candles are. */
  autoscaleInfo() {
    const values = this.#rows().map(({ value }) => value);
    return values.length ? { priceRange: { minValue: Math.min(...values), maxValue: Math.max(...values) } } : null;
  }

  paneViews() {
    return [{ zOrder: () => "normal", renderer: () => ({ draw: (target) => this.#draw(target) }) }];
  }

  #rows() {
    const range = this.isShown ? this.#host?.chart.timeScale().getVisibleRange() : null;
    return range && this.#candles ? this.#candles.averages(this.#name, this.#count, range.from, range.to) : [];
  }

  #draw(target) {
    const rows = this.#rows();
    if (this.#host === null || !rows.length) return;
    const { chart, series } = this.#host;
    const scale = chart.timeScale();
    target.useMediaCoordinateSpace(({ context }) => {
      context.beginPath();
      for (const { time, value } of rows) context.lineTo(scale.timeToCoordinate(time), series.priceToCoordinate(value));
      context.lineWidth = 1;
      context.lineJoin = "round";
      context.strokeStyle = this.#color;
      context.stroke();
    });
  }
}
