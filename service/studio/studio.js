// Reads the form, sends one request per variation, and shows each variation as it arrives.

const config = JSON.parse(document.getElementById("config").textContent);

// Browsers open at most six HTTP/1.1 connections per host; one is left for loading finished pictures.
const PARALLEL = 5;
const PAGE_TITLE = document.title;
const KEY_SLOT = "image-export-key";
const FORMATS = Object.keys(config.formats);

const at = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const copyOf = (id) => at(id).content.firstElementChild.cloneNode(true);

function tell(news) {
  at("news").textContent = news;
}

// Formatting

function bytes(size) {
  if (size < 1024) return `${size} B`;
  if (size < 1024 * 1024) return `${Math.round(size / 1024)} KB`;
  return `${Number((size / 1024 / 1024).toFixed(1))} MB`;
}

function duration(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

const dollars = (amount) => `$${amount.toFixed(amount < 0.1 ? 4 : 2)}`;

function cost(amount) {
  if (config.emulator) return "free";
  return amount === null ? "cost unknown" : dollars(amount);
}

function billed(value) {
  const words = { true: "yes", false: "no" }[value] ?? "not known";
  return config.emulator ? `${words} (the emulator is free)` : words;
}

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const days = (count) => (count === 1 ? "1 day" : `${count} days`);

// The form

function fill(select, values, preferred) {
  const wanted = values.includes(preferred) ? preferred : values[0];
  select.replaceChildren(...values.map((value) => new Option(value, value, false, value === wanted)));
}

function showChoices() {
  const model = config.models[at("model").value];
  fill(at("aspect_ratio"), model?.ratios ?? config.ratios, at("aspect_ratio").value || "16:9");
  fill(at("image_size"), model?.sizes ?? config.sizes, at("image_size").value || "1K");
}

function showEstimate() {
  const count = Number(at("count").value);
  const pictures = count === 1 ? "1 picture" : `${count} pictures`;
  at("estimate").textContent = count >= 1 ? `${pictures}: ${estimate(count)}` : "";
}

function estimate(count) {
  if (config.emulator) return "free, drawn by the emulator";
  const model = config.models[at("model").value];
  const price = model?.prices[at("image_size").value];
  return price ? `about ${dollars(count * price)} (prices of ${model.as_of})` : "price unknown";
}

function checkScript() {
  // Count code points, as the service does; length counts UTF-16 units.
  const length = [...at("script").value].length;
  const excess = length - config.max_script;
  at("script-count").textContent = `${length.toLocaleString()} of ${config.max_script.toLocaleString()}`;
  at("script-count").classList.toggle("over", excess > 0);
  at("script").setCustomValidity(scriptFault(excess));
}

function scriptFault(excess) {
  if (excess > 0) return `The script is too long by ${excess.toLocaleString()}.`;
  return at("script").value.trim() ? "" : "Write what the thumbnail is about.";
}

const chosenFormats = () => [...at("formats").querySelectorAll(":checked")].map((box) => box.value);

function checkFormats() {
  const fault = chosenFormats().length ? "" : "Choose at least one format.";
  at("formats").querySelector("input").setCustomValidity(fault);
}

function showBlend() {
  const share = Number(at("blend").value);
  at("blend-text").textContent = `${share} % picture, ${100 - share} % base`;
}

// The base picture

let base = null;

async function takeBase(file) {
  dropBase();
  let data;
  try {
    // Read the file now: a browser cannot send a file that has changed on disk since it was chosen.
    data = file.size <= config.max_upload_bytes ? new Uint8Array(await file.arrayBuffer()) : null;
  } catch {
    return refuseBase(`${file.name} cannot be read.`);
  }
  if (!data) {
    return refuseBase(`${file.name} has ${bytes(file.size)}; at most ${bytes(config.max_upload_bytes)} are allowed.`);
  }
  if (!isPicture(data)) return refuseBase(`${file.name} is not a ${config.pictures.named} picture.`);
  base = new File([data], file.name);
  showBase();
}

// Determined by magic bytes, as in the service, not by the file name.
function isPicture(data) {
  const head = String.fromCharCode(...data.subarray(0, config.pictures.sniff_bytes));
  return config.pictures.magic.some((pattern) => new RegExp(`^(?:${pattern})`, "s").test(head));
}

function showBase() {
  at("preview").src = URL.createObjectURL(base);
  for (const id of ["preview", "image-remove", "base-options"]) at(id).hidden = false;
  at("drop-text").hidden = true;
  at("image-hint").textContent = `${base.name}, ${bytes(base.size)}`;
}

function dropBase() {
  URL.revokeObjectURL(at("preview").src);
  base = null;
  // Reset, so that choosing the same file again fires a change event.
  at("image").value = "";
  at("preview").removeAttribute("src");
  for (const id of ["preview", "image-remove", "base-options"]) at(id).hidden = true;
  at("drop-text").hidden = false;
  at("image-hint").textContent = `${config.pictures.named}, at most ${bytes(config.max_upload_bytes)}`;
  at("image-refusal").textContent = "";
}

function refuseBase(reason) {
  at("image-refusal").textContent = reason;
}

function acceptDrops() {
  // On the whole page: otherwise the browser opens a file that is dropped beside the box.
  const isFile = (event) => event.dataTransfer?.types.includes("Files");
  const light = (on) => at("drop").classList.toggle("over-me", on);
  addEventListener("dragover", (event) => {
    if (isFile(event)) event.preventDefault(), light(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? light(false));
  addEventListener("drop", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    light(false);
    if (event.dataTransfer.files.length) takeBase(event.dataTransfer.files[0]);
  });
}

// The request

function readOrder() {
  const body = new FormData();
  // A Blob is sent as it is; in a text field each LF would become CRLF.
  body.append("script", new Blob([at("script").value]), "script.txt");
  body.append("count", "1");
  const optional = ["aspect_ratio", "model", "image_size", "width", "height", "fit", "matte"];
  for (const name of [...optional, "jpeg_quality", "webp_quality", "png_compression"]) {
    if (at(name).value) body.append(name, at(name).value);
  }
  for (const name of ["progressive", "webp_lossless"]) body.append(name, at(name).checked);
  body.append("formats", chosenFormats().join(","));
  if (base) {
    body.append("image", base);
    body.append("blend", Number(at("blend").value) / 100);
    body.append("reference", at("reference").checked);
  }
  return { body, script: at("script").value.trim(), ratio: at("aspect_ratio").value };
}

class Failure extends Error {
  constructor(problem) {
    super(problem.title);
    this.problem = problem;
  }
}

async function ask(order, signal) {
  const key = at("key").value.trim();
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let response, text;
  try {
    response = await fetch("api/thumbnails", { method: "POST", body: order.body, headers, signal });
    text = await response.text();
  } catch (error) {
    throw signal.aborted ? error : new Failure(unreachable());
  }
  const answer = parsed(text);
  if (response.ok && answer?.variations?.length) return answer.variations[0];
  throw new Failure(answer?.code ? { ...answer, wait: response.headers.get("Retry-After") } : strange(response));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const unreachable = () => ({
  title: navigator.onLine ? "The service does not answer" : "This computer is offline",
  detail:
    "The connection could not be made, or broke before the answer. " +
    "If the request had arrived, its picture is still made and kept on the server. Check that the service is running.",
  code: "network",
  billed: null,
  retryable: false,
  unknown: true,
});

const strange = (response) => ({
  title: "An answer that is not the service's",
  detail: `Something between this page and the service answered ${response.status} ${response.statusText}`.trim() + ".",
  code: `status ${response.status}`,
  request_id: response.headers.get("X-Request-Id"),
  billed: null,
  retryable: false,
  unknown: response.status >= 500,
});

// The queue of requests

const turns = { free: PARALLEL, waiting: [] };

async function takeTurn(signal) {
  if (turns.free > 0) return void turns.free--;
  await new Promise((resolve, reject) => {
    const next = { resolve };
    turns.waiting.push(next);
    signal.addEventListener("abort", () => {
      turns.waiting = turns.waiting.filter((other) => other !== next);
      reject(signal.reason);
    });
  });
}

function giveTurn() {
  const next = turns.waiting.shift();
  if (next) next.resolve();
  else turns.free++;
}

// One variation

class Card {
  constructor(run, number) {
    this.run = run;
    this.name = `Variation ${number}`;
    this.root = copyOf("card");
    this.part("h3").textContent = this.name;
    const [width, height] = run.order.ratio.split(":");
    this.part(".frame").style.aspectRatio = `${width} / ${height}`;
  }

  part(selector) {
    return this.root.querySelector(selector);
  }

  get isRunning() {
    return this.state === "waiting" || this.state === "sent";
  }

  async start() {
    this.abort = new AbortController();
    this.enter("waiting", "waiting for its turn");
    try {
      await takeTurn(this.abort.signal);
      try {
        this.since = performance.now();
        this.enter("sent", duration(0), make("p", { textContent: "Drawing…" }), make("div", { className: "bar" }));
        this.showDone(await ask(this.run.order, this.abort.signal));
      } finally {
        giveTurn();
      }
    } catch (error) {
      if (this.abort.signal.aborted) this.showCancelled();
      else this.showFailure(error instanceof Failure ? error.problem : pageFault(error));
    }
    this.run.show();
  }

  enter(state, words, ...frame) {
    this.state = state;
    this.root.className = `card ${state}`;
    this.root.ariaBusy = String(this.isRunning);
    this.part(".card-state").textContent = words;
    this.part(".frame").replaceChildren(...frame);
    this.part(".card-more").replaceChildren();
    this.run.show();
  }

  tick() {
    if (this.state === "sent") this.part(".card-state").textContent = duration(performance.now() - this.since);
  }

  showDone(variation) {
    const files = FORMATS.map((format) => variation.exports[format]).filter(Boolean);
    const shown = variation.exports.webp ?? variation.exports.png ?? files[0];
    this.part(".frame").style.aspectRatio = `${shown.width} / ${shown.height}`;
    const facts = [`${shown.width} × ${shown.height}`, cost(variation.metadata.cost_usd)];
    this.enter("done", facts.join(" · "), this.picture(shown));
    this.part(".card-more").append(...warningsOf(variation), fileList(this.name, files), keptUntil(shown.url));
    tell(`${this.name} is ready. ${this.run.summary()}`);
  }

  picture(shown) {
    const image = make("img", { src: shown.url, alt: `${this.name}: ${this.run.order.script.slice(0, 100)}` });
    image.addEventListener("error", () => {
      const lost = "The picture is made, but its link cannot be loaded here.";
      this.part(".frame").replaceChildren(make("p", { textContent: lost }));
    });
    return make("a", { href: shown.url, target: "_blank", rel: "noopener", title: "Open in full size" }, image);
  }

  showFailure(problem) {
    this.enter("failed", `after ${duration(performance.now() - this.since)}`);
    const more = this.part(".card-more");
    const words = [make("strong", { textContent: problem.title }), make("p", { textContent: problem.detail })];
    more.append(make("div", { className: "problem" }, ...words), factsOf(problem));
    const wantsKey = problem.code === "unauthorized";
    if (problem.retryable || problem.unknown || wantsKey) more.append(...this.retry("Try again", problem.billed !== false));
    if (wantsKey) askForKey();
    tell(`${this.name} failed: ${problem.title}. ${this.run.summary()}`);
  }

  showCancelled() {
    const wasSent = this.state === "sent";
    this.enter("cancelled", wasSent ? "cancelled" : "never sent");
    this.part(".card-more").append(...this.retry(wasSent ? "Ask again" : "Send it", wasSent));
  }

  // A button that repeats the request. If the earlier one may have been billed, the first press only warns and the
  // second one sends: the outcome of that request cannot be looked up yet.
  retry(words, mayHaveBeenBilled) {
    const button = make("button", { type: "button", className: "quiet", textContent: words });
    button.setAttribute("aria-label", `${words}: ${this.name}`);
    const warning = make("p", { className: "again" });
    let asks = mayHaveBeenBilled;
    button.addEventListener("click", (event) => {
      // The second click of a double click does not confirm.
      if (event.detail > 1) return;
      if (!asks) return this.run.resume(this);
      asks = false;
      warning.textContent = BILLED_TWICE;
      tell(BILLED_TWICE);
      button.textContent = "Send again: may be billed twice";
      button.setAttribute("aria-label", `${button.textContent}: ${this.name}`);
    });
    // Nor does a repeated keydown.
    button.addEventListener("keydown", (event) => event.repeat && event.preventDefault());
    return [warning, button];
  }
}

const pageFault = (error) => ({
  title: "The page failed",
  detail: `${error}. The picture, if it was made, is kept on the server.`,
  code: "page",
  billed: null,
  retryable: false,
});

function factsOf(problem) {
  const facts = {
    Code: problem.code,
    Billed: billed(problem.billed),
    Request: problem.request_id,
    "Kept as": problem.errors?.[0]?.storage_path,
    Wait: problem.wait && /^\d+$/.test(problem.wait) ? duration(problem.wait * 1000) : null,
  };
  const rows = Object.entries(facts).filter(([, value]) => value);
  const cells = rows.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]);
  return make("dl", { className: "facts" }, ...cells);
}

function warningsOf(variation) {
  if (!variation.warnings.length) return [];
  const words = variation.warnings.map(({ format, detail }) => (format ? `${label(format)}: ${detail}` : detail));
  return [make("ul", { className: "warnings" }, ...words.map((textContent) => make("li", { textContent })))];
}

function label(format) {
  return config.formats[format.toLowerCase()] ?? format;
}

function fileList(name, files) {
  return make("ul", { className: "files" }, ...files.map((file) => fileRow(name, file)));
}

function fileRow(name, file) {
  const words = [make("span", { textContent: label(file.format) })];
  words.push(make("span", { className: "hint", textContent: bytes(file.size) }));
  const link = make("a", { href: file.url, download: file.file_path.split("/").pop() }, ...words);
  link.setAttribute("aria-label", `Download ${name} as ${label(file.format)}, ${bytes(file.size)}`);
  const button = make("button", { type: "button", className: "quiet", textContent: "Copy link" });
  button.setAttribute("aria-label", `Copy the link of ${name} as ${label(file.format)}`);
  button.addEventListener("click", () => copyLink(new URL(file.url, location).href, button));
  return make("li", {}, link, button);
}

async function copyLink(link, button) {
  const copied = await copy(link);
  button.textContent = copied ? "Copied" : "Not copied";
  tell(copied ? "Link copied." : "The link could not be copied.");
  setTimeout(() => (button.textContent = "Copy link"), 2000);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without HTTPS there is no navigator.clipboard.
    const field = make("textarea", { value: text, className: "unseen" });
    const focused = document.activeElement;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    focused?.focus();
    return copied;
  }
}

