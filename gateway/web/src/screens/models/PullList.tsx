import { Button } from "../../components/Button";
import { Meter } from "../../components/Meter";
import { State, type StateName } from "../../components/State";
import { toast } from "../../components/Toasts";
import { withCode } from "../../components/withCode";
import { duration, size } from "../../format";
import { href } from "../../router";
import { actions } from "../../texts/en/common";
import { modelEntry } from "../../texts/en/modelEntry";
import { attempt } from "./actions";
import { beginPull, endPull, type Pull, pulls } from "./pulls";

const t = modelEntry.pulls;

/** What is fetched from the hub, each with its progress, and what has come of the others. */
export function PullList() {
  if (pulls.value.length === 0) return null;
  return (
    <section class="pulls" aria-label={t.title}>
      <h2>{t.title}</h2>
      <ul>
        {[...pulls.value].reverse().map((one) => (
          <OnePull key={one.id} pull={one} />
        ))}
      </ul>
    </section>
  );
}

function OnePull({ pull }: { readonly pull: Pull }) {
  const over = pull.ended !== null;
  const stage = t.stages[pull.stage] ?? pull.stage;
  const stopped = pull.stage === "failed" || pull.stage === "ended";
  return (
    <li class={`pull ${pull.stage}`}>
      <div class="pull-head">
        <strong>{pull.model}</strong>
        {pull.node !== null && <span class="soft">{t.onto(pull.node)}</span>}
        {pull.quantisation && !pull.model.endsWith(pull.quantisation) && (
          <span class="soft">{pull.quantisation}</span>
        )}
        <span class="visually-hidden" role="status">
          {stage}
        </span>
        <span aria-hidden="true">
          <State state={SHAPES[pull.stage] ?? "loading"} percent={percentOf(pull)} words={stage} />
        </span>
        <span class="pull-actions">
          {stopped && (
            <Button onClick={() => void attempt(() => beginPull(pull.model, pull.node))}>
              {pull.stage === "failed" ? actions.tryAgain : t.goOn}
            </Button>
          )}
          <Button
            onClick={() =>
              void attempt(async () => {
                await endPull(pull.id);
                if (!over) toast(t.cancelled);
              })
            }
          >
            {over ? t.clear : t.cancel}
          </Button>
        </span>
      </div>
      {!over && pull.total !== null && (
        <Meter
          label={t.label(pull.model)}
          value={pull.bytes}
          max={pull.total}
          text={t.of(size(pull.bytes), size(pull.total))}
        />
      )}
      <p class="soft">{detailsOf(pull)}</p>
      {pull.name !== null && pull.stage === "done" && (
        <p>
          <a href={href("models", pull.name)}>{t.as(pull.name)}</a>
        </p>
      )}
      {pull.error?.message && <p class="schema-problem">{withCode(pull.error.message)}</p>}
    </li>
  );
}

/** What its stage looks like, where it is not under way. */
const SHAPES: Readonly<Record<string, StateName>> = {
  waiting: "waiting",
  done: "ready",
  failed: "failed",
  ended: "unloaded",
};

function percentOf(pull: Pull): number | undefined {
  return pull.stage === "downloading" && pull.total ? (100 * pull.bytes) / pull.total : undefined;
}

function detailsOf(pull: Pull): string {
  return [
    pull.total !== null ? t.of(size(pull.bytes), size(pull.total)) : "",
    pull.speed ? t.speed(size(pull.speed)) : "",
    pull.seconds_left ? t.left(duration(pull.seconds_left)) : "",
    pull.note ?? "",
  ]
    .filter(Boolean)
    .join(" · ");
}
