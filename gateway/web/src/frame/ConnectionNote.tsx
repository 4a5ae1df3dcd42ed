import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Button } from "../components/Button";
import { isFinal } from "../gateway/events";
import { broken, online, wait } from "../gateway/live";
import { frame as t } from "../texts/en/frame";

/** Says that what is on the screen may be old, and when the gateway is asked again, or why not. */
export function ConnectionNote() {
  const left = useSignal(0);
  const until = wait.value?.until ?? 0;
  useEffect(() => {
    const count = (): void => {
      left.value = Math.max(0, Math.ceil((until - Date.now()) / 1000));
    };
    count();
    const timer = setInterval(count, 250);
    return () => clearInterval(timer);
  }, [until]);
  if (broken.value === null) return null;
  if (isFinal(broken.value))
    return (
      <div class="banner warn" role="status">
        {t.broken} {broken.value.message}
      </div>
    );
  return (
    <div class="banner warn" role="status">
      <span>
        {online.value ? t.broken : t.offline} {/* Read out once, not each second. */}
        <span aria-hidden="true">{left.value > 0 ? t.againIn(left.value) : t.trying}</span>
      </span>
      {wait.value && left.value > 0 && (
        <Button kind="plain" onClick={() => wait.value?.now()}>
          {t.tryNow}
        </Button>
      )}
    </div>
  );
}