function keptUntil(url) {
  const expires = Number(new URL(url, location).searchParams.get("expires"));
  const kept = config.output_retention_days;
  const files = kept ? `Files are removed after ${days(kept)}.` : "";
  const words = expires ? `Links work until ${moment.format(expires * 1000)}.` : files;
  return make("p", { className: "hint", textContent: words });
}

// Submitting

const CANCELLED =
  "Cancelled: this page no longer waits. " +
  "What was already sent is still received, exported and kept on the server" +
  (config.emulator ? "." : ", and may be billed.");

const BILLED_TWICE =
  "The request before may have reached Gemini. Sent again, it may be billed twice" +
  (config.emulator ? " (the emulator is free)." : ".") +
  " Press once more to send it.";

const runs = new Set();

class Run {
  constructor(order, count) {
    this.order = order;
    this.root = copyOf("run");
    this.part("h2").textContent = order.script.slice(0, 200);
    this.part("progress").max = count;
    this.part(".cancel").addEventListener("click", () => this.cancel());
    this.cards = Array.from({ length: count }, (_, index) => new Card(this, index + 1));
    this.part(".cards").append(...this.cards.map((card) => card.root));
    this.since = performance.now();
  }

  part(selector) {
    return this.root.querySelector(selector);
  }

  start() {
    at("empty").hidden = true;
    at("results").prepend(this.root);
    for (const card of this.cards) card.start();
    this.focus();
    tell(`Asked for ${this.cards.length === 1 ? "1 variation" : `${this.cards.length} variations`}.`);
  }

