// A run: one press of Generate, or a request of before the page was loaded. It has cards and the submissions behind them.

import { serviceTime } from "./api.js";
import { Card } from "./card.js";
import { bodyOfOne } from "./order.js";
import { announce, at, copyOf, dollars, duration, moment, variations } from "./page.js";
import { Submission } from "./submission.js";

const PAGE_TITLE = document.title;
const DISCONNECTED = "The connection is lost. The request goes on at the service, and this page keeps trying to reach it.";
const ALL_CANCELLED = "Cancelled before anything was sent.";
const SOME_SENT = "Cancelled: nothing more is sent. What was sent before is still received, and appears here.";

const running = new Set();

export class Run {
  // `order` is null for a request that was made before the page was loaded.
  constructor({ script, ratio, count, startedAt, order = null }) {
    Object.assign(this, { script, startedAt, order });
    this.root = copyOf("run");
    this.submissions = [];
    this.note = "";
    this.part("h2").textContent = script.slice(0, 200);
    this.part("progress").max = count;
    this.part(".cancel").addEventListener("click", () => this.cancel());
    this.cards = Array.from({ length: count }, (_, index) => new Card(this, this.nameOf(index + 1), ratio));
    this.part(".cards").append(...this.cards.map((card) => card.root));
  }

  static ofOrder(order, count) {
    return new this({ ...order, count, startedAt: serviceTime(), order });
  }

  static ofStatus(status) {
    const { script, count, created_at } = status;
    const ratio = status.variations[0]?.metadata.aspect_ratio ?? "16:9";
    const run = new Run({ script, ratio, count, startedAt: Date.parse(created_at) });
    run.part(".run-clock").textContent = `· ${moment.format(run.startedAt)}`;
    run.add(run.cards).update(status);
    return run;
  }

  part(selector) {
    return this.root.querySelector(selector);
  }

  nameOf(number) {
    return `Variation ${number}`;
  }

  get button() {
    return at("generate");
  }

  get startedWords() {
    return `Asked for ${variations(this.cards.length)}.`;
  }

  get cancelledState() {
    return "never sent";
  }

  get cancelledWords() {
    return this.cards.every((card) => card.state === "cancelled") ? ALL_CANCELLED : SOME_SENT;
  }

  add(cards, body) {
    const submission = new Submission(this, cards, body);
    this.submissions.push(submission);
    return submission;
  }

  start() {
    at("results").prepend(this.root);
    this.add(this.cards, this.order.body).start();
    this.show();
    this.focus();
    announce(this.startedWords);
  }

  resubmit(card) {
    if (!this.isRunning) this.startedAt = serviceTime();
    this.note = "";
    card.wait();
    this.add([card], bodyOfOne(this.order)).start();
  }

  follow() {
    for (const submission of this.submissions) submission.follow();
  }

  remove() {
    this.root.remove();
    this.show();
  }

  shows(status) {
    return this.submissions.some(({ id, key }) => id === status.request_id || key === status.idempotency_key);
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

  get isUploading() {
    return this.submissions.some((submission) => submission.isUploading);
  }

  get isDisconnected() {
    return this.isRunning && this.submissions.some((submission) => submission.isDisconnected);
  }

  summary() {
    const parts = [`${this.count("done")} of ${this.cards.length} ready`];
    if (this.count("failed")) parts.push(`${this.count("failed")} failed`);
    if (this.count("cancelled")) parts.push(`${this.count("cancelled")} cancelled`);
    return parts.join(", ");
  }

  money() {
    if (this.isRunning) return "";
    const sum = (member) => this.submissions.reduce((total, submission) => total + submission[member], 0);
    const cost = sum("cost") ? ` · ${dollars(sum("cost"))}` : "";
    return sum("possiblyBilled") ? `${cost} · possibly billed: ${dollars(sum("possiblyBilled"))}` : cost;
  }

  show() {
    this.part(".run-state").textContent = this.summary() + this.money();
    this.part("progress").value = this.cards.filter((card) => !card.isRunning).length;
    this.part("progress").hidden = !this.isRunning;
    this.part(".cancel").hidden = !this.isRunning || this.note !== "";
    this.showNote(this.isDisconnected ? DISCONNECTED : this.note);
    if (this.isRunning && this.root.isConnected) running.add(this);
    else running.delete(this);
    showRunning();
  }

  showNote(words) {
    const note = this.part(".note");
    if (note.textContent === words) return;
    note.textContent = words;
    note.hidden = !words;
    if (words) announce(words);
  }

  tick() {
    this.part(".run-clock").textContent = `· ${duration(serviceTime() - this.startedAt)}`;
    for (const card of this.cards) card.tick();
  }

  async cancel() {
    this.part(".cancel").disabled = true;
    const active = this.submissions.filter((submission) => submission.running().length);
    const results = await Promise.allSettled(active.map((submission) => submission.cancel()));
    const failed = results.find(({ status }) => status === "rejected");
    this.part(".cancel").disabled = false;
    this.note = failed ? "" : this.cancelledWords;
    this.show();
    if (failed) this.showNote(`Not cancelled. ${failed.reason.message}.`);
    this.focus();
  }
}

let clock = null;

function showRunning() {
  const mine = [...running].filter((run) => run.order);
  // A run that is disconnected does not lock its button: the service may be away for long.
  const locked = new Set(mine.filter((run) => !run.isDisconnected).map((run) => run.button));
  for (const button of [at("generate"), at("export")]) button.disabled = locked.has(button);
  at("generate").textContent = at("generate").disabled ? "Generating…" : "Generate";
  at("empty").hidden = at("results").querySelector(".run") !== null;
  document.title = mine.length ? `${mine[0].summary()} · ${PAGE_TITLE}` : PAGE_TITLE;
  if (running.size) clock ??= setInterval(() => running.forEach((run) => run.tick()), 500);
  else clock = void clearInterval(clock);
}
