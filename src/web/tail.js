// A list that grows at its end and stays there for as long as its reader does. It never asks for the
// layout where a message is added, only once for all that have come meanwhile: a busy room would
// else stop the page.

/** How often a growing list is moved on, in milliseconds. */
const PACE = 50;

/** So near is at the end, in pixels. */
const NEAR = 40;

export class Tail {
  #list;
  #most;
  #atEnd = true;
  #due = null;

  /** @param most how many children stay; the oldest go */
  constructor(list, most) {
    this.#list = list;
    this.#most = most;
    list.addEventListener("scroll", () => {
      // What moves while lines come and go is not the reader.
      if (this.#due === null) this.#atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR;
    }, { passive: true });
  }

  /** Adds a line at the end; returns the one that had to go for it, or undefined. */
  append(item) {
    this.#list.append(item);
    this.follow();
    if (this.#list.childElementCount <= this.#most) return undefined;
    const oldest = this.#list.firstElementChild;
    oldest.remove();
    return oldest;
  }

  /** Goes to the end, wherever the reader is. */
  toEnd() {
    this.#atEnd = true;
    this.follow();
  }

  /** What is shown has changed: the reader who was at the end is there again soon. */
  follow() {
    this.#due ??= setTimeout(() => {
      this.#due = null;
      if (this.#atEnd) this.#list.scrollTop = this.#list.scrollHeight;
    }, PACE);
  }

  clear() {
    this.#list.replaceChildren();
    this.#atEnd = true;
  }
}