  resume(card) {
    if (!this.isRunning) this.since = performance.now();
    this.part(".note").hidden = true;
    card.start();
    this.focus();
  }

  focus() {
    this.part("h2").focus({ preventScroll: true });
    const { top } = this.part(".run-head").getBoundingClientRect();
    if (top < 0 || top > innerHeight / 2) this.part(".run-head").scrollIntoView();
  }

  count(state) {
    return this.cards.filter((card) => card.state === state).length;
  }

  get isRunning() {
    return this.cards.some((card) => card.isRunning);
  }

  summary() {
    const failed = this.count("failed");
    const parts = [`${this.count("done")} of ${this.cards.length} ready`];
    if (failed) parts.push(`${failed} failed`);
    if (this.count("cancelled")) parts.push(`${this.count("cancelled")} cancelled`);
    return parts.join(", ");
  }

  show() {
    this.part(".run-state").textContent = this.summary();
    this.part("progress").value = this.cards.filter((card) => !card.isRunning).length;
    this.part(".cancel").hidden = this.part("progress").hidden = !this.isRunning;
    if (this.isRunning) runs.add(this);
    else runs.delete(this);
    showRunning();
  }

  tick() {
    this.part(".run-clock").textContent = `· ${duration(performance.now() - this.since)}`;
    for (const card of this.cards) card.tick();
  }

