import { State, stateNamed } from "../components/State";
import { isLoading, models, role, status } from "../gateway/live";
import { href } from "../router";
import { states } from "../texts/en/common";
import { frame as t } from "../texts/en/frame";

/** The model that loads, or else the active one, or the one that is loaded: on a phone's top bar. */
export function ModelState() {
  const loads = status.value?.waiting.find(isLoading);
  if (loads) return <State state="loading" percent={loads.percent} words={loads.model} />;
  const listed = models.value ?? [];
  const loaded = listed.filter((one) => !one.parent && stateNamed(one.status.value) === "ready");
  const shown = listed.find((one) => one.id === status.value?.active) ?? loaded[0];
  if (!shown) return null;
  const its = stateNamed(shown.status.value);
  const state = (
    <>
      <State state={its} words={shown.name ?? shown.id} />
      <span class="visually-hidden"> {states[its]}</span>
    </>
  );
  if (role.value !== "admin") return state;
  return (
    <a href={href("models", shown.id)} title={t.toModel(shown.id)}>
      {state}
    </a>
  );
}
