import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { Button } from "../../components/Button";
import { Confirm } from "../../components/Dialog";
import { Empty } from "../../components/Empty";
import { Icon } from "../../components/Icon";
import { toast } from "../../components/Toasts";
import { count, duration, size } from "../../format";
import { ask } from "../../gateway/request";
import { go, href } from "../../router";
import { models as t } from "../../texts/en/models";
import { Actions, attempt } from "./actions";
import { forgetDrafts } from "./drafts";
import { EntryForm } from "./EntryForm";
import {
  entryPath,
  facts,
  type LiveModel,
  liveModels,
  modelsFile,
  refreshFacts,
  type SavedConversations,
} from "./facts";
import { Numbers, StateOf, Trouble } from "./ModelCard";
import { LastLines, ModelLog } from "./ModelLog";
import { ReadOnly } from "./Models";
import { Personalities } from "./Personalities";

const TABS = ["overview", "settings", "personalities", "log"] as const;
type Tab = (typeof TABS)[number];

interface Props {
  readonly name: string;
  readonly tab: string | undefined;
}

/** One model: what it does now, its entry, its personalities, its log. */
export function ModelPage({ name, tab }: Props) {
  const model = liveModels().find((one) => one.name === name);
  const open = TABS.find((one) => one === tab) ?? "overview";
  const back = (
    <a class="back" href={href("models")}>
      <Icon name="left" size={16} /> {t.actions.back}
    </a>
  );
  if (!model)
    return (
      <>
        {back}
        <Empty title={t.gone(name)} />
      </>
    );
  return (
    <>
      <div class="model-head">
        {back}
        <div class="model-title">
          <h1>{name}</h1>
          <StateOf model={model} />
          <span class="model-actions">
            <Actions model={model} />
            {modelsFile.value?.writable && <Remove name={name} />}
          </span>
        </div>
        <nav class="tabs" aria-label={name}>
          {TABS.map((one) => (
            <a
              key={one}
              href={one === "overview" ? href("models", name) : href("models", name, one)}
              aria-current={one === open ? "page" : undefined}
            >
              {t.tabs[one]}
            </a>
          ))}
        </nav>
      </div>
      {open !== "log" && open !== "overview" && modelsFile.value?.writable === false && (
        <ReadOnly />
      )}
      <TabOf tab={open} model={model} />
    </>
  );
}

function TabOf({ tab, model }: { readonly tab: Tab; readonly model: LiveModel }) {
  switch (tab) {
    case "overview":
      return <Overview model={model} />;
    case "settings":
      return <EntryForm name={model.name} />;
    case "personalities":
      return <Personalities name={model.name} />;
    case "log":
      return <ModelLog name={model.name} />;
  }
}

function Remove({ name }: { readonly name: string }) {
  const asking = useSignal(false);
  const remove = async (): Promise<void> => {
    await ask(entryPath(name), { method: "DELETE" });
    forgetDrafts(name);
    toast(t.remove.done(name));
    go(href("models"), true);
    await refreshFacts();
  };
  return (
    <>
      <Button kind="plain" onClick={() => (asking.value = true)}>
        <Icon name="trash" size={16} /> {t.actions.remove}
      </Button>
      {asking.value && (
        <Confirm
          title={t.remove.title(name)}
          text={t.remove.text(name)}
          action={t.remove.action(name)}
          onConfirm={() => void attempt(remove)}
          onClose={() => (asking.value = false)}
        />
      )}
    </>
  );
}

function Overview({ model }: { readonly model: LiveModel }) {
  const known = facts.value.get(model.name);
  const { usage } = model;
  const failed = model.last_error !== null;
  return (
    <div class="model-overview">
      <Trouble model={model} whole />
      <Numbers model={model} />
      {failed && (
        <section>
          <h2>{t.log.last}</h2>
          <LastLines name={model.name} starts={model.starts} />
        </section>
      )}
      <section>
        <h2>{t.facts.title}</h2>
        <dl class="model-facts">
          {known?.description && <Fact name={t.facts.description}>{known.description}</Fact>}
          {known?.file && (
            <Fact name={t.facts.file}>
              <code>{known.file}</code>
            </Fact>
          )}
          {known?.size && <Fact name={t.facts.size}>{size(known.size)}</Fact>}
          {known?.quantisation && <Fact name={t.facts.quantisation}>{known.quantisation}</Fact>}
          {known?.trained_context && (
            <Fact name={t.facts.trained}>{t.card.context(known.trained_context)}</Fact>
          )}
          {(model.servers ?? []).length > 0 && (
            <Fact name={t.facts.servers}>
              {(model.servers ?? []).map((one) => (
                <div key={one.url}>{one.url}</div>
              ))}
            </Fact>
          )}
          {model.devices.length > 0 && (
            <Fact name={t.facts.devices}>
              {model.devices
                .map((one) => `${one} (${size(model.memory_on?.[one] ?? 0)})`)
                .join(", ")}
            </Fact>
          )}
          {model.chosen?.text && <Fact name={t.facts.chosen}>{model.chosen.text}</Fact>}
          {model.state_seconds !== null && (
            <Fact name={t.facts.since}>{duration(model.state_seconds)}</Fact>
          )}
          {model.starts > 0 && (
            <Fact name={t.facts.started}>
              {t.facts.times(model.starts)}
              {model.load_seconds !== null && `, ${t.card.loadedIn(model.load_seconds)}`}
            </Fact>
          )}
          {model.deaths > 0 && <Fact name={t.facts.died}>{t.facts.times(model.deaths)}</Fact>}
          {usage.requests > 0 && (
            <Fact name={t.facts.tokens}>
              {t.facts.tokensOf(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)}
            </Fact>
          )}
          {known?.prompt_cache && (
            <Fact name={t.facts.saved}>
              <Saved saved={known.prompt_cache} />
            </Fact>
          )}
          {known && known.personalities.length > 0 && (
            <Fact name={t.facts.personalities}>
              <a href={href("models", model.name, "personalities")}>
                {known.personalities.slice(0, 12).join(", ")}
                {known.personalities.length > 12 && ` … (${count(known.personalities.length)})`}
              </a>
            </Fact>
          )}
        </dl>
      </section>
    </div>
  );
}

export function Saved({ saved }: { readonly saved: SavedConversations }) {
  const { conversations, hits, slot_hits: live, switched_off: off } = saved;
  const { bytes_read: read, bytes_written: written } = saved;
  const nodes = Object.entries(saved.nodes ?? {});
  return (
    <>
      {t.facts.savedOf(conversations, saved.size)}
      {nodes.length > 0 && <div>{t.facts.savedOn(nodes)}</div>}
      {live > 0 && <div>{t.facts.live(live, saved.slot_tokens, saved.slot_seconds)}</div>}
      {hits > 0 && <div>{t.facts.readBack(hits, saved.tokens, saved.seconds)}</div>}
      {read + written > 0 && <div>{t.facts.transferred(written, read)}</div>}
      {off !== null && <div>{t.facts.notSaved(off)}</div>}
    </>
  );
}

function Fact({ name, children }: { readonly name: string; readonly children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