  cancel() {
    const sent = this.count("sent");
    for (const card of this.cards) if (card.isRunning) card.abort.abort();
    const note = this.part(".note");
    note.hidden = false;
    note.textContent = sent ? CANCELLED : "Cancelled before anything was sent.";
    tell(note.textContent);
    this.focus();
  }
}

let clock = null;

function showRunning() {
  const running = runs.size > 0;
  at("generate").disabled = running;
  at("generate").textContent = running ? "Generating…" : "Generate";
  document.title = running ? `${[...runs].map((run) => run.summary())[0]} · ${PAGE_TITLE}` : PAGE_TITLE;
  if (running) clock ??= setInterval(() => runs.forEach((run) => run.tick()), 500);
  else clock = void clearInterval(clock);
}

// Event listeners

function remembered() {
  try {
    return sessionStorage.getItem(KEY_SLOT) ?? "";
  } catch {
    return "";
  }
}

function remember(key) {
  try {
    sessionStorage.setItem(KEY_SLOT, key);
  } catch {
    // Storage may be disabled; the field still holds the key.
  }
}

function askForKey() {
  at("key-field").hidden = false;
  at("key").focus();
}

function formatChoice(value) {
  const box = make("input", { type: "checkbox", value, checked: true, defaultChecked: true });
  return make("label", { className: "check" }, box, ` ${label(value)}`);
}

