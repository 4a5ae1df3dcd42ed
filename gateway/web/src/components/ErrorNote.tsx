import type { ComponentChildren } from "preact";
import { GatewayError, Unreachable } from "../gateway/errors";
import { errors as t } from "../texts/en/common";
import { CopyButton } from "./CopyButton";
import { Said } from "./Said";

/** What went wrong, what to do (`children`: a button, perhaps), and the request id to copy. */
export function ErrorNote({
  error,
  children,
}: {
  readonly error: unknown;
  readonly children?: ComponentChildren;
}) {
  const requestId = error instanceof GatewayError ? error.requestId : null;
  return (
    <div class="note bad" role="alert">
      <Said message={wordsOf(error)} />
      {requestId && (
        <p class="soft">
          {t.request} <code>{requestId}</code> <CopyButton text={requestId} label={t.copyId} />
        </p>
      )}
      {children}
    </div>
  );
}

/** One sentence for any error. */
export function wordsOf(error: unknown): string {
  if (error instanceof Unreachable) return t.unreachable;
  if (error instanceof Error && error.message) return error.message;
  return t.unknown;
}
