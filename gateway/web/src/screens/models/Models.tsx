/** The models of the box: what they are, what they do, and how they are changed. */

import { useSignal, useSignalEffect } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { Button } from "../../components/Button";
import { Empty } from "../../components/Empty";
import { Icon } from "../../components/Icon";
import { withCode } from "../../components/withCode";
import { models as listed, overview } from "../../gateway/live";
import { route } from "../../router";
import { models as t } from "../../texts/en/models";
import { AddModel } from "./AddModel";
import { facts, isRemote, liveModels, modelsFile, refreshFacts, settled } from "./facts";
import { MemoryBars } from "./MemoryBars";
import { ModelCard } from "./ModelCard";
import { ModelPage } from "./ModelPage";
import { PullList } from "./PullList";
import { followPulls } from "./pulls";
import { type Filter, inOrder, matches } from "./states";
import "../../schema-form/schema-form.css";
import "./models.css";
import "./entry.css";

export default function Models() {
  const adding = useSignal(false);
  useSignalEffect(() => {
    void listed.value; // it comes anew whenever an entry has changed
    void refreshFacts();
  });
  useEffect(followPulls, []);
  const [name, tab] = route.value.rest;
  return (
    <section class="screen models-screen">
      {name === undefined ? (
        <ModelList onAdd={() => (adding.value = true)} />
      ) : (
        <ModelPage key={name} name={name} tab={tab} />
      )}
      {adding.value && <AddModel onClose={() => (adding.value = false)} />}
    </section>
  );
}

const FILTERS: readonly Filter[] = ["all", "memory", "failed", "out", "elsewhere"];

function ModelList({ onAdd }: { readonly onAdd: () => void }) {
  const words = useSignal("");
  const filter = useSignal<Filter>("all");
  const all = liveModels();
  const names = JSON.stringify(all.map((one) => one.name));
  // As it was when the list was opened: a card that is used doesn't jump away under the hand.
  const order = useMemo(
    () => inOrder(all, isRemote).map((one) => one.name),
    [names, settled.value],
  );
  const byName = new Map(all.map((one) => [one.name, one]));
  const shown = order
    .flatMap((one) => byName.get(one) ?? [])
    .filter((one) => {
      const called = facts.value.get(one.name)?.display_name ?? "";
      return matches(one, isRemote(one.name), filter.value, words.value, called);
    });
  const error = overview.value?.models_file_error ?? null;
  const file = modelsFile.value;
  return (
    <>
      <header class="screen-head">
        <h1 class="in-topbar">{t.title}</h1>
        {all.length > 0 && (
          <Button kind="primary" disabled={file !== null && !file.writable} onClick={onAdd}>
            <Icon name="plus" size={16} /> {t.add}
          </Button>
        )}
      </header>
      {error !== null && (
        <div class="note bad" role="alert">
          <p>{t.fileBroken}</p>
          <pre class="wrap">{error}</pre>
        </div>
      )}
      {file && !file.writable && <ReadOnly />}
      <MemoryBars />
      <PullList />
      {all.length === 0 ? (
        <FirstModel onAdd={onAdd} />
      ) : (
        <>
          <div class="model-filters">
            <input
              class="input"
              type="search"
              aria-label={t.filter}
              placeholder={t.filter}
              value={words}
              onInput={(event) => (words.value = event.currentTarget.value)}
            />
            <select
              class="input"
              aria-label={t.show}
              value={filter}
              onChange={(event) => {
                const chosen = event.currentTarget.value;
                filter.value = FILTERS.find((one) => one === chosen) ?? "all";
              }}
            >
              {FILTERS.map((one) => (
                <option key={one} value={one}>
                  {t.filters[one]}
                </option>
              ))}
            </select>
            <span class="soft" role="status">
              {t.counted(shown.length, all.length)}
            </span>
          </div>
          {shown.length === 0 && <p class="soft">{t.nothingMatches}</p>}
          <div class="model-cards">
            {settled.value && shown.map((model) => <ModelCard key={model.name} model={model} />)}
          </div>
        </>
      )}
    </>
  );
}

export function ReadOnly() {
  return (
    <div class="note warn">
      <p>
        {t.readOnly} {withCode(modelsFile.value?.reason ?? "")}
      </p>
    </div>
  );
}

function FirstModel({ onAdd }: { readonly onAdd: () => void }) {
  return (
    <Empty title={t.empty.title}>
      <p class="reading">{t.empty.text}</p>
      <Button kind="primary" disabled={modelsFile.value?.writable === false} onClick={onAdd}>
        <Icon name="plus" size={16} /> {t.add}
      </Button>
    </Empty>
  );
}
