// @ts-check
// The time axis of a chart: in UTC, or in the zone of the reader's clock, whose days begin at its own midnight.

import { moment, offsetOf } from "./format.js";

// A classic script that the page loads first.
const { TickMarkType, defaultHorzScaleBehavior } = globalThis.LightweightCharts;

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Decides which times are marked: a midnight before an hour, an hour before a minute. Times stay what they are. */
export class TimeAxis extends defaultHorzScaleBehavior() {
  /** Counts for times that are set after it changed. */
  isLocal = false;

  fillWeightsForPoints(points, from) {
    if (!this.isLocal) return super.fillWeightsForPoints(points, from);
    const first = Math.max(0, from - 1);
    const shifted = points.slice(first).map(({ time }) => {
      const seconds = this.key(time);
      return { time: this.convertHorzItemToInternal(seconds - offsetOf(seconds)), timeWeight: 0 };
    });
    super.fillWeightsForPoints(shifted, from - first);
    for (let index = from; index < points.length; index += 1)
      points[index].timeWeight = shifted[index - first].timeWeight;
  }

  /** What stands at the axis at a time. */
  textOf = (time, kind) => {
    const [date, clock] = moment(time, true, this.isLocal).split(" ");
    const [year, month, day] = date.split("-");
    if (kind === TickMarkType.Year) return year;
    if (kind === TickMarkType.Month) return MONTHS[Number(month) - 1];
    if (kind === TickMarkType.DayOfMonth) return String(Number(day));
    return kind === TickMarkType.TimeWithSeconds ? clock : clock.slice(0, 5);
  };
}
