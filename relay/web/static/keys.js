// @ts-check
// The keyboard: which key does what, and when the keys belong to somebody else.

const CLOSED = "dialog:not([open])";

/** Call `actions[key]` for keys typed anywhere but into a field or a dialog, whether capitals are locked or not. */
export function listen(actions) {
  addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    // A dialog that was closed keeps the focus up to the next frame, but the keys are the page's already.
    if (target instanceof Element && target.closest(`:is(input, textarea, select):not(${CLOSED} *)`)) return;
    const name = (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + (event.altKey ? "Alt+" : "") + key;
    // Space and Enter press the button that has the focus.
    const action = actions[name] ?? actions[name.length === 1 ? name.toLowerCase() : name];
    if (action === undefined) return;
    event.preventDefault();
    action();
  });
}
