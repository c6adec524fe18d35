// One request to the service: submitted with an Idempotency-Key, and followed to its end.

import { cancelRequest, findByKey, getStatus, newKey, problemOf, readEvents, submit } from "./api.js";

// Browsers open at most six HTTP/1.1 connections per host, for all tabs together. Other requests are polled.
const MAX_STREAMS = 2;
const POLL_MS = 2000;
const MAX_BACKOFF_MS = 30_000;
// The service may still be opening a request whose upload was aborted.
const SETTLE_MS = 1000;

const SAFE_TO_REPEAT = "If the request did arrive, trying again finds it: nothing is paid twice.";

let streams = 0;

export class Submission {
  // `cards` show its variations, in order. Without a body it was submitted before the page was loaded.
  constructor(run, cards, body = null) {
    Object.assign(this, { run, cards, body });
    this.key = newKey();
    this.id = this.abort = null;
    this.lastEvent = this.backoff = this.cost = this.possiblyBilled = 0;
    this.hasEnded = this.isDisconnected = false;
    for (const card of cards) card.submission = this;
  }

  get isUploading() {
    return this.id === null && this.running().length > 0;
  }

  // A card that was resubmitted belongs to the new submission.
  running() {
    return this.cards.filter((card) => card.submission === this && card.isRunning);
  }

  // Submit it. Retries have the same Idempotency-Key, so nothing is paid twice.
  async start() {
    const isRetry = this.abort !== null;
    this.abort = new AbortController();
    const { signal } = this.abort;
    try {
      // The key may have expired meanwhile, but the request can still be found by it.
      const earlier = isRetry && (await findByKey(this.key));
      this.update(earlier || (await submit(this.body, this.key, signal)));
    } catch (error) {
      return signal.aborted ? undefined : this.fail(error);
    }
    await this.follow();
  }

  // After a failure: find the request, or submit it again, and show these cards anew.
  async resume(cards) {
    for (const card of cards) card.wait();
    if (this.id === null) return this.start();
    try {
      await this.poll();
    } catch (error) {
      return this.fail(error);
    }
    await this.follow();
  }

  // Follow it to its end, with exponential backoff while the service cannot be reached.
  async follow() {
    while (!this.hasEnded && this.run.root.isConnected) {
      try {
        await (streams < MAX_STREAMS ? this.stream() : this.poll());
      } catch (error) {
        if (!error.temporary) return this.fail(error);
        this.backOff(error.problem.wait);
      }
      if (!this.hasEnded) await pause(this.backoff || POLL_MS);
    }
  }

  async stream() {
    streams++;
    try {
      for await (const event of readEvents(this.id, this.lastEvent)) {
        this.resetBackoff();
        if (event.data) this.handle(event);
        if (this.hasEnded) return;
      }
    } finally {
      streams--;
    }
    await this.poll();
  }

  async poll() {
    this.update(await getStatus(this.id));
    this.resetBackoff();
  }

  handle({ number, kind, data }) {
    this.lastEvent = number;
    if (kind === "done") this.end(data);
    else this.card(data.id)?.apply(kind, data);
    this.run.show();
  }

  // Show a status; what is shown already stays.
  update(status) {
    this.id = status.request_id;
    for (const call of status.calls) this.card(call.id)?.showCall(call);
    for (const variation of status.variations) this.card(variation.id)?.apply("exported", { variation });
    for (const error of status.errors) this.card(error.id)?.apply("failed", { error });
    if (status.state !== "running") this.end(status);
    this.run.show();
  }

  end({ cost_usd, possibly_billed_usd }) {
    this.cost = cost_usd;
    this.possiblyBilled = possibly_billed_usd;
    this.hasEnded = true;
  }

  card(id) {
    const card = this.cards[Number(id.replace("var-", "")) - 1];
    return card?.submission === this ? card : null;
  }

  backOff(wait) {
    this.backoff = Math.max(Math.min(2 * this.backoff || 1000, MAX_BACKOFF_MS), 1000 * (wait || 0));
    this.isDisconnected = true;
    this.run.show();
  }

  resetBackoff() {
    this.backoff = 0;
    if (!this.isDisconnected) return;
    this.isDisconnected = false;
    this.run.show();
  }

  // Cancel the calls that were not sent to Gemini yet; throws a Failure.
  async cancel() {
    if (this.id !== null) return this.update(await cancelRequest(this.id));
    this.abort.abort();
    try {
      await pause(SETTLE_MS);
      const status = await findByKey(this.key);
      if (status) this.update(await cancelRequest(status.request_id));
      else for (const card of this.running()) card.showCancelled();
    } catch (error) {
      this.fail(error);
      throw error;
    }
    if (this.id !== null) this.follow();
  }

  problemOf(error) {
    const problem = problemOf(error);
    // This problem's `billed` is about the GET of the status, not about the calls.
    if (this.id !== null) return { ...problem, billed: null, request_id: this.id };
    return problem.billed === false ? problem : { ...problem, detail: `${problem.detail} ${SAFE_TO_REPEAT}` };
  }

  // Show the failure once, in the first of the cards that are still running.
  fail(error) {
    this.isDisconnected = false;
    const problem = this.problemOf(error);
    const cards = this.running();
    const mayRetry = problem.retryable || problem.billed !== false || problem.code === "unauthorized";
    cards[0]?.showFailure(problem, mayRetry ? { "Try again": () => this.resume(cards) } : {}, cards.length);
    for (const card of cards.slice(1)) card.hideFailed();
    this.run.show();
  }
}

// Sleeps; ends early when the computer comes back online.
function pause(milliseconds) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    addEventListener("online", end);
  });
}
