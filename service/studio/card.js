// One variation, or one picture exported alone: waiting, sent, received, then done, failed or cancelled.

import { serviceTime } from "./api.js";
import { announce, at, bytes, config, copyOf, cost, duration, FORMATS, frames, label, make, moment, paragraph, pixels, variations } from "./page.js";
import { Preview } from "./preview.js";

const STEPS = { sent: "showSent", received: "showReceived", exported: "showDone", failed: "showEnd" };

export class Card {
  constructor(run, name, ratio) {
    this.run = run;
    this.name = name;
    this.isEmulated = config.emulator;
    this.root = copyOf("card");
    const [width, height] = ratio.split(":");
    this.part(".frame").style.aspectRatio = `${width} / ${height}`;
    this.wait();
  }

  part(selector) {
    return this.root.querySelector(selector);
  }

  get isRunning() {
    return ["waiting", "sent", "received"].includes(this.state);
  }

  wait() {
    this.root.hidden = false;
    this.sentAt = null;
    this.enter("waiting", "waiting for its turn");
  }

  // Show an event. A variation that has ended changes only if its picture is recovered later.
  apply(kind, data) {
    if (this.isRunning || (kind === "exported" && this.state !== "done")) this[STEPS[kind]]?.(data);
  }

  showCall(call) {
    this.isEmulated = call.model === "emulator";
    this.endedAt = call.finished_at;
    if (call.sent_at) this.apply("sent", { at: call.sent_at });
    if (call.state === "received") this.apply("received", {});
  }

  enter(state, words, ...frame) {
    this.state = state;
    this.root.className = `card ${state}`;
    this.root.ariaBusy = String(this.isRunning);
    this.part("h3").textContent = this.name;
    this.part(".card-state").textContent = words;
    this.part(".frame").replaceChildren(...frame);
    this.part(".card-more").replaceChildren();
  }

  // A call that is retried after a 429 or 503 is sent more than once.
  showSent({ at }) {
    if (this.state !== "waiting") return;
    this.sentAt = Date.parse(at);
    this.enter("sent", this.age(), ...inProgress("Drawing…"));
  }

  showReceived() {
    if (this.state !== "received") this.enter("received", this.age(), ...inProgress("Drawn and kept. Exporting…"));
  }

  // Without Gemini, and so without its emulator.
  showExporting() {
    this.isEmulated = false;
    this.sentAt = serviceTime();
    this.enter("sent", this.age(), ...inProgress("Exporting…"));
  }

  age(until = serviceTime()) {
    return this.sentAt === null ? "" : duration(until - this.sentAt);
  }

  tick() {
    if (this.state === "sent" || this.state === "received") this.part(".card-state").textContent = this.age();
  }

  showDone({ variation }) {
    const files = FORMATS.map((format) => variation.exports[format]).filter(Boolean);
    const there = files.filter((file) => file.url);
    const preview = new Preview(this.part(".frame"), there, this.name, this.run.script.slice(0, 100));
    const shown = preview.file ?? files[0];
    // The size that was asked for: a byte budget may have made some files smaller.
    const size = variation.metadata.normalized_to;
    this.part(".frame").style.aspectRatio = `${shown.width} / ${shown.height}`;
    const facts = [pixels(...size), ...frames(shown), cost(variation.metadata.cost_usd)];
    this.enter("done", facts.join(" · "), paragraph("Its files have been removed."));
    this.part(".card-more").append(...warningsOf(variation));
    if (there.length) {
      preview.show();
      this.part(".card-more").append(...preview.buttons(), fileList(this.name, there, size), keptUntil(shown.url));
    }
    this.tell(`${this.name} is ready.`);
  }

  // A variation that ended without exports: failed or cancelled.
  showEnd({ error, at }) {
    if (error.code === "cancelled") return this.showCancelled();
    const title = config.titles[error.code] ?? error.code;
    const problem = { ...error, title, request_id: this.submission.id, endedAt: at ?? this.endedAt };
    this.showFailure(problem, this.buttonsFor(error));
  }

  buttonsFor({ retryable, billed, storage_path }) {
    if (retryable) return this.resubmitButton("Try again");
    // The service may still recover its picture after a crash.
    return billed === null && !storage_path ? { "Look again": () => this.submission.resume([this]) } : {};
  }

  // Submits this variation as a new request. After a reload the page no longer has the form's values.
  resubmitButton(words) {
    return this.run.order ? { [words]: () => this.run.resubmit(this) } : {};
  }

