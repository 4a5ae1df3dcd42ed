/** What can go wrong between this page and a gateway. */

/** The gateway answered, with an error: OpenAI's `{"error": {message, type, code, param}}`. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";

  constructor(
    message: string,
    /** The HTTP status. */
    readonly status: number,
    readonly code: string | null,
    /** `X-Request-Id`, by which the gateway's log and /chat/errors know the request. */
    readonly requestId: string | null,
    /** The whole error object, for what some routes add: `problems` of an entry, say. */
    readonly details: Readonly<Record<string, unknown>> = {},
    /** Seconds, of `Retry-After`. */
    readonly retryAfter: number | null = null,
  ) {
    super(message);
  }
}

/** No answer came: the network, a certificate, CORS. The browser doesn't tell scripts which. */
export class Unreachable extends Error {
  override readonly name = "Unreachable";
}

/** Make an error of an answer that is none of 2xx. Its body is read. */
export async function errorOf(response: Response): Promise<GatewayError> {
  const requestId = response.headers.get("X-Request-Id");
  const after = Number(response.headers.get("Retry-After") ?? NaN);
  const retryAfter = Number.isFinite(after) ? after : null;
  const text = await response.text().catch(() => "");
  try {
    const found = (JSON.parse(text) as { error?: Record<string, unknown> }).error;
    if (found && typeof found["message"] === "string") {
      const code = typeof found["code"] === "string" ? found["code"] : null;
      return new GatewayError(
        found["message"],
        response.status,
        code,
        requestId,
        found,
        retryAfter,
      );
    }
  } catch {
    // not the gateway's: a proxy's page, for instance
  }
  const words = `${response.status} ${response.statusText}`.trim();
  return new GatewayError(words, response.status, null, requestId, {}, retryAfter);
}
