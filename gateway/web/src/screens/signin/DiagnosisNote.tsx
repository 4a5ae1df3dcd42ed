import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Button } from "../../components/Button";
import { CopyButton } from "../../components/CopyButton";
import { ErrorNote } from "../../components/ErrorNote";
import { withCode } from "../../components/withCode";
import type { Diagnosis } from "../../gateway/diagnose";
import { advice, signIn as t } from "../../texts/en/signin";

interface Props {
  readonly found: Diagnosis;
  /** Of the box, as an origin. */
  readonly address: string;
  /** Take another address instead. */
  readonly onAddress: (address: string) => void;
  /** Try again, for what passes by itself. */
  readonly onAgain: () => void;
}

/** Milliseconds between tries at a gateway that starts. */
const PAUSE = 2000;

/** Why there is no way in, and what to do. */
export function DiagnosisNote({ found, address, onAddress, onAgain }: Props) {
  useEffect(() => {
    if (found.kind !== "not-ready") return;
    const timer = setTimeout(onAgain, PAUSE);
    return () => clearTimeout(timer);
  }, [found]);
  if (found.kind === "error") return <ErrorNote error={found.error} />;
  const { title, steps, code } = advice(found, { address, origin: location.origin });
  const bad = found.kind !== "not-ready" && found.kind !== "no-key";
  const requestId = "error" in found ? found.error.requestId : null;
  return (
    <div class={bad ? "note bad diagnosis" : "note diagnosis"} role="alert">
      <h2>{title}</h2>
      {steps.length === 1 && <p>{withCode(steps[0] ?? "")}</p>}
      {steps.length > 1 && (
        <ul>
          {steps.map((step) => (
            <li key={step}>{withCode(step)}</li>
          ))}
        </ul>
      )}
      {code && (
        <div class="to-write">
          <code aria-label={code.label}>{code.text}</code>
          <CopyButton text={code.text} />
        </div>
      )}
      <Action found={found} address={address} onAddress={onAddress} />
      {requestId !== null && (
        <p class="soft">
          <code>{requestId}</code>
        </p>
      )}
    </div>
  );
}

function Action({ found, address, onAddress }: Omit<Props, "onAgain">) {
  const elsewhere = address !== location.origin;
  switch (found.kind) {
    case "silent":
    case "certificate":
      return elsewhere ? <Outside href={`${address}/`} words={t.openBox(address)} /> : null;
    case "mixed":
      return <Outside href={`${address}/`} words={t.openOwnPage(address)} />;
    case "insecure-page":
      return <a href={location.href.replace(/^http:/, "https:")}>{t.openSecure}</a>;
    case "scheme": {
      const other = address.replace(/^https?/, found.instead);
      return (
        <p>
          <Button onClick={() => onAddress(other)}>{t.use(other)}</Button>
        </p>
      );
    }
    case "too-many":
      return <Countdown seconds={found.seconds} />;
    case "not-ready":
      return <p class="soft">{t.again}</p>;
    default:
      return null;
  }
}

function Outside({ href, words }: { readonly href: string; readonly words: string }) {
  return (
    <p>
      <a href={href} target="_blank" rel="noopener noreferrer">
        {words}
      </a>
    </p>
  );
}

function Countdown({ seconds }: { readonly seconds: number }) {
  const left = useSignal(seconds);
  useEffect(() => {
    const end = Date.now() + seconds * 1000;
    const timer = setInterval(() => {
      left.value = Math.max(0, Math.ceil((end - Date.now()) / 1000));
      if (left.value === 0) clearInterval(timer);
    }, 250);
    return () => clearInterval(timer);
  }, [seconds]);
  return left.value > 0 ? (
    <p class="tabular" role="timer">
      {t.seconds(left.value)}
    </p>
  ) : null;
}