  // `affected` is the number of cards that have this failure; the others are hidden.
  showFailure(problem, buttons, affected = 1) {
    const age = this.age(problem.endedAt ? Date.parse(problem.endedAt) : undefined);
    this.enter("failed", age && `after ${age}`);
    if (affected > 1) this.part("h3").textContent = variations(affected);
    const words = [make("strong", { textContent: problem.title }), paragraph(problem.detail)];
    this.part(".card-more").append(make("div", { className: "problem" }, ...words), factsOf(problem, this.isEmulated));
    this.addButtons(buttons);
    if (problem.code === "unauthorized") askForKey();
    this.tell(`${this.part("h3").textContent} failed: ${problem.title}.`);
  }

  hideFailed() {
    this.enter("failed", "");
    this.root.hidden = true;
  }

  showCancelled() {
    this.enter("cancelled", this.run.cancelledState);
    this.addButtons(this.resubmitButton("Send it"));
  }

  addButtons(buttons) {
    for (const [words, press] of Object.entries(buttons)) {
      const button = make("button", { type: "button", className: "quiet", textContent: words });
      button.setAttribute("aria-label", `${words}: ${this.part("h3").textContent}`);
      button.addEventListener("click", () => {
        press();
        this.run.show();
        this.run.focus();
      });
      this.part(".card-more").append(button);
    }
  }

  // Cards that are not on the page yet show earlier requests, which are not announced.
  tell(news) {
    if (this.root.isConnected) announce(`${news} ${this.run.summary()}`);
  }
}

const inProgress = (words) => [paragraph(words), make("div", { className: "bar" })];

function askForKey() {
  at("key-field").hidden = false;
  at("key").focus();
}

function factsOf(problem, isEmulated) {
  const facts = {
    Code: problem.code,
    Billed: billed(problem.billed, isEmulated),
    Request: problem.request_id,
    "Kept as": problem.storage_path,
    Wait: problem.wait ? duration(problem.wait * 1000) : null,
  };
  const rows = Object.entries(facts).filter(([, value]) => value);
  const cells = rows.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]);
  return make("dl", { className: "facts" }, ...cells);
}

function billed(value, isEmulated) {
  const words = { true: "yes", false: "no" }[value] ?? "not known";
  return isEmulated ? `${words} (the emulator is free)` : words;
}

function warningsOf(variation) {
  if (!variation.warnings.length) return [];
  const words = variation.warnings.map(({ format, detail }) => (format ? `${label(format)}: ${detail}` : detail));
  return [make("ul", { className: "warnings" }, ...words.map((textContent) => make("li", { textContent })))];
}

function fileList(name, files, size) {
  return make("ul", { className: "files" }, ...files.map((file) => fileRow(name, file, size)));
}

function fileRow(name, file, size) {
  const facts = [bytes(file.size), ...frames(file), ...changes(file, size)];
  const words = [make("span", { textContent: label(file.format) }), " "];
  words.push(make("span", { className: "hint", textContent: facts.join(" · ") }));
  const link = make("a", { href: file.url, download: file.file_path.split("/").pop() }, ...words);
  // Labels begin with what is seen, for those who speak to their computer.
  link.setAttribute("aria-label", `${link.textContent}: download ${name}`);
  const button = make("button", { type: "button", className: "quiet", textContent: "Copy link" });
  button.setAttribute("aria-label", `Copy link: ${name} as ${label(file.format)}`);
  button.addEventListener("click", () => copyLink(new URL(file.url, location).href, button));
  return make("li", {}, link, button);
}

// What a byte budget may have changed: the quality if it is not the default, the colours, the size.
function changes({ format, quality, colors, width, height }, size) {
  const facts = [];
  if (quality !== null && quality !== config[`${format.toLowerCase()}_quality`]) facts.push(`quality ${quality}`);
  if (colors !== null) facts.push(`${colors} colours`);
  if (width !== size[0] || height !== size[1]) facts.push(pixels(width, height));
  return facts;
}

async function copyLink(link, button) {
  const copied = await copy(link);
  button.textContent = copied ? "Copied" : "Not copied";
  announce(copied ? "Link copied." : "The link could not be copied.");
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
  const files = kept ? `Files are removed after ${kept === 1 ? "1 day" : `${kept} days`}.` : "";
  const words = expires ? `Links work until ${moment.format(expires * 1000)}.` : files;
  return make("p", { className: "hint", textContent: words });
}
