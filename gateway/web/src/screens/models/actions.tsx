import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { Button } from "../../components/Button";
import { wordsOf } from "../../components/ErrorNote";
import { Icon } from "../../components/Icon";
import { toast } from "../../components/Toasts";
import { models as t } from "../../texts/en/models";
import { facts, isRemote, load, type LiveModel, modelsFile, setPinned, unload } from "./facts";
import { stateOf } from "./states";

/** Do something, and say in a toast why it could not be done. */
export async function attempt(action: () => Promise<void>): Promise<void> {
  try {
    await action();
  } catch (error) {
    toast(wordsOf(error));
  }
}

async function pin(name: string, pinned: boolean): Promise<void> {
  await setPinned(name, pinned);
  toast(pinned ? t.pinnedNow(name) : t.unpinnedNow(name));
}

interface SteadyProps {
  readonly kind?: "plain";
  readonly busy: boolean;
  readonly onClick: () => void;
  readonly children: ComponentChildren;
}

/** A button that does nothing while it is busy, and yet keeps the focus: a disabled one loses it. */
function Steady({ kind, busy, onClick, children }: SteadyProps) {
  return (
    <Button
      kind={kind}
      class="steady"
      aria-disabled={busy ? "true" : undefined}
      onClick={() => {
        if (!busy) onClick();
      }}
    >
      {children}
    </Button>
  );
}

/** Load or unload, and pin: the button that makes sense now. */
export function Actions({ model }: { readonly model: LiveModel }) {
  const busy = useSignal(false);
  const known = facts.value.get(model.name);
  const remote = isRemote(model.name);
  const up = ["ready", "starting", "draining", "stopping"].includes(model.state);
  const run = async (action: () => Promise<void>): Promise<void> => {
    busy.value = true;
    await attempt(action);
    busy.value = false;
  };
  return (
    <>
      {up ? (
        <Steady
          busy={busy.value || model.state === "draining" || model.state === "stopping"}
          onClick={() =>
            void run(async () => {
              await unload(model.name);
              if (model.in_flight > 0) toast(t.unloading(model.name));
            })
          }
        >
          {downWords(model, remote)}
        </Steady>
      ) : (
        <Steady busy={busy.value} onClick={() => void run(() => load(model.name))}>
          {upWords(model, remote)}
        </Steady>
      )}
      {!remote && known && modelsFile.value?.writable && (
        <Steady
          kind="plain"
          busy={busy.value}
          onClick={() => void run(() => pin(model.name, known.pinned !== true))}
        >
          <Icon name="pin" size={16} /> {known.pinned ? t.actions.unpin : t.actions.pin}
        </Steady>
      )}
    </>
  );
}

function downWords(model: LiveModel, remote: boolean): string {
  if (remote) return t.actions.disconnect;
  return model.state === "starting" ? t.actions.stopLoading : t.actions.unload;
}

function upWords(model: LiveModel, remote: boolean): string {
  if (remote) return t.actions.connect;
  return stateOf(model, remote) === "failed" ? t.actions.retry : t.actions.load;
}
