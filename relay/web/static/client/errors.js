// @ts-check
// What leaves the client: one tree of errors, each with one line for people.

/** The relay cannot be used; the message is one line for people and carries no token. */
export class ClientError extends Error {
  get name() {
    return this.constructor.name;
  }
}

/** Nothing answers at the address, or not in time. */
export class Unreachable extends ClientError {}

/** The answer is not one of a relay; the address may belong to another server. */
export class BadReply extends ClientError {}

/**
 * The relay refused; `retryAfterMs` says when to come back.
 *
 * `code` is one of the contract's. Where the answer has none, the status gives it; it is empty where that says nothing
 * either.
 */
export class Refused extends ClientError {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} detail
   * @param {{ title?: string, retryAfterMs?: number | null }} more
   */
  constructor(status, code, detail, { title = "", retryAfterMs = null } = {}) {
    super(detail);
    this.status = status;
    this.code = /** @type {any} */ (code);
    this.detail = detail;
    this.title = title;
    this.retryAfterMs = retryAfterMs;
  }
}

/** The relay closed the connection for good; connecting again as before would end the same way. */
export class Disconnected extends ClientError {
  constructor(closeCode, reason) {
    super(`the relay closed the connection for good: ${reason || "no reason given"} (${closeCode})`);
    this.closeCode = closeCode;
    this.reason = reason;
  }
}

/** An argument is none that a relay could take; it is named, and nothing was sent. */
export class BadArgument extends ClientError {}

/** The client is used after it was closed. */
export class ClientClosed extends ClientError {
  constructor() {
    super("this client is closed; make a new one");
  }
}

/** Return a value as an error may repeat it: short, and quoted if it is a text. */
export function shown(value) {
  let text;
  try {
    text = typeof value === "string" ? JSON.stringify(value) : String(value);
  } catch {
    text = typeof value;
  }
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}
