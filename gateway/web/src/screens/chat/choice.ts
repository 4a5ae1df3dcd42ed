/** Which model and personality a conversation asks. Pure. */

import type { ListedModel, ModelStatus, Status } from "../../gateway/types";
import { stateNamed, type StateName } from "../../components/State";
import { anybody, ofCode, questions, withoutPersonality } from "../../texts/en/chat";

/** Models that one can talk with. */
export function talking(models: readonly ListedModel[]): readonly ListedModel[] {
  return models.filter((one) => one.capabilities === undefined || isForChat(one.capabilities));
}

function isForChat(capabilities: readonly string[]): boolean {
  return capabilities.length === 0 || capabilities.includes("chat");
}

/** The model of that name, or with that alias. */
export function named(models: readonly ListedModel[], name: string): ListedModel | undefined {
  return models.find((one) => one.id === name) ?? models.find((one) => one.aliases.includes(name));
}

/** What people call it. */
export function calls(model: ListedModel): string {
  return model.name ?? model.id;
}

/** What a conversation begins with: what was used last, else what the box has ready. */
export function first(
  models: readonly ListedModel[],
  last: string | null,
  status: Pick<Status, "active" | "models"> | null,
): ListedModel | undefined {
  const active = status?.active ?? null;
  return (
    (last === null ? undefined : named(models, last)) ??
    (active === null ? undefined : named(models, active)) ??
    models.find((one) => one.status.value === "loaded") ??
    models[0]
  );
}

/** Whether a model can look at pictures; what models.json says of it comes first. */
export function sees(model: ListedModel | undefined): boolean {
  return (
    model?.capabilities?.includes("vision") ??
    model?.architecture?.input_modalities.includes("image") === true
  );
}

export function stateOf(model: ListedModel): StateName {
  return model.remote === true ? "remote" : stateNamed(model.status.value);
}

/** How much of it is loaded, in percent, from wherever it is told; `null` if it isn't. */
export function percentOf(
  name: string,
  status: Pick<Status, "waiting"> | null,
  details: ModelStatus | undefined,
): number | null {
  const told = status?.waiting.find((one) => one.model === name)?.percent;
  return told ?? (details?.progress == null ? null : 100 * details.progress);
}

/** Three questions to try, that suit who is asked. */
export function questionsFor(
  model: ListedModel | undefined,
  personality: string | null,
): readonly string[] {
  if (personality !== null)
    return questions.find(({ of }) => of.test(personality))?.three ?? anybody;
  return /code|coder/i.test(model?.id ?? "") ? ofCode : withoutPersonality;
}
