import type { ComponentChildren } from "preact";
import { State } from "../../components/State";
import { withCode } from "../../components/withCode";
import { size } from "../../format";
import { failureOf } from "../../gateway/failure";
import { models as listed, overview } from "../../gateway/live";
import { href } from "../../router";
import { models as t } from "../../texts/en/models";
import { Actions } from "./actions";
import { facts, isRemote, type LiveModel } from "./facts";
import { stateOf } from "./states";

/** A model among others: its state, what it is, what it does, what can be done. */
export function ModelCard({ model }: { readonly model: LiveModel }) {
  const known = facts.value.get(model.name);
  return (
    <article class="model-card" aria-label={model.name}>
      <header>
        <h2>
          <a href={href("models", model.name)}>{model.name}</a>
          {known?.display_name && <small class="called">{known.display_name}</small>}
        </h2>
        <StateOf model={model} />
      </header>
      <Badges model={model} />
      {known?.description && <p class="soft clamp">{known.description}</p>}
      <p class="soft what sentence">{whatItIs(model).join(" · ")}</p>
      <Numbers model={model} />
      <Trouble model={model} />
      <footer>
        <Actions model={model} />
        <a class="button plain" href={href("models", model.name, "settings")}>
          {t.actions.settings}
        </a>
        {model.starts > 0 && (
          <a class="button plain" href={href("models", model.name, "log")}>
            {t.actions.log}
          </a>
        )}
      </footer>
    </article>
  );
}

export function StateOf({ model }: { readonly model: LiveModel }) {
  const state = stateOf(model, isRemote(model.name));
  const percent = model.progress === null ? null : model.progress * 100;
  return <State state={state} percent={state === "loading" ? percent : undefined} />;
}

function Badges({ model }: { readonly model: LiveModel }) {
  const known = facts.value.get(model.name);
  const active = overview.value?.active?.model === model.name;
  if (!known?.pinned && !known?.preload && !known?.unlisted && !active) return null;
  return (
    <p class="badges">
      {active && <Badge hint={t.card.activeHint}>{t.card.active}</Badge>}
      {known?.pinned && <Badge hint={t.card.pinnedHint}>{t.card.pinned}</Badge>}
      {known?.preload && <Badge hint={t.card.preloadHint}>{t.card.preload}</Badge>}
      {known?.unlisted && <Badge hint={t.card.unlistedHint}>{t.card.unlisted}</Badge>}
    </p>
  );
}

function Badge({
  hint,
  children,
}: {
  readonly hint: string;
  readonly children: ComponentChildren;
}) {
  return (
    <span class="badge" title={hint}>
      {children}
    </span>
  );
}

/** "Q4_K_M", "4.5 GiB", "8,192 tokens of context": as far as it is known. */
function whatItIs(model: LiveModel): string[] {
  const known = facts.value.get(model.name);
  const context = listed.value?.find((one) => one.id === model.name)?.context_size;
  const personalities = known?.personalities.length ?? 0;
  return [
    known?.quantisation ?? "",
    known?.size ? size(known.size) : "",
    context ? t.card.context(context) : "",
    personalities > 0 ? t.card.personalities(personalities) : "",
    isRemote(model.name) ? serversOf(model) : "",
  ].filter(Boolean);
}

function serversOf(model: LiveModel): string {
  const all = model.servers ?? [];
  return t.card.servers(all.filter((one) => one.up).length, all.length);
}

/** What reports call the gateway's own machine. */
const HERE = "here";

/** Memory, requests, speed and the like, as pairs. */
export function Numbers({ model }: { readonly model: LiveModel }) {
  const pairs: [string, string][] = [];
  if (model.stage) pairs.push([t.card.stage, model.stage]);
  const bytes = model.memory_held ?? model.memory;
  if (bytes) {
    const about = model.memory_held === null ? `${t.card.estimated} ` : "";
    pairs.push([t.card.memory, about + size(bytes)]);
  }
  const nodes = model.nodes ?? [];
  if (nodes.some((one) => one !== HERE)) pairs.push([t.card.nodes, nodes.map(named).join(", ")]);
  if (model.state === "ready" || model.in_flight > 0)
    pairs.push([t.card.slots, t.card.ofSlots(model.in_flight, model.slots ?? 1)]);
  if (model.queued > 0) pairs.push([t.card.queue, String(model.queued)]);
  const speed = model.usage.tokens_per_second;
  if (speed) pairs.push([t.card.speed, t.card.speedOf(speed)]);
  if (model.unload_in != null) pairs.push([t.card.unload, t.card.in(model.unload_in)]);
  if (model.usage.requests > 0) pairs.push([t.card.served, t.card.requests(model.usage.requests)]);
  if (pairs.length === 0) return null;
  return (
    <dl class="model-numbers">
      {pairs.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function named(node: string): string {
  return node === HERE ? t.card.thisMachine : node;
}

interface TroubleProps {
  readonly model: LiveModel;
  /** However long the error is; else it stays as short as a card. */
  readonly whole?: boolean;
}

/** What is not as it should be: failed, on the CPU, servers that don't answer. */
export function Trouble({ model, whole = false }: TroubleProps) {
  const servers = (model.servers ?? []).filter((one) => !one.up && one.error !== null);
  const said = stateOf(model, false) === "failed" ? model.last_error : null;
  return (
    <>
      {model.degraded !== null && (
        <p class="note warn small">
          {t.card.notAsWanted} {withCode(model.degraded)}
        </p>
      )}
      {said !== null && (
        <div class="note bad small">
          <p class={whole ? "sentence" : "clamp sentence"}>{withCode(failureOf(said).said)}</p>
          <a href={href("models", model.name, "log")}>{t.card.itsLog}</a>
          {model.retry_in !== null && model.retry_in > 0 && (
            <p class="soft">{t.card.retry(model.retry_in)}</p>
          )}
        </div>
      )}
      {servers.map((one) => (
        <p key={one.url} class="note warn small">
          {one.url}: {withCode(one.error ?? "")}
        </p>
      ))}
    </>
  );
}
