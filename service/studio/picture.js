// An uploaded picture that is exported alone: no script, no Gemini, no cost, and no record of it at the service.

import { exportPicture, problemOf } from "./api.js";
import { at } from "./page.js";
import { Run } from "./run.js";

export class PictureRun extends Run {
  nameOf() {
    return "Picture";
  }

  get button() {
    return at("export");
  }

  get startedWords() {
    return "Exporting the picture.";
  }

  get cancelledState() {
    return "not exported";
  }

  get cancelledWords() {
    return "Cancelled.";
  }

  add([card], body) {
    const submission = new PictureExport(this, card, body);
    this.submissions.push(submission);
    return submission;
  }

  shows() {
    return false;
  }
}

// Stands where a Submission does in a run of thumbnails.
class PictureExport {
  constructor(run, card, body) {
    Object.assign(this, { run, card, body, cost: 0, possiblyBilled: 0, isDisconnected: false });
    card.submission = this;
  }

  // Until the answer is here: leaving the page would lose it.
  get isUploading() {
    return this.running().length > 0;
  }

  running() {
    return this.card.submission === this && this.card.isRunning ? [this.card] : [];
  }

  async start() {
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.card.showExporting();
    try {
      const { metadata, ...answer } = await exportPicture(this.body, signal);
      this.card.showDone({ variation: { ...answer, metadata: { ...metadata, cost_usd: 0 } } });
    } catch (error) {
      if (!signal.aborted) this.fail(error);
    }
    this.run.show();
  }

  // Nothing is paid, so that all may be tried again but what would be refused again.
  fail(error) {
    const problem = { ...problemOf(error), billed: false };
    const mayRetry = problem.retryable || error.temporary || problem.code === "unauthorized";
    this.card.showFailure(problem, mayRetry ? { "Try again": () => this.start() } : {});
  }

  async cancel() {
    this.abort.abort();
    this.card.showCancelled();
  }
}
