"use strict";

/** Make an element: `make("p", {className: "note"}, "text", child)`. */
function make(name, properties = {}, ...children) {
  const { attributes = {}, ...own } = properties;
  const element = Object.assign(document.createElement(name), own);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Limit a number to a range. */
function within(value, least, most) {
  return Math.min(Math.max(value, least), most);
}

/**
 * A viewer of pictures of one size: a slider between two, side by side, all, or their difference.
 *
 * Zoom and place are shared by all panes, so that they move together.
 */
class Viewer {
  static ZOOMS = [0.25, 0.5, 1, 2, 3, 4, 6, 8];
  static GAINS = [1, 4, 16, 64];
  static MODES = [
    ["slide", "Slider"],
    ["beside", "Side by side"],
    ["all", "All"],
    ["difference", "Difference"],
  ];

  /**
   * @param {HTMLElement} place - Where the viewer is put.
   * @param {{label: string, src: string}[]} pictures - At least two.
   * @param {{width: number, height: number}} size - Of each, in pixels.
   */
  constructor(place, pictures, size) {
    this.pictures = pictures;
    this.size = size;
    this.left = 0;
    this.right = 1;
    this.mode = "slide";
    this.zoom = null; // null: as large as fits
    this.gain = 4;
    this.part = 50; // per cent of the stage left of the divider
    this.centre = { x: size.width / 2, y: size.height / 2 };
    this.pointers = new Map();
    this.samples = new Map();
    this.element = make("div", { className: "viewer" }, this.controls(), this.stage(), this.under());
    place.replaceChildren(this.element);
    this.arrange();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.stageElement);
  }

  // The parts of the page

  controls() {
    this.leftChoice = this.choice("Left", this.names(), (value) => this.choose(Number(value), this.right));
    this.rightChoice = this.choice("Right", this.names(), (value) => this.choose(this.left, Number(value)));
    this.swap = this.button("⇄", "Swap left and right", () => this.choose(this.right, this.left));
    this.gainChoice = this.choice("Strength", Viewer.GAINS.map((gain) => [gain, `× ${gain}`]), (value) => {
      this.gain = Number(value);
      this.arrange();
    });
    this.gainChoice.select.value = String(this.gain);
    const several = this.pictures.length > 2;
    for (const choice of [this.leftChoice, this.rightChoice]) choice.label.hidden = !several;
    const zooms = [["fit", "Fit"], ...Viewer.ZOOMS.map((zoom) => [zoom, `${100 * zoom} %`])];
    this.zoomChoice = this.choice("Zoom", zooms, (value) => this.zoomTo(value === "fit" ? null : Number(value)));
    this.nearer = this.button("+", "Zoom in", () => this.zoomBy(1));
    this.farther = this.button("−", "Zoom out", () => this.zoomBy(-1));
    this.pair = make("div", { className: "group pair" }, this.leftChoice.label, this.swap, this.rightChoice.label);
    return make(
      "div",
      { className: "controls" },
      this.pair,
      this.modes(),
      make("div", { className: "group" }, this.farther, this.zoomChoice.label, this.nearer),
      make("div", { className: "group" }, this.gainChoice.label),
    );
  }

  names() {
    return this.pictures.map((picture, index) => [index, picture.label]);
  }

  choice(title, entries, changed) {
    const options = entries.map(([value, text]) => make("option", { value: String(value), textContent: text }));
    const select = make("select", { onchange: () => changed(select.value) }, ...options);
    return { select, label: make("label", { className: "choice" }, make("span", {}, title), select) };
  }

  button(sign, title, pressed) {
    const attributes = { "aria-label": title };
    return make("button", { type: "button", className: "square", title, onclick: pressed, attributes }, sign);
  }

  modes() {
    const group = `view-${Math.random().toString(36).slice(2)}`;
    const offered = Viewer.MODES.filter(([mode]) => mode !== "all" || this.pictures.length > 2);
    const labels = offered.map(([mode, text]) => {
      const input = make("input", { type: "radio", name: group, value: mode, checked: mode === this.mode });
      input.onchange = () => this.show(mode);
      return make("label", {}, input, text);
    });
    return make("fieldset", {}, make("legend", {}, "View"), make("div", { className: "segments" }, ...labels));
  }

  stage() {
    const words = "Pictures. Arrow keys move, plus and minus zoom, 0 fits.";
    this.stageElement = make("div", {
      className: "stage",
      tabIndex: 0,
      attributes: { role: "group", "aria-label": words },
    });
    this.stageElement.style.aspectRatio = `${this.size.width} / ${this.size.height}`;
    this.divider = make("div", {
      className: "divider",
      tabIndex: 0,
      attributes: {
        role: "slider",
        "aria-label": "Divider between the pictures",
        "aria-orientation": "horizontal",
        "aria-valuemin": "0",
        "aria-valuemax": "100",
      },
    });
    this.divider.addEventListener("keydown", (event) => this.dividerKey(event));
    this.stageElement.addEventListener("keydown", (event) => this.stageKey(event));
    for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      this.stageElement.addEventListener(kind, (event) => this[kind](event));
    }
    this.stageElement.addEventListener("pointerleave", () => this.read(null));
    this.stageElement.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    return this.stageElement;
  }

  under() {
    this.said = make("span", { attributes: { "aria-live": "polite" } });
    this.pixel = make("span");
    this.keys = make("span", { className: "keys" }, "Drag to move · Ctrl and wheel, + and − zoom · arrow keys");
    return make("div", { className: "under" }, this.said, this.pixel, this.keys);
  }

  // What is shown

  /** Show two pictures, by their numbers. */
  choose(left, right) {
    [this.left, this.right] = [left, right];
    this.arrange();
  }

  /** Change the view: `slide`, `beside`, `all` or `difference`. */
  show(mode) {
    this.mode = mode;
    this.arrange();
  }

  /** Put the panes of the view into the stage. */
  arrange() {
    this.leftChoice.select.value = String(this.left);
    this.rightChoice.select.value = String(this.right);
    const slides = this.mode === "slide";
    this.stageElement.classList.toggle("slide", slides);
    this.pair.hidden = this.mode === "all";
    this.gainChoice.label.hidden = this.mode !== "difference";
    const shown = this.mode === "all" ? this.pictures.map((_, index) => index) : [this.left, this.right];
    if (this.mode === "difference") {
      this.panes = [this.pane(make("canvas", this.size), "difference")];
      this.difference();
    } else {
      this.panes = shown.map((index) => this.picturePane(this.pictures[index]));
      this.said.textContent = "";
    }
    const columns = slides || this.mode === "difference" ? 1 : Math.ceil(Math.sqrt(this.panes.length));
    this.stageElement.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    this.stageElement.replaceChildren(...this.panes, ...(slides ? [this.divider] : []));
    this.draw();
  }

  picturePane(picture) {
    return this.pane(make("img", { src: picture.src, alt: picture.label, draggable: false, ...this.size }), picture.label);
  }

  pane(content, label) {
    return make("div", { className: "pane" }, content, make("span", { className: "tag" }, label));
  }

  /** Draw everything at its place. */
  draw() {
    const pane = this.paneSize();
    if (!pane.width) return;
    const zoom = this.scale();
    const { width, height } = this.size;
    for (const [axis, side, room] of [["x", width, pane.width], ["y", height, pane.height]]) {
      const half = room / 2 / zoom;
      this.centre[axis] = side * zoom <= room ? side / 2 : within(this.centre[axis], half, side - half);
    }
    const left = Math.round(pane.width / 2 - this.centre.x * zoom);
    const top = Math.round(pane.height / 2 - this.centre.y * zoom);
    for (const { firstChild: content } of this.panes) {
      content.style.transform = `translate(${left}px, ${top}px) scale(${zoom})`;
    }
    this.stageElement.classList.toggle("exact", zoom >= 1);
    this.stageElement.style.touchAction = this.fits() ? "pan-y" : "none";
    this.zoomChoice.select.value = this.zoom === null ? "fit" : String(this.zoom);
    this.farther.disabled = zoom <= Viewer.ZOOMS[0];
    this.nearer.disabled = zoom >= Viewer.ZOOMS.at(-1);
    this.divide();
  }

  divide() {
    if (this.mode !== "slide") return;
    this.panes[1].style.clipPath = `inset(0 0 0 ${this.part}%)`;
    this.divider.style.left = `${this.part}%`;
    const [left, right] = [this.pictures[this.left].label, this.pictures[this.right].label];
    this.divider.setAttribute("aria-valuenow", String(Math.round(this.part)));
    this.divider.setAttribute("aria-valuetext", `${Math.round(this.part)} % ${left}, the rest ${right}`);
  }

  paneSize() {
    return this.panes[0].getBoundingClientRect();
  }

  /** The factor by which pictures are shown. */
  scale() {
    if (this.zoom !== null) return this.zoom;
    const pane = this.paneSize();
    const fit = Math.min(pane.width / this.size.width, pane.height / this.size.height);
    return fit >= 1 ? within(Math.floor(fit), 1, Viewer.ZOOMS.at(-1)) : fit;
  }

  fits() {
    const pane = this.paneSize();
    const zoom = this.scale();
    return this.size.width * zoom <= pane.width + 1 && this.size.height * zoom <= pane.height + 1;
  }

  // Moving

  /** Zoom to a factor, or to what fits (null); what is at `place` of the stage stays there. */
  zoomTo(zoom, place = null) {
    const before = this.scale();
    this.zoom = zoom;
    const after = this.scale();
    if (place) {
      const pane = this.paneSize();
      this.centre.x += (place.x - pane.width / 2) * (1 / before - 1 / after);
      this.centre.y += (place.y - pane.height / 2) * (1 / before - 1 / after);
    }
    this.draw();
  }

  zoomBy(steps, place = null) {
    const now = this.scale();
    const others = Viewer.ZOOMS.filter((zoom) => (steps > 0 ? zoom > now + 1e-6 : zoom < now - 1e-6));
    const next = steps > 0 ? others[0] : others.at(-1);
    if (next !== undefined) this.zoomTo(next, place);
  }

  moveBy(x, y) {
    const zoom = this.scale();
    this.centre.x -= x / zoom;
    this.centre.y -= y / zoom;
    this.draw();
  }

  divideAt(part) {
    this.part = within(part, 0, 100);
    this.divide();
  }

  dividerKey(event) {
    const step = event.shiftKey ? 10 : 1;
    const steps = { ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step, PageUp: 10, PageDown: -10 };
    const places = { Home: 0, End: 100 };
    if (event.key in steps) this.divideAt(this.part + steps[event.key]);
    else if (event.key in places) this.divideAt(places[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  stageKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 48;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key in moves) this.moveBy(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoomBy(1);
    else if (event.key === "-") this.zoomBy(-1);
    else if (event.key === "0") this.zoomTo(null);
    else return;
    event.preventDefault();
  }

  pointerdown(event) {
    if (event.button) return;
    const divides = this.mode === "slide" && (event.target === this.divider || this.fits());
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, divides });
    // A finger that scrolls the page is taken away by `pointercancel`.
    this.stageElement.setPointerCapture(event.pointerId);
    this.stageElement.classList.add("moving");
    if (divides && event.pointerType === "mouse") this.divideTo(event);
  }

  pointermove(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.read(event);
      return;
    }
    const others = [...this.pointers.entries()].filter(([id]) => id !== event.pointerId);
    if (before.divides && !others.length) this.divideTo(event);
    else if (others.length) this.pinch(before, others[0][1], event);
    else this.moveBy(event.clientX - before.x, event.clientY - before.y);
    this.pointers.set(event.pointerId, { ...before, x: event.clientX, y: event.clientY });
  }

  pointerup(event) {
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.stageElement.classList.remove("moving");
  }

  pointercancel(event) {
    this.pointerup(event);
  }

  divideTo(event) {
    const stage = this.stageElement.getBoundingClientRect();
    this.divideAt((100 * (event.clientX - stage.left)) / stage.width);
  }

  /** Zoom by two fingers, one of which moved. */
  pinch(before, other, now) {
    const distance = (point) => Math.hypot(point.x - other.x, point.y - other.y);
    const factor = distance({ x: now.clientX, y: now.clientY }) / Math.max(1, distance(before));
    const stage = this.stageElement.getBoundingClientRect();
    const place = { x: (now.clientX + other.x) / 2 - stage.left, y: (now.clientY + other.y) / 2 - stage.top };
    this.zoomTo(within(this.scale() * factor, Viewer.ZOOMS[0], Viewer.ZOOMS.at(-1)), place);
  }

  wheel(event) {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    const pane = this.paneSize();
    this.zoomBy(event.deltaY < 0 ? 1 : -1, { x: event.clientX - pane.left, y: event.clientY - pane.top });
  }

  // Numbers

  /** Samples of a picture, RGBA in 0 to 255, row by row. */
  async pixels(index) {
    if (!this.samples.has(index)) {
      const image = make("img", { src: this.pictures[index].src });
      await image.decode();
      const context = make("canvas", this.size).getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0, this.size.width, this.size.height);
      this.samples.set(index, context.getImageData(0, 0, this.size.width, this.size.height).data);
    }
    return this.samples.get(index);
  }

  /** Draw the difference of both pictures, and say how large it is. */
  async difference() {
    const canvas = this.panes[0].firstChild;
    const gain = this.gain;
    const [first, second] = await Promise.all([this.pixels(this.left), this.pixels(this.right)]);
    const drawn = new ImageData(this.size.width, this.size.height);
    let sum = 0;
    let most = 0;
    for (let at = 0; at < first.length; at += 4) {
      for (let channel = at; channel < at + 3; channel += 1) {
        const step = Math.abs(first[channel] - second[channel]);
        sum += step;
        if (step > most) most = step;
        drawn.data[channel] = step * gain;
      }
      drawn.data[at + 3] = 255;
    }
    canvas.getContext("2d").putImageData(drawn, 0, 0);
    const [left, right] = [this.pictures[this.left].label, this.pictures[this.right].label];
    const mean = sum / (0.75 * first.length);
    this.panes[0].lastChild.textContent = `|${left} − ${right}| × ${gain}`;
    this.said.textContent = `Difference: ${mean.toFixed(2)} levels of 255 on average, ${most} at most`;
  }

  /** Show the pixel below the pointer in both pictures. */
  async read(event) {
    const number = (this.reading = (this.reading || 0) + 1);
    this.pixel.textContent = "";
    if (!event || event.pointerType !== "mouse" || this.mode === "all") return;
    const pane = event.target.closest(".pane, .divider");
    const box = (pane && pane.className === "pane" ? pane : this.panes[0]).getBoundingClientRect();
    const zoom = this.scale();
    const x = Math.floor((event.clientX - box.left - box.width / 2) / zoom + this.centre.x);
    const y = Math.floor((event.clientY - box.top - box.height / 2) / zoom + this.centre.y);
    if (x < 0 || y < 0 || x >= this.size.width || y >= this.size.height) return;
    const [first, second] = await Promise.all([this.pixels(this.left), this.pixels(this.right)]);
    if (number !== this.reading) return;
    const at = 4 * (y * this.size.width + x);
    const color = (samples) => Array.from(samples.slice(at, at + 3)).join(" ");
    this.pixel.textContent = `${x}, ${y}: ${color(first)} | ${color(second)}`;
  }
}
