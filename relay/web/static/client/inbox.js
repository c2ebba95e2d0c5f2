// @ts-check
// What the connection brought and nobody has read yet: in order, bounded, and of an open candle only the newest.

/** Holds messages until they are read, those who wait for one, and a fault that nobody was there to be told. */
export class Inbox {
  /** @type {Error | null} */
  #fault = null;
  #places = []; // each message in an object of its own with its size, so that it can be replaced where it stands
  #size = 0;
  #replaceable = new Map();
  #waiting = [];
  #most;
  #mostBytes;
  /** The size of what the relay sent last, until something of it is put here. */
  heardSize = 0;

  constructor(most, mostBytes) {
    this.#most = most;
    this.#mostBytes = mostBytes;
  }

  get isFull() {
    return this.#places.length > this.#most || this.#size > this.#mostBytes;
  }

  get isEmpty() {
    return !this.#places.length;
  }

  put(message) {
    const place = { message, size: this.heardSize };
    this.heardSize = 0;
    this.#size += place.size;
    if (message.type === "update" && !message.isClosed && !message.isRevised) {
      const before = this.#replaceable.get(message.stream);
      if (before !== undefined) {
        // An unread state of an open candle is replaced by the newer one, as the relay does for slow readers.
        this.#size -= before.size;
        Object.assign(before, place);
        return;
      }
      this.#replaceable.set(message.stream, place);
    } else if (message.stream !== undefined) {
      this.#replaceable.delete(message.stream);
    } else {
      this.#replaceable.clear();
    }
    this.#places.push(place);
    this.wake();
  }

  /** Return the oldest message; there has to be one. */
  pop() {
    const place = this.#places.shift();
    const { message } = place;
    this.#size -= place.size;
    if (this.#replaceable.get(message.stream) === place) this.#replaceable.delete(message.stream);
    return message;
  }

  /** Return the fault that nobody was told, if there is one; it is told now. */
  takeFault() {
    const fault = this.#fault;
    this.#fault = null;
    return fault;
  }

  forget(isForgotten) {
    this.#places = this.#places.filter(({ message }) => !isForgotten(message));
    this.#size = this.#places.reduce((sum, { size }) => sum + size, 0);
    for (const [stream, { message }] of this.#replaceable) if (isForgotten(message)) this.#replaceable.delete(stream);
  }

  /** Return when somebody wakes those who wait; throws the fault if there is one then. */
  wait() {
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  wake() {
    for (const { resolve } of this.#waiting.splice(0)) resolve();
  }

  /** Throw a fault at all who wait, else at the next one who reads; say whether somebody waited. */
  fail(fault) {
    const waiting = this.#waiting.splice(0);
    if (!waiting.length) this.#fault = fault;
    for (const { reject } of waiting) reject(fault);
    return waiting.length > 0;
  }
}
