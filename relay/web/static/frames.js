// @ts-check
// Shares the frames of the browser among the charts: many busy ones take turns, so that no frame takes long.

const MOST_IN_A_FRAME = 2;
const SLOW_MS = 19;
const waiting = new Set();
let frame = 0;
let ranAt = 0;

/** Call `draw` in one of the next frames, once; who asked first comes first. */
export function soon(draw) {
  waiting.add(draw);
  frame ||= requestAnimationFrame(run);
}

/** Do not call it any more. */
export function cancel(draw) {
  waiting.delete(draw);
}

function run(now) {
  frame = 0;
  // Where painting is slow, as without a graphics processor, fewer charts a frame keep the page quick.
  const most = now - ranAt > SLOW_MS ? 1 : MOST_IN_A_FRAME;
  ranAt = now;
  for (const draw of [...waiting].slice(0, most)) {
    waiting.delete(draw);
    draw();
  }
  if (waiting.size) frame = requestAnimationFrame(run);
}
