// @ts-check
// Draws what is missing into a Lightweight Charts series: a hatched band over the times of each hole.

const HATCH_PX = 7;

/** A series primitive; `show` takes the holes of `Candles.holes`. */
export class GapBands {
  /** @type {Record<string, any> | null} */
  #chart = null;
  #redraw = () => {};
  #holes = [];
  #color = "#888";

  /** Draw these holes from now on. */
  show(holes, color) {
    this.#holes = holes;
    this.#color = color;
    this.#redraw();
  }

  attached({ chart, requestUpdate }) {
    this.#chart = chart;
    this.#redraw = requestUpdate;
  }

  detached() {
    this.#chart = null;
    this.#redraw = () => {};
  }

  paneViews() {
    return [{ zOrder: () => "bottom", renderer: () => ({ draw: (target) => this.#draw(target) }) }];
  }

  #draw(target) {
    if (this.#chart === null || !this.#holes.length) return;
    const scale = this.#chart.timeScale();
    const half = scale.options().barSpacing / 2;
    target.useMediaCoordinateSpace(({ context, mediaSize }) => {
      for (const { times } of this.#holes) {
        const from = scale.timeToCoordinate(times[0]);
        const to = scale.timeToCoordinate(times.at(-1));
        if (from === null || to === null) continue;
        const left = Math.max(0, from - half);
        const right = Math.min(mediaSize.width, to + half);
        if (right > left) hatch(context, left, right, mediaSize.height, this.#color);
      }
    });
  }
}

function hatch(context, left, right, height, color) {
  context.save();
  context.beginPath();
  context.rect(left, 0, right - left, height);
  context.clip();
  context.globalAlpha = 0.1;
  context.fillStyle = color;
  context.fillRect(left, 0, right - left, height);
  context.globalAlpha = 0.45;
  context.strokeStyle = color;
  context.beginPath();
  for (let x = left - height; x < right; x += HATCH_PX) {
    context.moveTo(x, height);
    context.lineTo(x + height, 0);
  }
  context.stroke();
  if (right - left > 34) {
    context.globalAlpha = 1;
    context.fillStyle = color;
    context.font = "600 11px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillText("gap", (left + right) / 2, height * 0.72);
  }
  context.restore();
}