function prepare() {
  at("emulator").hidden = !config.emulator;
  at("key-field").hidden = !config.needs_key;
  at("key").required = config.needs_key;
  at("key").value = remembered();
  at("count").max = config.max_variations;
  at("count").value = Math.min(2, config.max_variations);
  at("width").max = at("height").max = config.max_side;
  at("matte").value = config.matte;
  for (const name of ["jpeg_quality", "webp_quality", "png_compression"]) at(name).placeholder = config[name];
  at("image").accept = config.pictures.types.join(",");
  at("formats").replaceChildren(...FORMATS.map(formatChoice));
  fill(at("model"), [...new Set([config.default_model, ...Object.keys(config.models)])], config.default_model);
  showChoices();
  showEstimate();
  showBlend();
  dropBase();
  checkScript();
}

function listen() {
  const form = at("order");
  at("key").addEventListener("input", () => remember(at("key").value));
  at("script").addEventListener("input", checkScript);
  at("model").addEventListener("change", showChoices);
  at("blend").addEventListener("input", showBlend);
  at("formats").addEventListener("change", checkFormats);
  at("image").addEventListener("change", () => at("image").files.length && takeBase(at("image").files[0]));
  at("preview").addEventListener("error", () => at("preview").hasAttribute("src") && spoiltBase());
  at("image-remove").addEventListener("click", () => {
    dropBase();
    at("image").focus();
  });
  form.addEventListener("input", showEstimate);
  // Open the section of an invalid field: a hidden field cannot be focused.
  form.addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!runs.size) new Run(readOrder(), Number(at("count").value)).start();
  });
  at("script").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  addEventListener("beforeunload", (event) => runs.size && event.preventDefault());
  acceptDrops();
}

function spoiltBase() {
  const { name } = base;
  dropBase();
  refuseBase(`${name} cannot be decoded: it is damaged or cut.`);
}

prepare();
listen();
