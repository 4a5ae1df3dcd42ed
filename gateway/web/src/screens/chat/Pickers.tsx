import { Combobox, type Choice } from "../../components/Combobox";
import { shareOf, State, stateNamed } from "../../components/State";
import type { Conversation } from "../../conversations/types";
import { size } from "../../format";
import { overview, status } from "../../gateway/live";
import type { ListedModel } from "../../gateway/types";
import { chat as t } from "../../texts/en/chat";
import { calls, named, percentOf, stateOf } from "./choice";

const NONE = "none";

interface ModelProps {
  readonly models: readonly ListedModel[];
  readonly model: ListedModel | undefined;
  /** What the conversation names, whether there is such a model or not. */
  readonly name: string | null;
  readonly onChoose: (name: string) => void;
}

/** Which model is asked: the state and the memory of each. */
export function ModelPicker({ models, model, name, onChoose }: ModelProps) {
  const choices = models.map((one): Choice => {
    return {
      value: one.id,
      words: calls(one),
      alias: one.id,
      more: [calls(one) === one.id ? "" : one.id, one.description, memoryOf(one)]
        .filter(Boolean)
        .join(" · "),
      note: <State state={stateOf(one)} percent={percent(one.id, stateOf(one))} />,
    };
  });
  const loaded = model ? percent(model.id, stateOf(model)) : null;
  return (
    <Combobox
      label={t.model}
      told={loaded === null ? undefined : shareOf(loaded)}
      choices={choices}
      value={model?.id ?? null}
      onChoose={onChoose}
      findWords={t.find}
      nothingWords={t.nothingFound}
    >
      {model ? (
        <State state={stateOf(model)} percent={loaded} words={calls(model)} />
      ) : (
        <span>{name === null ? t.chooseModel : `${name} (${t.gone})`}</span>
      )}
    </Combobox>
  );
}

function percent(name: string, state: string): number | null {
  if (state !== "loading") return null;
  const details = overview.value?.models.find((one) => one.name === name);
  return percentOf(name, status.value, details);
}

/** What it holds or would take; of what plain keys are told, the size of its weights. */
function memoryOf({ id, meta }: ListedModel): string {
  const details = overview.value?.models.find((one) => one.name === id);
  if (details?.memory_held) return t.holds(size(details.memory_held));
  if (details?.memory) {
    const memory = size(details.memory);
    return stateNamed(details.state) === "ready" ? t.about(memory) : t.takes(memory);
  }
  const weights = meta?.["size"];
  return typeof weights === "number" ? t.weighs(size(weights)) : "";
}

interface PersonalityProps {
  readonly models: readonly ListedModel[];
  readonly model: ListedModel;
  readonly conversation: Conversation;
  readonly onChoose: (personality: string | null) => void;
}

/** Who the model is to be; nothing where it has no personalities. */
export function PersonalityPicker({ models, model, conversation, onChoose }: PersonalityProps) {
  const there = model.personalities ?? [];
  const { personality } = conversation;
  if (there.length === 0) return null;
  const choices: readonly Choice[] = [
    { value: NONE, words: t.noPersonality },
    ...there.map((one) => ({
      value: one,
      words: one,
      more: ownDescription(named(models, `${model.id}:${one}`), model),
    })),
  ];
  return (
    <Combobox
      label={t.personality}
      choices={choices}
      value={personality !== null && there.includes(personality) ? personality : NONE}
      onChoose={(value) => onChoose(value === NONE ? null : value)}
      findWords={t.find}
      nothingWords={t.nothingFound}
      about={
        <>
          <State state={stateOf(model)} percent={percent(model.id, stateOf(model))} />
          {memoryOf(model)}
        </>
      }
    >
      {personality !== null && there.includes(personality) ? (
        <span>{personality}</span>
      ) : (
        <span class="soft">{t.personality}</span>
      )}
    </Combobox>
  );
}

/** What is said of a personality beside what is said of its model. */
function ownDescription(one: ListedModel | undefined, model: ListedModel): string | undefined {
  return one?.description === model.description ? undefined : one?.description;
}
