// One request to the service: submitted with an Idempotency-Key, and followed to its end.

import { cancelRequest, Failure, findByKey, getStatus, newKey, readEvents, submit } from "./api.js";

// A browser opens six connections to a host over HTTP/1.1, for all its tabs. Requests without a stream are polled.
const MAX_STREAMS = 2;
const POLL_MS = 2000;
const MAX_BACKOFF_MS = 30_000;
// The service may still be opening a request whose upload was aborted.
const SETTLE_MS = 1000;

const SAFE_TO_REPEAT = "If the request did arrive, trying again finds it: nothing is paid twice.";

let streams = 0;

export class Submission {
  // `cards` show its variations, in their order; `run` is told of every change. Without a body it was made earlier.
  constructor(run, cards, body = null) {
    Object.assign(this, { run, cards, body });
    this.key = newKey();
    this.id = this.abort = null;
    this.lastEvent = this.backoff = this.cost = this.possiblyBilled = 0;
    this.hasEnded = this.isCut = false;
    for (const card of cards) card.submission = this;
  }

  get isUploading() {
    return this.id === null && this.running().length > 0;
  }

  // A card that was submitted anew is another submission's.
  running() {
    return this.cards.filter((card) => card.submission === this && card.isRunning);
  }

  // Submit it. A repetition has the same key, so that nothing is paid twice.
  async start() {
    const isRepeated = this.abort !== null;
    this.abort = new AbortController();
    const { signal } = this.abort;
    try {
      // The service forgets a key after a while, but not its request.
      const earlier = isRepeated && (await findByKey(this.key));
      this.update(earlier || (await submit(this.body, this.key, signal)));
    } catch (error) {
      return signal.aborted ? undefined : this.fail(error);
    }
    await this.follow();
  }

  // Find out what became of these cards.
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

  // Follow it to its end, through lost connections and restarts of the service.
  async follow() {
    while (!this.hasEnded && this.run.root.isConnected) {
      try {
        await (streams < MAX_STREAMS ? this.stream() : this.poll());
      } catch (error) {
        if (!error.temporary) return this.fail(error);
        this.setCut(error.problem.wait);
      }
      if (!this.hasEnded) await pause(this.backoff || POLL_MS);
    }
  }

  async stream() {
    streams++;
    try {
      for await (const event of readEvents(this.id, this.lastEvent)) {
        this.setReached();
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
    this.setReached();
  }

  handle({ number, kind, data }) {
    this.lastEvent = number;
    if (kind === "done") this.end(data);
    else this.card(data.id)?.apply(kind, data);
    this.run.show();
  }

  // Show a status. It may repeat what is shown already.
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

  setCut(wait) {
    this.backoff = Math.max(Math.min(2 * this.backoff || 1000, MAX_BACKOFF_MS), 1000 * (wait || 0));
    this.isCut = true;
    this.run.show();
  }

  setReached() {
    this.backoff = 0;
    if (!this.isCut) return;
    this.isCut = false;
    this.run.show();
  }

  // Stop what was not sent to Gemini yet. Raises a Failure if the service cannot be told.
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
    const problem = error instanceof Failure ? error.problem : pageFault(error);
    // With an id, "not billed" would be said of the question, not of the request.
    if (this.id !== null) return { ...problem, billed: null, request_id: this.id };
    return problem.billed === false ? problem : { ...problem, detail: `${problem.detail} ${SAFE_TO_REPEAT}` };
  }

  // One failure for all cards that are concerned.
  fail(error) {
    this.isCut = false;
    const problem = this.problemOf(error);
    const cards = this.running();
    const mayRetry = problem.retryable || problem.billed !== false || problem.code === "unauthorized";
    cards[0]?.showFailure(problem, mayRetry ? { "Try again": () => this.resume(cards) } : {}, cards.length);
    for (const card of cards.slice(1)) card.joinFailure();
    this.run.show();
  }
}

// Sleeps, but not longer than this computer is offline.
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

const pageFault = (error) => ({
  title: "The page failed",
  detail: `${error}. The request goes on at the service.`,
  code: "page",
  billed: null,
  retryable: false,
});
