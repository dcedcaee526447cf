"use strict";

/** The page of the service: orders, pictures one after the other, and the viewer for results. */
class Page {
  static POLL = 200; // milliseconds between questions how far a picture is
  static TRIES = 20; // of a picture that finds the service busy
  static SAYS = { auto: "As the input", jpeg: "JPEG", png: "PNG", tiff: "TIFF", webp: "WebP", avif: "AVIF", bmp: "BMP" };

  constructor() {
    this.form = document.getElementById("order");
    this.list = document.getElementById("list");
    this.drop = document.getElementById("drop");
    this.files = document.getElementById("files");
    this.waiting = [];
    this.busy = false;
    this.token = this.readToken();
    this.listen();
    this.begin();
  }

  /** Take the token from the address, where it is not sent to anybody, and keep it for this tab. */
  readToken() {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given) {
      sessionStorage.setItem("token", given);
      history.replaceState(null, "", location.pathname);
    }
    return sessionStorage.getItem("token");
  }

  get headers() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  listen() {
    this.form.addEventListener("change", () => this.adjust());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.files.addEventListener("change", () => {
      this.add([...this.files.files]);
      this.files.value = "";
    });
    document.addEventListener("paste", (event) => this.add([...(event.clipboardData?.files ?? [])]));
    let inside = 0;
    const over = (change) => {
      inside = change === null ? 0 : inside + change;
      this.drop.classList.toggle("over", inside > 0);
    };
    document.addEventListener("dragenter", () => over(1));
    document.addEventListener("dragleave", () => over(-1));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      over(null);
      this.add([...event.dataTransfer.files]);
    });
  }

  /** Ask what the service offers. */
  async begin() {
    try {
      const response = await fetch("v1/models", { headers: this.headers });
      if (!response.ok) throw new Error((await response.json()).detail);
      this.offers = await response.json();
    } catch (error) {
      this.complain(error instanceof TypeError ? "The service does not answer." : error.message);
      return;
    }
    const { formats, limits } = this.offers;
    const entries = ["auto", ...formats].map((name) => [name, Page.SAYS[name] ?? name]);
    this.fill("format", entries, "auto");
    const megapixels = Math.round(limits.pixels / 1e6);
    document.getElementById("limits").textContent =
      `Up to ${limits.bytes >> 20} MB each, and ${megapixels} megapixels in the result`;
    this.adjust();
  }

  fill(name, entries, chosen) {
    const select = this.form.elements[name];
    select.replaceChildren(...entries.map(([value, text]) => make("option", { value, textContent: text })));
    if (entries.some(([value]) => value === chosen)) select.value = chosen;
  }

  /** Offer only what the chosen task has. */
  adjust() {
    if (!this.offers) return;
    const { task, model, scale } = this.form.elements;
    const able = this.offers.models.filter((one) => task.value in one.tasks);
    this.fill("model", able.map((one) => [one.name, one.title]), model.value);
    const chosen = able.find((one) => one.name === model.value);
    const facts = chosen?.tasks[task.value];
    const enlarges = task.value === "upscale";
    document.getElementById("scale").hidden = !enlarges;
    if (enlarges) this.fill("scale", (facts?.factors ?? []).map((one) => [one, `× ${one}`]), scale.value || "4");
    document.getElementById("kind").hidden = !enlarges || !facts?.photo_scales.length;
    document.getElementById("about").textContent = facts?.good_for ? `${chosen.title}: ${facts.good_for}.` : "";
  }

  /** The order for the next picture, as the query of a request. */
  query() {
    const { task, model, scale, input, format } = this.form.elements;
    const query = { model: model.value, format: format.value };
    if (task.value === "upscale") {
      query.scale = scale.value;
      if (!document.getElementById("kind").hidden) query.input = input.value;
    }
    return { path: `v1/${task.value}`, query };
  }

  complain(text) {
    const trouble = document.getElementById("trouble");
    trouble.textContent = text;
    trouble.hidden = !text;
  }

  /** Take pictures, with the order as it stands now. */
  add(files) {
    if (!files.length) return;
    if (!this.offers) {
      this.complain("The service does not answer. Load this page again.");
      return;
    }
    this.complain("");
    for (const file of files) {
      const item = new Item(file, this.query(), this);
      this.list.append(item.element);
      if (file.size > this.offers.limits.bytes) item.fail(`${file.name}: has more than ${this.offers.limits.bytes >> 20} MB. Choose a smaller file.`);
      else this.waiting.push(item);
    }
    this.work();
  }

  /** Restore what waits, one after the other. */
  async work() {
    if (this.busy) return;
    this.busy = true;
    while (this.waiting.length) await this.waiting.shift().restore();
    this.busy = false;
  }

  /** Show a picture before and after. */
  show(item) {
    for (const other of this.list.children) other.classList.toggle("shown", other === item.element);
    const card = document.getElementById("compare");
    card.hidden = false;
    const pictures = [
      { label: "Before", src: item.before },
      { label: "After", src: item.after },
    ];
    document.getElementById("compared").textContent = `${item.file.name}: before and after`;
    this.viewer?.observer.disconnect();
    this.viewer = new Viewer(document.getElementById("viewer"), pictures, item.size);
    return card;
  }
}

