/** The database of a tab: opened when it is first needed, and anew when the browser closed it. */

import type { Signal } from "@preact/signals";
import { InMemory, openDatabase, type Database } from "./database";
import type { Trouble } from "./trouble";

export class Connection {
  readonly #trouble: Signal<Trouble | null>;
  readonly #onReopened: () => void;
  #database: Promise<Database> | null = null;

  /** `onReopened`: after it was lost, for what others did meanwhile. */
  constructor(trouble: Signal<Trouble | null>, onReopened: () => void) {
    this.#trouble = trouble;
    this.#onReopened = onReopened;
  }

  /** Never rejects: without IndexedDB it is one in memory, and `trouble` says so. */
  get database(): Promise<Database> {
    return this.#database ?? this.#open();
  }

  #open(): Promise<Database> {
    this.#database = openDatabase({
      onBlocked: () => (this.#trouble.value = "blocked"),
      onOutdated: () => (this.#trouble.value = "outdated"),
      onLost: () => void this.#open().then(this.#onReopened),
    }).then(
      (database) => {
        if (this.#trouble.peek() === "blocked") this.#trouble.value = null;
        return database;
      },
      () => {
        this.#trouble.value = "not-kept";
        return new InMemory();
      },
    );
    return this.#database;
  }

  async close(): Promise<void> {
    (await this.#database)?.close();
  }
}
