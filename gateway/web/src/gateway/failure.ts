/** What the gateway says of a failure, without the lines of a log that it ends with. */

export interface Failure {
  readonly said: string;
  /** The last lines of the model's log, the oldest first. */
  readonly log: readonly string[];
}

export function failureOf(message: string): Failure {
  const [said = "", log] = message.split(" Its last lines: ", 2);
  return { said, log: log === undefined ? [] : log.split(" | ") };
}