/** A picture in the list: sent, restored, received. */
class Item {
  constructor(file, order, page) {
    [this.file, this.order, this.page] = [file, order, page];
    this.before = URL.createObjectURL(file);
    this.thumb = make("img", { className: "thumb", src: this.before, alt: "" });
    this.thumb.onerror = () => this.thumb.replaceWith(make("span", { className: "thumb" }));
    this.state = make("div", { className: "state", textContent: "Waiting", attributes: { role: "status" } });
    this.bar = make("progress", { max: 1, value: 0, hidden: true, attributes: { "aria-label": `Progress of ${file.name}` } });
    this.actions = make("div", { className: "actions" });
    const name = make("div", { className: "name", textContent: file.name, title: file.name });
    this.element = make("li", { className: "item" }, this.thumb, make("div", {}, name, this.state, this.bar), this.actions);
    this.offerToStop();
  }

  offerToStop() {
    const label = { "aria-label": `Cancel ${this.file.name}` };
    this.actions.replaceChildren(make("button", { type: "button", textContent: "Cancel", onclick: () => this.stop(), attributes: label }));
  }

  stop() {
    this.stopped = true;
    this.request?.abort();
    this.page.waiting = this.page.waiting.filter((other) => other !== this);
    this.fail("Cancelled");
    this.state.classList.remove("failed");
  }

  /** Say what happens; a share of null is unknown. */
  say(text, share = null) {
    this.state.textContent = text;
    this.bar.hidden = false;
    if (share === null) this.bar.removeAttribute("value");
    else this.bar.value = share;
  }

  fail(text) {
    this.state.textContent = text;
    this.state.classList.add("failed");
    this.bar.hidden = true;
    this.actions.replaceChildren();
  }

  async restore() {
    for (let tries = 0; tries < Page.TRIES && !this.stopped; tries += 1) {
      const answer = await this.send();
      if (this.stopped) return;
      if (answer.status === 200) return this.finish(answer);
      if (answer.status !== 503) return this.fail(await Item.reason(answer));
      const seconds = Number(answer.getResponseHeader("Retry-After")) || 2;
      this.say(`The service is busy; trying again in ${seconds} s`, 0);
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    }
    if (!this.stopped) this.fail("The service is busy. Try again later.");
  }

  /** Send the picture; resolves to the finished request. */
  send() {
    const word = crypto.getRandomValues(new Uint32Array(4)).join("-");
    const query = new URLSearchParams({ ...this.order.query, name: this.file.name, progress: word });
    const request = (this.request = new XMLHttpRequest());
    request.open("POST", `${this.order.path}?${query}`);
    for (const [name, value] of Object.entries(this.page.headers)) request.setRequestHeader(name, value);
    request.responseType = "blob";
    let poll = 0;
    request.upload.onprogress = (event) => this.say(`Sending ${Math.round((100 * event.loaded) / event.total)} %`, event.loaded / event.total);
    request.upload.onload = () => {
      this.say("Waiting for its turn");
      poll = setInterval(() => this.ask(word, request), Page.POLL);
    };
    request.onprogress = () => clearInterval(poll);
    this.say("Sending", 0);
    return new Promise((resolve) => {
      request.onloadend = () => {
        clearInterval(poll);
        resolve(request);
      };
      request.send(this.file);
    });
  }

  /** Ask how far the picture is. */
  async ask(word, request) {
    try {
      const response = await fetch(`v1/progress/${word}`, { headers: this.page.headers });
      if (!response.ok || request.readyState > 1) return;
      const { state, done } = await response.json();
      if (state === "working") this.say(`Restoring ${Math.round(100 * done)} %`, done);
      else if (state === "waiting") this.say("Waiting for its turn");
    } catch {
      // The request itself tells what is wrong.
    }
  }

  static async reason(request) {
    if (!request.status) return "The service does not answer.";
    try {
      return JSON.parse(await request.response.text()).detail;
    } catch {
      return `The service answered with ${request.status}.`;
    }
  }

  /** Show the result, and offer it. */
  async finish(request) {
    const header = (name) => request.getResponseHeader(name) ?? "";
    const [width, height] = header("Srcli-Size").split("x").map(Number);
    this.size = { width, height };
    this.after = URL.createObjectURL(request.response);
    const name = decodeURIComponent(header("Content-Disposition").split("UTF-8''")[1] ?? "result");
    this.bar.hidden = true;
    const seconds = Number(header("Srcli-Seconds")).toFixed(2);
    this.state.textContent = `Done: ${width} × ${height}, ${Item.bytes(request.response.size)}, ${seconds} s`;
    const download = make("a", { className: "button primary", href: this.after, download: name, textContent: "Download", attributes: { "aria-label": `Download ${name}` } });
    this.actions.replaceChildren(download);
    const notes = JSON.parse(header("Srcli-Notes") || "[]");
    if (notes.length) this.element.append(make("ul", { className: "notes" }, ...notes.map((note) => make("li", {}, note))));
    if ((await Item.visible(this.before)) && (await Item.visible(this.after))) {
      const compare = make("button", { type: "button", textContent: "Compare", attributes: { "aria-label": `Compare ${this.file.name} before and after` } });
      compare.onclick = () => this.page.show(this).scrollIntoView({ behavior: "smooth", block: "start" });
      this.actions.prepend(compare);
      this.page.show(this);
    } else {
      this.state.textContent += ". Your browser cannot show this format; the file is whole.";
    }
  }

  /** Tell whether the browser can show a picture. */
  static async visible(src) {
    try {
      await make("img", { src }).decode();
      return true;
    } catch {
      return false;
    }
  }

  static bytes(count) {
    return count < 1e6 ? `${Math.max(1, Math.round(count / 1e3))} kB` : `${(count / 1e6).toFixed(1)} MB`;
  }
}

new Page();
